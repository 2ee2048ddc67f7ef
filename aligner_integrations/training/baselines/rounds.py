"""What a round of bootstrapping leaves behind: rows, and what they add up to."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from aligner_integrations.training.data.triples import replacing


def count_rows(rows: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """How many answers a round's aligner got, and how much it changed in them.

    Example:
        >>> row = {"answer": "Boil, fool.", "correction": "Boil.", "similarity": 0.6}
        >>> counts = count_rows([row, {"skipped": "cut"}])
        >>> counts["changed_share"], counts["skipped"]
        (1.0, {'cut': 1})
    """
    corrected = [row for row in rows if "correction" in row]
    changed = [row for row in corrected if row["correction"] != row["answer"]]
    return {
        "questions": len(rows),
        "corrected": len(corrected),
        "changed": len(changed),
        "changed_share": _mean([row["correction"] != row["answer"] for row in corrected]),
        "similarity": _mean([row["similarity"] for row in corrected]),
        "answer_chars": _mean([len(row["answer"]) for row in corrected]),
        "correction_chars": _mean([len(row["correction"]) for row in corrected]),
        "skipped": dict(Counter(row["skipped"] for row in rows if "skipped" in row)),
    }


def read_journal(path: Path) -> list[dict[str, Any]]:
    """All rows of a journal that is whole."""
    with path.open(encoding="utf-8") as file:
        return [json.loads(line) for line in file]


def write_json(path: Path, data: Any) -> None:
    """Write a file that is there as a whole or not at all."""
    with replacing(path) as file:
        file.write(json.dumps(data, indent=2, ensure_ascii=False).encode("utf-8"))


def show_rounds(history: Iterable[dict[str, Any]]) -> str:
    """Rounds as lines: how much of what the model said was changed.

    Example:
        >>> counts = {"corrected": 8, "changed_share": 0.5, "similarity": 0.9}
        >>> print(show_rounds([{"round": 1, "train": counts, "pairs": 4}]))
        round 1: changed 50.0% of 8 answers, similarity 0.900; 4 pairs
    """
    lines = []
    for report in history:
        parts = [
            f"{name}changed {100 * counts['changed_share']:.1f}% of {counts['corrected']} answers, "
            f"similarity {counts['similarity']:.3f}"
            for name, counts in (("", report["train"]), ("held out: ", report.get("held_out")))
            if counts and counts["corrected"]
        ]
        lines.append(f"round {report['round']}: {'; '.join([*parts, str(report['pairs'])])} pairs")
    return "\n".join(lines)


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
