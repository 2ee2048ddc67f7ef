"""Plain decoding with a KV cache: one token a row and pass, rows left-padded into one batch."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache

from aligner_integrations.decoding.kv import cache_keyword
from aligner_integrations.decoding.offsets import Place, add_offsets, find_places
from aligner_integrations.decoding.rows import Moved, Prefix, Row
from aligner_integrations.decoding.sampling import near_tie

if TYPE_CHECKING:
    from transformers import PreTrainedModel


def decode(model: PreTrainedModel, rows: Sequence[Row]) -> Iterator[Moved]:
    """Run rows to their ends, together.

    Args:
        model: A causal language model in eval mode.
        rows: The requests; each gets its ``output`` and ``stop_reason``. One that already has
            output goes on behind it.

    Yields:
        After every pass, the rows that moved on with their new output ids. A row whose
        ``stop_reason`` is set does not come again.
    """
    tie = near_tie(model.dtype)
    batch = _Batch(model, [row for row in rows if not row.is_over()])
    while batch.rows:
        moved: Moved = []
        with torch.inference_mode():  # not around the yield: the mode is the thread's
            for row, scores in zip(batch.rows, batch.forward(), strict=True):
                token, margin = row.decide(*next(row.sampler.choose_all(scores[None])))
                moved.append((row, row.append(token, margin, tie)))
        yield moved
        batch.keep([index for index, row in enumerate(batch.rows) if not row.is_over()])


class PlainDecoder:
    """Plain decoding in steps, as `aligner_integrations.decoding.speculative.Decoder`.

    Rows that are added while others run wait for those to end. Exact ones, whose bits padding and
    company could change, run one by one.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._waiting: list[Row] = []
        self._steps: Iterator[Moved] = iter(())

    def add(self, row: Row) -> None:
        """Let a row join."""
        row.prefix = None
        self._waiting.append(row)

    def step(self, reading: Sequence[Prefix] = ()) -> Moved:
        """One pass; prompts are not read ahead."""
        moved = next(self._steps, None)
        if moved is None and self._waiting:
            together = [row for row in self._waiting if not row.exact] or self._waiting[:1]
            self._waiting = [row for row in self._waiting if row not in together]
            self._steps = decode(self._model, together)
            moved = next(self._steps, None)
        return moved or []


class _Batch:
    """Rows that share a KV cache, padded on the left to one length."""

    def __init__(self, model: PreTrainedModel, rows: list[Row]) -> None:
        self.rows = rows
        self._model = model
        self._device = model.get_input_embeddings().weight.device
        self._cache = DynamicCache(config=model.config)
        keep = "logits_to_keep" in inspect.signature(model.forward).parameters
        self._options: dict[str, Any] = {"logits_to_keep": 1} if keep else {}
        self._options[cache_keyword(model)] = self._cache
        written = [[*row.prompt, *row.output] for row in rows]  # rows may go on where they were
        width = max(map(len, written), default=0)
        self._mask = torch.zeros(len(rows), width, dtype=torch.long)
        self._input = torch.zeros(len(rows), width, dtype=torch.long)
        for index, ids in enumerate(written):
            self._mask[index, width - len(ids) :] = 1
            self._input[index, width - len(ids) :] = torch.tensor(ids)
        self._positions = (self._mask.cumsum(1) - 1).clamp(min=0)

    def forward(self) -> torch.Tensor:
        """One pass; logits of each row's next token, shape (rows, vocabulary)."""
        if self._cache.get_seq_length():
            self._input = torch.tensor([[row.output[-1]] for row in self.rows])
            self._positions = self._positions[:, -1:] + 1
            self._mask = torch.cat([self._mask, torch.ones(len(self.rows), 1, dtype=torch.long)], 1)
        # Without padding no mask is needed, and attention takes its faster path.
        mask = None if bool(self._mask.all()) else self._mask.to(self._device)
        with add_offsets(self._model, self._find_places()):
            result = self._model(
                input_ids=self._input.to(self._device),
                attention_mask=mask,
                position_ids=self._positions.to(self._device),
                use_cache=True,
                **self._options,
            )
        for row in self.rows:
            row.forward_passes += 1
        logits: torch.Tensor = result.logits[:, -1]
        return logits

    def _find_places(self) -> list[Place]:
        """Where rows get offsets; each row's tokens stand at the end of the pass."""
        places: list[Place] = []
        width = self._input.shape[1]
        for index, row in enumerate(self.rows):
            last = int(self._positions[index, -1])
            count = min(width, last + 1)
            places += find_places(
                row.offset,
                position=last + 1 - count,
                count=count,
                row=index,
                column=width - count,
            )
        return places

    def keep(self, kept: list[int]) -> None:
        """Drop all rows but these, and their part of the cache."""
        if len(kept) == len(self.rows):
            return
        self.rows = [self.rows[index] for index in kept]
        if kept:
            chosen = torch.tensor(kept)
            self._cache.batch_select_indices(chosen.to(self._device))
            self._mask, self._positions = self._mask[chosen], self._positions[chosen]
