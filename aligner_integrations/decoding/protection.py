"""Parts of the answer that are copied whatever the model would write."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence

from aligner_integrations.decoding.draft import Drafter

Span = tuple[int, int]
"""``(start, end)`` in tokens of the answer."""

_ALIKE = 2  # copied tokens that show that the output is at this place, and not just alike


class Protection:
    """Follows one output through the answer, and demands protected tokens where it comes to them.

    A part is entered where the output has just copied what stands before it, or has begun to copy
    the part itself, and is then copied to its end. Each is so once: an output that goes round in
    circles is not held up. An output that has left the answer and does not come back before a part
    is not forced to anything.

    Args:
        source: The answer's tokens, in output context.
        spans: The protected ones, in order, without overlap.
    """

    def __init__(self, source: Sequence[int], spans: Sequence[Span]) -> None:
        self._source = source
        self._spans = spans
        self._starts = [start for start, _ in spans]
        self._entered: set[int] = set()
        self._drafter = Drafter(source)
        self._end: int | None = None

    def demand(self) -> int | None:
        """The token that must come next, if one must."""
        place = self._drafter.place
        if self._end is None:
            self._enter(place)
        return None if self._end is None else self._source[place]

    def follow(self, token: int) -> None:
        """Take in the token that came."""
        self._drafter.advance([token])
        if self._end is not None and self._drafter.place >= self._end:
            self._end = None

    def restart(self) -> Protection:
        """The same for an output that begins anew."""
        return Protection(self._source, self._spans)

    def _enter(self, place: int) -> None:
        index = bisect_right(self._starts, place) - 1
        if index < 0 or index in self._entered:
            return
        start, end = self._spans[index]
        if place < end and self._drafter.matched >= min(max(_ALIKE, place - start), place):
            self._entered.add(index)
            self._end = end


def find_tokens(spans: Sequence[Span], ends: Sequence[int]) -> list[Span]:
    """The tokens that hold these characters, where they touch joined.

    Args:
        spans: Characters.
        ends: Where each token's characters end.
    """
    found: list[Span] = []
    for start, end in spans:
        first = bisect_right(ends, start)
        # Tokens that end where they begin are the first bytes of the character behind them.
        while first and ends[first - 1] == (ends[first - 2] if first > 1 else 0):
            first -= 1
        last = min(bisect_left(ends, end) + 1, len(ends))
        if found and first < found[-1][1]:
            found[-1] = (found[-1][0], max(last, found[-1][1]))
        else:
            found.append((first, last))
    return found
