"""Pairs with what the aligner makes of each when it is asked alone: by that mix-ups are seen."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).parents[3]


@dataclass(frozen=True, slots=True)
class Pair:
    """A question that no other pair has, the upstream's answer, and its correction."""

    question: str
    answer: str
    text: str


@dataclass(frozen=True, slots=True)
class Pool:
    """Pairs whose questions, answers and corrections all differ.

    Attributes:
        pairs: The pairs.
        too_long: An answer that does not fit the aligner's context.
        left_out: How many candidates were not taken: no correction that ends, the same correction
            as another's, or one with a near-tie.
    """

    pairs: tuple[Pair, ...]
    too_long: str
    left_out: int

    def save(self, path: Path) -> None:
        """Write it for the upstream's process."""
        path.write_text(json.dumps(asdict(self)), encoding="utf-8")


def load_pool(path: Path) -> Pool:
    """What `Pool.save` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    return Pool(tuple(Pair(**pair) for pair in data["pairs"]), data["too_long"], data["left_out"])
