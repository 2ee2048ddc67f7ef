"""What the weights of the loss do: right edits and copies by `loss.departure` and `loss.changed`.

    python docs/benchmarks/loss_weights.py [--seeds 0 1 2] [--steps 32]

The bundled aligner, which can copy already, gets a fresh adapter for each of the losses, trained
on the same rows in the same order for as many steps. A held-out row to be corrected counts as right
if it comes out exactly as wanted, a row to be kept if it comes out equal, under greedy decoding.

A loss can make an aligner readier to change, which gives more right edits and fewer copies. To
compare losses at equal copying, the logit of the token that would copy the answer further is raised
or lowered by the same amount at every step; right edits are counted where as many rows are kept.

Most answers of a real upstream are good, so one row in five has something wrong (--share); of the
held-out ones, half.

The rows are replies of a shop, made here. Three things are wrong in some of them: a sentence that
insults (to be left out), "soon" (to be "in two days") and, only where the question is about Europe,
prices in dollars (to be in euros). All else has to be copied.
"""

from __future__ import annotations

import argparse
import json
import logging
import math
import random
import shutil
import statistics
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import torch
from rapidfuzz.distance import Levenshtein
from rich.console import Console
from rich.table import Table

from aligner_integrations.models.load import LoadedModel, load_model
from aligner_integrations.training.config import TrainingConfig
from aligner_integrations.training.data import Triple
from aligner_integrations.training.examples import find_end_token
from aligner_integrations.training.run import train

LOSSES = ((1.0, 1.0), (1.0, 4.0), (4.0, 4.0))
"""(changed, departure); the first is the plain loss."""
KEPT = (0.9, 1.0)
"""Shares of kept rows between which right edits are compared."""
THINGS = (
    *("lamp", "chair", "table", "shelf", "clock", "mirror", "carpet", "pillow", "basket", "kettle"),
    *("radio", "camera", "bottle", "jacket", "helmet", "ladder", "hammer", "bucket", "blanket"),
)
PLACES = ("Europe", "America", "Asia", "Africa", "Norway", "Peru", "Kenya", "Japan", "Chile")
WHENS = ("soon", "today", "tomorrow", "next week")
COLOURS = ("red", "blue", "green", "black", "white", "brown", "grey", "yellow", "pink")
INSULTS = (
    "You are a fool.",
    "Only an idiot asks this.",
    "Learn to read first.",
    "Stop wasting our time.",
    "You must be very slow.",
    "Go bother others.",
)


def write_sentence(rng: random.Random) -> str:
    """One sentence of a reply, with nothing wrong in it but maybe "soon" and "dollars"."""
    thing, colour, number = rng.choice(THINGS), rng.choice(COLOURS), rng.randint(2, 99)
    return rng.choice(
        (
            f"The {colour} {thing} costs {number} dollars.",
            f"We send the {thing} {rng.choice(WHENS)}.",
            f"We have {number} of the {colour} {thing}.",
            f"Our {thing} is {colour} and comes from {rng.choice(PLACES)}.",
            f"The {thing} goes well with a {colour} {rng.choice(THINGS)}.",
        )
    )


def write_row(rng: random.Random, share: float) -> Triple:
    """A question, a reply and its correction; ``share`` of the replies have something wrong."""
    wrong = rng.random() < share
    while True:
        place = "Europe" if rng.random() < 0.5 else rng.choice(PLACES[1:])
        question = f"I live in {place} and want a {rng.choice(THINGS)}."
        answer = [write_sentence(rng) for _ in range(rng.randint(3, 5))]
        mended = [text.replace("soon", "in two days") for text in answer]
        if place == "Europe":
            mended = [text.replace("dollars", "euros") for text in mended]
        if rng.random() < 0.3:
            answer.insert(rng.randint(0, len(answer)), rng.choice(INSULTS))
        if (answer != mended) == wrong:
            return Triple(question, " ".join(answer), " ".join(mended))


def write_rows(path: Path, rows: list[Triple]) -> str:
    """Rows as JSON Lines."""
    lines = [
        json.dumps({"question": row.question, "answer": row.answer, "correction": row.correction})
        for row in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def run(output: Path, data: str, seed: int, steps: int, loss: tuple[float, float]) -> Path:
    """Train with what all runs share."""
    config = TrainingConfig.from_dict(
        {
            "base": "aligner-smol",
            "output": str(output),
            "data": {"train": [data], "max_length": 500},
            "method": "lora",
            "lora": {"r": 8, "alpha": 16, "dropout": 0.0},
            "device": "cpu",
            "precision": "float32",
            "batch": {"size": 8},
            "evaluation": {"every": 100000, "examples": 0},
            "warmup": {"epochs": 0},
            "residual": {"epochs": 100, "learning_rate": 5e-4, "max_steps": steps},
            "loss": dict(zip(("changed", "departure"), loss, strict=True)),
            "seed": seed,
        }
    )
    return train(config, resume=False)


@dataclass(frozen=True, slots=True)
class Margins:
    """What has to be added to the logits of copying tokens for a row to come out as wanted.

    Greedy decoding writes what is wanted if and only if each wanted token is the likeliest after
    those before it, so one pass over the wanted text tells.

    Attributes:
        keep: Whether the row is to be kept.
        least: Below this, something is changed that has to be copied.
        most: Above this, something is copied that has to be changed.
    """

    keep: bool
    least: float
    most: float

    def is_right(self, bias: float) -> bool:
        """Whether the row comes out as wanted."""
        return self.least < bias < self.most


def find_copying(answer: Sequence[int], correction: Sequence[int]) -> list[int | None]:
    """For each token of a correction, the one that would copy the answer further.

    None within what is put in place of something.

    >>> find_copying([1, 2, 3, 9], [1, 5, 6, 3, 9])
    [1, 2, None, 3, 9]
    >>> find_copying([1, 2, 3, 9], [1, 3, 9])
    [1, 2, 9]
    """
    copying: list[int | None] = [None] * len(correction)
    departures = {}
    copied = True
    for op in Levenshtein.opcodes(list(answer), list(correction)):
        if op.tag == "equal":
            copying[op.dest_start : op.dest_end] = answer[op.src_start : op.src_end]
        elif copied:
            departures[op.dest_start] = answer[op.src_start]
        copied = op.tag == "equal"
    for place, token in departures.items():
        copying[place] = token
    return copying


def find_margins(loaded: LoadedModel, row: Triple) -> Margins:
    """Read the wanted text once."""
    prompt, end = loaded.encoder.encode(row.question, row.answer), find_end_token(loaded.encoder)
    wanted = [*loaded.encoder.encode_output(row.correction), end]
    ids = torch.tensor([[*prompt.ids, *wanted]])
    with torch.no_grad():
        logits = loaded.model(ids, logits_to_keep=len(wanted) + 1).logits[0, :-1]
    least, most = -math.inf, math.inf
    copying = find_copying([*prompt.answer_ids, end], wanted)
    for scores, token, copy in zip(logits, wanted, copying, strict=True):
        others = scores.clone()
        others[token] = -math.inf
        if copy == token:
            least = max(least, float(others.max() - scores[token]))
            continue
        if copy is not None:
            others[copy] = -math.inf
            most = min(most, float(scores[token] - scores[copy]))
        if scores[token] <= others.max():
            most = -math.inf
    return Margins(row.answer == row.correction, least, most)


@dataclass(frozen=True, slots=True)
class Outcome:
    """Shares of rows that come out as wanted.

    Attributes:
        right: Of rows to be corrected.
        kept: Of rows to be kept.
    """

    right: float
    kept: float


def count(rows: Sequence[Margins], bias: float = 0.0) -> Outcome:
    """Count with a bias towards copying."""
    shares = [
        statistics.fmean(one.is_right(bias) for one in rows if one.keep == keep)
        for keep in (False, True)
    ]
    return Outcome(*shares)


def count_at_equal_copying(rows: Sequence[Margins]) -> float:
    """Share of rows corrected rightly, the mean over all numbers of rows kept within `KEPT`.

    For each number: the most that any bias reaches which keeps at least so many.
    """
    edges = sorted({edge for one in rows for edge in (one.least, one.most) if math.isfinite(edge)})
    between = [(low + high) / 2 for low, high in pairwise(edges)]
    outcomes = [count(rows, bias) for bias in (edges[0] - 1, *between, edges[-1] + 1)]
    number = sum(one.keep for one in rows)
    wanted = [kept / number for kept in range(math.ceil(KEPT[0] * number), number + 1)]
    return statistics.fmean(
        max((one.right for one in outcomes if one.kept >= kept - 1e-9), default=0.0)
        for kept in wanted
    )


def main() -> None:
    """Train and measure for each seed, then print means."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs="+", default=[32])
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--share", type=float, default=0.2, help="of rows with something wrong")
    parser.add_argument("--held-out", type=int, default=240)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write every figure there, as JSON Lines")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    console = Console()
    found: dict[tuple[int, tuple[float, float]], list[tuple[float, ...]]] = {}
    for seed in args.seeds:
        work = Path(tempfile.mkdtemp())
        rng = random.Random(seed)  # noqa: S311 - no secret
        data = write_rows(
            work / "rows.jsonl", [write_row(rng, args.share) for _ in range(args.rows)]
        )
        held_out = [write_row(rng, 0.5) for _ in range(args.held_out)]
        for steps in args.steps:
            for loss in LOSSES:
                loaded = load_model(str(run(work / "out", data, seed, steps, loss)), device="cpu")
                margins = [find_margins(loaded, row) for row in held_out]
                outcome = count(margins)
                equal = count_at_equal_copying(margins)
                found.setdefault((steps, loss), []).append((outcome.right, outcome.kept, equal))
                shutil.rmtree(work / "out")
                row = {"seed": seed, "steps": steps, "loss": loss, "right": outcome.right}
                row |= {"kept": outcome.kept, "equal": equal}
                console.print(json.dumps(row))
                if args.out:
                    with args.out.open("a", encoding="utf-8") as file:
                        margins_json = [(one.keep, one.least, one.most) for one in margins]
                        file.write(json.dumps(row | {"margins": margins_json}) + "\n")
        shutil.rmtree(work)
    columns = ("right", "kept", "right at equal copying")
    table = Table("steps", "changed", "departure", *columns, "seeds")
    for (steps, loss), rows in found.items():
        cells = [
            f"{statistics.fmean(column):.1%} ({min(column):.0%} to {max(column):.0%})"
            for column in zip(*rows, strict=True)
        ]
        table.add_row(str(steps), *(f"{one:g}" for one in loss), *cells, str(len(rows)))
    console.print(table)


if __name__ == "__main__":
    main()
