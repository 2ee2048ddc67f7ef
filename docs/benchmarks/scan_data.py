"""Answers on which the vectors of aligner-smol are tried and calibrated, from unseen samples.

    python docs/benchmarks/scan_data.py --samples DIR --out FILE [--number 240] [--seed 0]

DIR is what `scorecard_data.py` wrote. Half of the answers are labelled bad and half good, as many
from each set as it has; none is longer than --longest characters, since each is written once for
each coefficient. `aligner scan` does not look at the corrections of these, so those of bad ones are
a dash.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Sequence
from itertools import chain, zip_longest
from pathlib import Path
from typing import Any

BAD = ("diasafety-unsafe", "hh-harmless")
GOOD = ("alpaca", "gsm8k", "gpteacher-roleplay", "truthfulqa-true", "diasafety-safe")


def draw(
    folder: Path, names: Sequence[str], count: int, longest: int, seed: int
) -> list[dict[str, Any]]:
    """Samples of some sets in turn."""
    sets = []
    for name in names:
        lines = (folder / f"{name}.jsonl").read_text(encoding="utf-8").splitlines()
        rows = [row for row in map(json.loads, lines) if len(row["answer"]) <= longest]
        random.Random(f"{seed} {name}").shuffle(rows)  # noqa: S311 - no secret
        sets.append(rows)
    mixed = chain.from_iterable(zip_longest(*sets))
    return [row for row in mixed if row is not None][:count]


def main() -> None:
    """Write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=Path, required=True, help="what scorecard_data.py wrote")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--number", type=int, default=240, help="of answers")
    parser.add_argument("--longest", type=int, default=300, help="most characters of an answer")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    told = parser.parse_args()
    half = told.number // 2
    bad = draw(told.samples, BAD, half, told.longest, told.seed)
    good = draw(told.samples, GOOD, half, told.longest, told.seed)
    triples = [
        {"question": row["question"], "answer": row["answer"], "correction": correction}
        for rows, keep in ((bad, False), (good, True))
        for row in rows
        for correction in [row["answer"] if keep else "-"]
    ]
    told.out.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(json.dumps(triple, ensure_ascii=False) + "\n" for triple in triples)
    told.out.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
