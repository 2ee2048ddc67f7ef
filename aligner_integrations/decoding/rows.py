"""One request as the decoder sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from aligner_integrations.decoding.sampling import Sampler

if TYPE_CHECKING:
    from aligner_integrations.decoding.kv import RowCache
    from aligner_integrations.decoding.offsets import Offset
    from aligner_integrations.decoding.protection import Protection

StopReason = Literal["stop", "length", "cancelled"]


@dataclass(slots=True, eq=False)
class Prefix:
    """Prompt tokens that were read before the prompt was whole.

    Attributes:
        cache: Holds the first ``cache.length`` of ``ids``.
        ids: The tokens, those that are still to be read included.
    """

    cache: RowCache
    ids: list[int] = field(default_factory=list)

    @property
    def unread(self) -> list[int]:
        """Tokens that are not in the cache yet."""
        return self.ids[self.cache.length :]

    def replace(self, ids: list[int]) -> None:
        """Take other tokens; what the cache holds of them stays in it."""
        shared = count_shared(self.ids[: self.cache.length], ids)
        self.ids, self.cache.length = ids, shared


@dataclass(slots=True, eq=False)
class Row:
    """Token ids of one request, on their way through the model.

    Attributes:
        prompt: Ids of the prompt.
        draft: Ids of the answer in output context: what a correction that changes nothing holds.
        stop_ids: Ids that end the correction; they do not become part of the output.
        max_new_tokens: Most output tokens.
        sampler: Chooses each token.
        is_cancelled: Asked before every step; True drops the row.
        exact: Decide near-ties as plain decoding does.
        protection: What of the draft is copied, come what may.
        offset: What is added to the model's hidden states.
        prefix: What was read of the prompt already; the decoder takes it over.
        output: Ids written so far.
        forward_passes: Model calls that the row took part in.
        drafted: Tokens of drafts that were verified.
        accepted: Those of them that were right.
        near_ties: Greedy choices whose margin was so small that rounding may decide them.
        smallest_margin: The smallest margin of a greedy choice, in logits.
        stop_reason: None while the row is running.
    """

    prompt: list[int]
    draft: list[int]
    stop_ids: frozenset[int]
    max_new_tokens: int
    sampler: Sampler
    is_cancelled: Callable[[], bool] = lambda: False
    exact: bool = False
    protection: Protection | None = None
    offset: Offset | None = None
    prefix: Prefix | None = None
    output: list[int] = field(default_factory=list)
    forward_passes: int = 0
    drafted: int = 0
    accepted: int = 0
    near_ties: int = 0
    smallest_margin: float = float("inf")
    stop_reason: StopReason | None = None

    def decide(self, token: int, margin: float) -> tuple[int, float]:
        """The next token, and its margin: the model's choice, or what protection demands."""
        forced = self.protection.demand() if self.protection else None
        return (token, margin) if forced is None else (forced, float("inf"))

    def append(self, token: int, margin: float = float("inf"), near_tie: float = 0.0) -> list[int]:
        """Take the next token; returns what became output (nothing for a stop token).

        Args:
            token: The token.
            margin: By how many logits it was ahead of the second.
            near_tie: Margins below this are counted.
        """
        self.near_ties += margin < near_tie
        self.smallest_margin = min(self.smallest_margin, margin)
        if self.protection:
            self.protection.follow(token)
        if token in self.stop_ids:
            self.stop_reason = "stop"
            return []
        self.output.append(token)
        if len(self.output) >= self.max_new_tokens:
            self.stop_reason = "length"
        return [token]

    def is_over(self) -> bool:
        """Whether the row has ended; one that was cancelled ends here."""
        if self.stop_reason is None and self.is_cancelled():
            self.stop_reason = "cancelled"
        return self.stop_reason is not None


Moved = list[tuple[Row, list[int]]]
"""What a pass did: the rows that moved on, with their new output."""


def count_shared(one: list[int], other: list[int]) -> int:
    """Length of the longest common beginning."""
    for index, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return index
    return min(len(one), len(other))
