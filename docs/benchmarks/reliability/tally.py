"""How requests ended, and how long they took."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

from docs.benchmarks.reliability.plans import CANCELLED, RIGHT


@dataclass
class Tally:
    """Counts of many requests; what is not as it must be is in ``wrong``, with what happened.

    Attributes:
        ends: How many ended in which way.
        seconds: Of the right answers, by kind of request.
        first: Seconds to the first piece of right answers that were streamed.
        lost: Requests without any end.
        mixed: Requests that ended with something that is not theirs.
        wrong: These and all others that ended as they must not, described.
    """

    ends: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    first: list[float] = field(default_factory=list)
    lost: int = 0
    mixed: int = 0
    wrong: list[str] = field(default_factory=list)

    @property
    def requests(self) -> int:
        """All that have ended, rightly or not."""
        return self.ends.total()

    def note(self, name: str, end: str, allowed: set[str], detail: str = "") -> bool:
        """Count a request's end; whether it may end so."""
        self.ends[end] += 1
        if end in allowed:
            return True
        self.lost += end == "lost"
        self.mixed += end == "mixed up"
        self.wrong.append(f"{name}: {end} instead of {' or '.join(sorted(allowed))}. {detail}")
        return False

    def note_seconds(self, kind: str, seconds: float) -> None:
        """Count how long a right answer took."""
        self.seconds.setdefault(kind, []).append(seconds)

    def summarize(self, seconds: float) -> dict[str, object]:
        """Figures for the report.

        Args:
            seconds: How long all of it took.
        """
        errors = {end: n for end, n in self.ends.items() if end not in (RIGHT, CANCELLED)}
        return {
            "requests": self.requests,
            "seconds": round(seconds, 1),
            "requests_per_second": round(self.requests / seconds, 2),
            "right": self.ends[RIGHT],
            "cancelled": self.ends[CANCELLED],
            "errors": dict(sorted(errors.items())),
            "lost": self.lost,
            "mixed_up": self.mixed,
            "wrong": self.wrong[:20],
            "latency": {kind: find_percentiles(taken) for kind, taken in self.seconds.items()},
            "first_text": find_percentiles(self.first) if self.first else None,
        }


def find_percentiles(values: list[float]) -> dict[str, float]:
    """The 50th, 95th and 99th percentile (nearest rank), and how many values there are."""
    ordered = sorted(values)
    ranks = {f"p{share}": max(0, -(-share * len(ordered) // 100) - 1) for share in (50, 95, 99)}
    return {"n": len(ordered), **{name: round(ordered[at], 3) for name, at in ranks.items()}}
