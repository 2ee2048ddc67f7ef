"""When the tokens of a shared pass are those of plain decoding, bit for bit or nearly.

A pass over many tokens may add the same numbers up in another order than a pass over one, and the
cache keeps the difference. Where the two likeliest tokens are closer than such differences get, the
choice may flip: a near-tie.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal
from weakref import WeakKeyDictionary

import torch

from aligner_integrations.decoding import plain
from aligner_integrations.decoding.kv import RowCache
from aligner_integrations.decoding.packed import PackedModel, Part
from aligner_integrations.decoding.rows import Row
from aligner_integrations.decoding.running import RunningRow
from aligner_integrations.decoding.sampling import Sampler

Exactness = Literal["bitwise", "replay", "plain"]
"""How a model's near-ties are decided exactly.

``"bitwise"``: its passes over many tokens give the very bits of passes over one, so there is
nothing to decide again. ``"replay"``: they don't; before a near-tie is decided, the tokens up to it
are read again one by one. ``"plain"``: neither is possible, exact rows are decoded plainly.
"""

logger = logging.getLogger(__name__)
_found: WeakKeyDictionary[PackedModel, Exactness] = WeakKeyDictionary()


def start_exact(model: PackedModel, row: Row) -> RunningRow:
    """Begin an exact row, in the fastest way in which this model can be exact."""
    if model not in _found:
        _found[model] = find_exactness(model)
        logger.info("exact=True is %r for this model, device and dtype", _found[model])
    if _found[model] == "plain":
        return PlainRow(model, row)
    return ExactRow(row, replays=_found[model] == "replay")


class ExactRow(RunningRow):
    """A row whose every choice is the one of plain decoding.

    Its prompt is read in a pass of its own, as plain decoding does. From then on tokens share
    passes, with the bits of a pass of their own where the model `replays` not. Where it does, a
    near-tie sends the row back to the last token whose cache is plain decoding's, to read all
    behind it one by one.

    Args:
        row: The row.
        replays: Whether shared passes have other bits.
    """

    def __init__(self, row: Row, *, replays: bool) -> None:
        row.prefix = None
        super().__init__(row)
        self.single = not replays
        self._replays = replays
        # Random draws can't be taken back, so with sampling each is made from exact logits.
        self._never_drafts = replays and row.sampler.temperature > 0
        self._is_replaying = replays
        self._settled = 0  # positions of the cache that are as in plain decoding

    @property
    def is_alone(self) -> bool:
        """While the prompt or, up to a near-tie, single tokens are read."""
        return not self._settled or self._is_replaying

    def may_decide_ties(self) -> bool:
        """Whether the logits at hand are plain decoding's."""
        return self.single or self._is_replaying

    def step_alone(self, model: PackedModel, tie: float) -> list[int]:
        """Read the prompt, or one token of the replay."""
        self.row.forward_passes += 1
        if not self._settled:
            self.cache, logits = model.prefill_alone(self.row.prompt, self.row.offset)
            self.unread = list(self.row.output)
        else:
            token = self.unread.pop(0)
            part = Part(self.cache, [token], 1, single=True, offset=self.row.offset)
            (logits,) = model.forward([part])
        self._settled = self.cache.length
        if self.unread:
            return []
        output = super().verify([], logits, tie)
        self._is_replaying = self._never_drafts
        return output

    def verify(self, drafted: Sequence[int], logits: torch.Tensor, tie: float) -> list[int]:
        """As `RunningRow.verify`, up to a near-tie."""
        output = super().verify(drafted, logits, tie)
        if self.stopped_at_tie:
            self._is_replaying = True
            self.cache.length = self._settled
            self.unread = [*self.row.prompt, *self.row.output][self._settled :]
        return output


class PlainRow(RunningRow):
    """A row that plain decoding runs, where passes can't be shared exactly.

    What it has written already is read again as it was written, token by token.
    """

    is_alone = True

    def __init__(self, model: PackedModel, row: Row) -> None:
        row.prefix = None
        super().__init__(row)
        sampler = _Forced(row.output, row.sampler)
        protection = row.protection.restart() if row.protection else None
        self._twin = replace(row, output=[], sampler=sampler, protection=protection)
        self._steps = plain.decode(model.model, [self._twin])

    def step_alone(self, model: PackedModel, tie: float) -> list[int]:
        """One pass of plain decoding."""
        row, twin = self.row, self._twin
        next(self._steps, None)
        output = twin.output[len(row.output) :]
        row.output += output
        row.forward_passes += 1
        row.near_ties, row.smallest_margin = twin.near_ties, twin.smallest_margin
        row.stop_reason = twin.stop_reason
        return output


@torch.inference_mode()
def find_exactness(model: PackedModel) -> Exactness:
    """Try a model, on its device and with its kernels; takes as long as about 60 tokens."""
    try:
        wanted = _decode_alone(model)
        cache, first = model.prefill_alone(_PROMPT)
        single = [model.forward([Part(cache, [token], 1, single=True)])[0] for token in _TOKENS]
        if not torch.equal(torch.cat([first, *single]), wanted):
            return "plain"
        for lengths in ((1, 2, 5, 3), (11,)):
            cache, _ = model.prefill_alone(_PROMPT)
            tokens, got = list(_TOKENS), []
            for length in lengths:
                got += model.forward([Part(cache, tokens[:length], length, single=True)])
                del tokens[:length]
            if not torch.equal(torch.cat(got), wanted[1:]):
                return "replay"
        # In company, whose tokens make the pass larger.
        cache, _ = model.prefill_alone(_PROMPT)
        parts = [Part(RowCache(), _COMPANY, 0), Part(cache, _TOKENS, len(_TOKENS), single=True)]
        return "bitwise" if torch.equal(model.forward(parts)[1], wanted[1:]) else "replay"
    except Exception as error:  # of a model of unknown make
        logger.info("exact=True means plain decoding, because %r", error)
        return "plain"


_PROMPT = [1, 5, 9, 2, 7, 3, 8, 8, 4]
_TOKENS = [6, 3, 11, 9, 12, 4, 7, 7, 2, 5, 10]
_COMPANY = [3 + i % 9 for i in range(60)]


def _decode_alone(model: PackedModel) -> torch.Tensor:
    """Logits of the trial's tokens, as plain decoding sees them."""
    forced = _Forced([*_TOKENS, 0])
    row = Row(_PROMPT, [], frozenset(), len(_TOKENS) + 1, forced)
    for _ in plain.decode(model.model, [row]):
        pass
    return torch.stack(forced.seen)


class _Forced(Sampler):
    """Writes given tokens first, and keeps the logits that it saw for them.

    Args:
        tokens: The tokens.
        then: Chooses those that follow.
    """

    def __init__(self, tokens: Sequence[int], then: Sampler | None = None) -> None:
        super().__init__()
        self._tokens = list(tokens)
        self._then = then or Sampler()
        self.seen: list[torch.Tensor] = []

    def choose_all(self, logits: torch.Tensor) -> Iterator[tuple[int, float]]:
        """The next given token, or a chosen one."""
        if len(self.seen) == len(self._tokens):
            return self._then.choose_all(logits)
        self.seen.append(logits[0])
        return iter([(self._tokens[len(self.seen) - 1], float("inf"))])
