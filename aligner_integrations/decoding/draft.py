"""Drafting from the answer: where the copy goes on, and how far to bet on it.

An aligner mostly copies, so the answer's own tokens are the draft. After a departure (a word
replaced, a sentence dropped or put in) the way back into the answer is the place whose tokens
before it match the last output longest, near places first.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from aligner_integrations.decoding.costs import PassCosts

_HOPELESS = 1e-3  # a saved pass, times this, is worth less than a drafted token costs


@dataclass(frozen=True, slots=True)
class Belief:
    """Chance that the next tokens are copied, as a Beta distribution over the chance of each.

    After ``copied`` tokens in a row were right, the next one is right with probability
    ``copied / (copied + missed)``; betting on ``n`` more succeeds with a chance that falls off
    slowly, because a long copy makes a longer one likely.
    """

    copied: float
    missed: float

    def expect(self, length: int) -> list[float]:
        """Expected number of accepted tokens for drafts of 0, 1, ... ``length`` tokens.

        Ends early where the next token's chance is too small to pay for any pass.
        """
        expected, survival = [0.0], 1.0
        for index in range(length):
            if survival < _HOPELESS:
                break
            survival *= (self.copied + index) / (self.copied + self.missed + index)
            expected.append(expected[-1] + survival)
        return expected


class Drafter:
    """Follows one output through the answer.

    Args:
        source: The answer's tokens, in output context.
    """

    # Found by random search: copies, word edits, removals and rewrites replayed on CPU_COSTS, for
    # the best mean speed-up at no loss on rewrites. They change the cost, never the output.
    _START = Belief(3.75, 0.62)  # before anything is known
    _BASE = Belief(0.9, 2.0)  # afterwards, with nothing matched
    _PER_MATCH = 0.95
    _PER_MISS = 0.31
    _FORGET = 0.24  # by 8 accepted tokens
    _PROBE = 8  # tokens to try before betting on all of the answer
    _LONGEST_MATCH = 12
    _FAR = 40
    _WORTH = 1.2  # of an accepted token, in passes: it also brings the next bet nearer

    def __init__(self, source: Sequence[int]) -> None:
        self._source = source
        self._places: dict[int, list[int]] = defaultdict(list)
        for index, token in enumerate(source):
            self._places[token].append(index)
        self._output: list[int] = []
        self._next = 0
        self._matched = 0
        self._misses = 0.0

    @property
    def place(self) -> int:
        """Index of the answer's token with which the copy goes on."""
        return self._next

    @property
    def matched(self) -> int:
        """How many of the last output tokens are those that stand before this place."""
        return self._matched

    def advance(self, tokens: Sequence[int]) -> None:
        """Follow output that was decided."""
        for token in tokens:
            self._output.append(token)
            if self._next < len(self._source) and self._source[self._next] == token:
                self._next += 1
                self._matched += 1
            else:
                self._resynchronise(token)

    def learn(self, drafted: int, accepted: int) -> None:
        """Take in how a draft fared."""
        if not drafted:
            return
        self._misses *= self._FORGET ** (accepted / 8)
        if accepted < drafted:
            self._misses += 1.0 if accepted < 4 else 0.3

    def draft(self, costs: PassCosts, others: int, rows: int) -> Sequence[int]:
        """The answer's tokens that are worth verifying in the next pass.

        Args:
            costs: What passes cost.
            others: Tokens that the pass has anyway.
            rows: Rows in the pass; with more of them a saved pass is worth less.
        """
        room = len(self._source) - self._next
        if not self._output:
            room = min(room, self._PROBE)
        if room <= 0:
            return ()
        # An accepted token saves this row's share of a later pass.
        worth = costs.of(rows) / rows * self._WORTH
        base = costs.of(others)
        expected = self._belief().expect(room)
        gains = [
            accepted * worth - (costs.of(others + length) - base)
            for length, accepted in enumerate(expected)
        ]
        length = max(range(len(gains)), key=gains.__getitem__)
        return self._source[self._next : self._next + length]

    def _belief(self) -> Belief:
        if not self._output:
            return self._START
        return Belief(
            self._BASE.copied + self._PER_MATCH * self._matched,
            self._BASE.missed + self._PER_MISS * self._misses,
        )

    def _resynchronise(self, token: int) -> None:
        best, found = -1.0, None
        for place in self._places.get(token, ()):
            length = self._match_length(place)
            distance = abs(place - self._next)
            if length < 2 and distance > self._LONGEST_MATCH:
                continue
            score = 4 * length - 0.15 * min(distance, self._FAR) - (place < self._next)
            if score > best:
                best, found = score, (place + 1, length)
        if found is None:  # a replaced token: go on behind the one that it replaces
            found = (min(self._next + 1, len(self._source)), 0)
        self._next, self._matched = found

    def _match_length(self, place: int) -> int:
        length = 1
        while (
            length < min(self._LONGEST_MATCH, place + 1, len(self._output))
            and self._source[place - length] == self._output[-1 - length]
        ):
            length += 1
        return length
