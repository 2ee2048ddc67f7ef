"""What is asked, and how it may end."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count

from docs.benchmarks.reliability.pool import Pair, Pool

RIGHT = "right answer"
CANCELLED = "cancelled by us"

WHOLE = {
    "429": "429 says_429",
    "500": "500 says_500",
    "html": "503 upstream",
    "refuse": "502 upstream_broken",
    "drop": "502 upstream_broken",
    "half": "502 upstream_invalid",
    "wrong": "502 upstream_invalid",
    "silent": "504 upstream_timeout",
    "long": "400 context_length_exceeded",
    "bad body": "400 invalid_json",
    "other model": "404 model_not_found",
}
"""Faults, and the error in which a request that is no stream must end."""

STREAM = {
    **{fault: end for fault, end in WHOLE.items() if not end.startswith(("502", "504", "400"))},
    "refuse": "502 upstream_broken",
    "drop": "event upstream_broken",
    "half": "event upstream_broken",
    "wrong": "event upstream_invalid",
    "error": "event upstream",
    "silent": "event upstream_timeout",
    "long": "event context_length_exceeded",
    "bad body": "400 invalid_json",
}
"""The same for a stream; ``event`` is an error that comes as its last event."""

QUEUE_FULL = "429 queue_full"


@dataclass(frozen=True, slots=True)
class Plan:
    """One request.

    Attributes:
        name: An id that no other request has, and that its answer must carry.
        pair: What is asked, and what is to come back.
        stream: Whether as a stream.
        fault: What is to go wrong; ``""`` nothing, ``"slow"`` only the upstream's pace.
        hang_up: Seconds after which the client goes away, if it has no answer by then.
        crowd: It is one of many that come at once, so it may be turned away.
    """

    name: str
    pair: Pair
    stream: bool
    fault: str = ""
    hang_up: float | None = None
    crowd: bool = False

    @property
    def ends(self) -> set[str]:
        """All the ways in which it may end."""
        error = (STREAM if self.stream else WHOLE).get(self.fault)
        ends = {error or RIGHT}
        if self.hang_up is not None:
            ends.add(CANCELLED)
        if self.crowd:
            ends.add(QUEUE_FULL)
        return ends


def make_plans(
    pool: Pool, seed: int, *, faults: float, hang_ups: float, patience: float
) -> Iterator[Plan]:
    """Requests without end: half of them streams, in random order through the whole pool.

    The same pair comes again only when all others have had their turn, so that what runs together
    differs.

    Args:
        pool: What to ask.
        seed: Of the draws.
        faults: Share of requests with a fault.
        hang_ups: Share of the others whose client goes away.
        patience: Most seconds for which such a client stays.
    """
    draw = random.Random(seed)  # noqa: S311 - a load
    numbers = count()
    while True:
        for pair in draw.sample(pool.pairs, len(pool.pairs)):
            stream = draw.random() < 0.5
            fault, hang_up = "", None
            if draw.random() < faults:
                fault = draw.choice(sorted(STREAM if stream else WHOLE))
            elif draw.random() < 0.1:
                fault = "slow"
            if fault in ("", "slow") and draw.random() < hang_ups:
                hang_up = draw.uniform(0.0, patience)
            yield Plan(f"req-{seed}-{next(numbers):06d}", pair, stream, fault, hang_up)
