"""Prompts that were read once, to be continued in many ways: with any vectors, any coefficient."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from aligner_integrations.decoding.kv import RowCache
from aligner_integrations.decoding.offsets import Offset, add_offsets, find_places
from aligner_integrations.decoding.packed import PackedModel, Part, pack
from aligner_integrations.decoding.plain import PlainDecoder
from aligner_integrations.decoding.rows import Prefix, Row
from aligner_integrations.decoding.sampling import Sampler
from aligner_integrations.decoding.speculative import Decoder
from aligner_integrations.decoding.steering import Steering
from aligner_integrations.interpretability.pairs import Case
from aligner_integrations.interpretability.states import choose_end
from aligner_integrations.models.load import LoadedModel
from aligner_integrations.tokenization import EncodedPrompt

_CHUNK_TOKENS = 4096
"""Of prompts that are held at a time; bounds the memory for their KV caches."""

_ROOM = 64
"""Tokens that an output may have beyond one and a half times the answer."""


@dataclass(frozen=True, slots=True)
class Written:
    """What was written in an answer's place.

    Attributes:
        text: The output.
        ids: Its tokens, the end token left out.
        ended: Whether the model ended it, and not the limit.
    """

    text: str
    ids: list[int]
    ended: bool


class Chunk:
    """A few cases whose prompts the model has read.

    Args:
        loaded: The model.
        packed: The same for shared passes; None where it can't take them: then prompts are read
            again each time.
        cases: The cases.
        indices: Their places in the whole list.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        packed: PackedModel | None,
        cases: Sequence[Case],
        indices: Sequence[int],
    ) -> None:
        self.cases = cases
        self.indices = indices
        self._loaded = loaded
        self._packed = packed
        encoder = loaded.encoder
        self.prompts: list[EncodedPrompt] = [encoder.encode(c.question, c.answer) for c in cases]
        self._caches: list[RowCache] = []
        if packed is not None:
            with torch.inference_mode():
                for prompt in self.prompts:
                    cache = RowCache()
                    packed.forward([Part(cache, prompt.ids[:-1], 1)])
                    self._caches.append(cache)

    def score(
        self,
        outputs: Sequence[Sequence[int]],
        steering: Steering | None = None,
        coefficient: float = 0.0,
    ) -> list[torch.Tensor]:
        """Log-probabilities of each case's output tokens.

        Args:
            outputs: Token ids for each case.
            steering: Vectors to add, each on its layer's device.
            coefficient: What they are multiplied by.

        Returns:
            For each case a float32 tensor on the CPU, shape (output tokens,).
        """
        offsets = [self._offset(i, steering, coefficient) for i in range(len(self.prompts))]
        with torch.inference_mode():
            scored = self._score_packed if self._packed is not None else self._score_plainly
            return scored(outputs, offsets)

    def write(self, steering: Steering | None = None, coefficient: float = 0.0) -> list[Written]:
        """Let the model write each case's correction, greedily."""
        encoder, rows = self._loaded.encoder, []
        for index, prompt in enumerate(self.prompts):
            room = self._loaded.context_length - len(prompt.ids)
            row = Row(
                prompt=prompt.ids,
                draft=prompt.answer_ids,
                stop_ids=encoder.stop_ids,
                max_new_tokens=max(1, min(room, len(prompt.answer_ids) * 3 // 2 + _ROOM)),
                sampler=Sampler(),
                offset=self._offset(index, steering, coefficient),
            )
            if self._caches:
                row.prefix = Prefix(self._caches[index].copy(), prompt.ids[:-1])
            rows.append(row)
        decoder: Decoder | PlainDecoder = (
            PlainDecoder(self._loaded.model) if self._packed is None else Decoder(self._packed)
        )
        for row in rows:
            decoder.add(row)
        while not all(row.is_over() for row in rows):
            decoder.step()
        return [
            Written(encoder.decode(row.output), row.output, row.stop_reason == "stop")
            for row in rows
        ]

    def ending(self, written: Written) -> list[int]:
        """What was written, with the end token if the model put one."""
        end = [choose_end(self._loaded.encoder)] if written.ended else []
        return [*written.ids, *end]

    def _offset(self, index: int, steering: Steering | None, coefficient: float) -> Offset | None:
        if steering is None or not coefficient:
            return None
        return Offset(steering, coefficient, start=len(self.prompts[index].ids) - 1)

    def _score_packed(
        self, outputs: Sequence[Sequence[int]], offsets: Sequence[Offset | None]
    ) -> list[torch.Tensor]:
        packed: Any = self._packed
        parts = [
            Part(cache, [prompt.ids[-1], *ids[:-1]], len(ids), False, offset)
            for prompt, cache, ids, offset in zip(
                self.prompts, self._caches, outputs, offsets, strict=True
            )
            if ids
        ]
        lengths = [part.cache.length for part in parts]
        logits = iter(packed.forward(parts) if parts else [])
        for part, length in zip(parts, lengths, strict=True):
            part.cache.length = length
        return [_pick(next(logits), ids) if ids else torch.zeros(0) for ids in outputs]

    def _score_plainly(
        self, outputs: Sequence[Sequence[int]], offsets: Sequence[Offset | None]
    ) -> list[torch.Tensor]:
        model, scored = self._loaded.model, []
        device = model.get_input_embeddings().weight.device
        for prompt, ids, offset in zip(self.prompts, outputs, offsets, strict=True):
            if not ids:
                scored.append(torch.zeros(0))
                continue
            row = [*prompt.ids, *ids[:-1]]
            with add_offsets(model, find_places(offset, position=0, count=len(row))):
                logits = model(input_ids=torch.tensor([row], device=device), use_cache=False).logits
            scored.append(_pick(logits[0, len(prompt.ids) - 1 :], ids))
        return scored


def read_chunks(
    loaded: LoadedModel, cases: Sequence[Case], *, chunk_tokens: int = _CHUNK_TOKENS
) -> Iterator[Chunk]:
    """Read cases' prompts, as many at a time as memory for their KV caches shall hold.

    Args:
        loaded: The model.
        cases: The cases; they come in this order.
        chunk_tokens: Most tokens of prompts and answers that are held; a longer one is alone.
    """
    packed = pack(loaded.model)
    waiting: list[int] = []
    held = 0
    for index, case in enumerate(cases):
        prompt = loaded.encoder.encode(case.question, case.answer)
        size = len(prompt.ids) + len(prompt.answer_ids)
        if waiting and held + size > chunk_tokens:
            yield Chunk(loaded, packed, [cases[i] for i in waiting], waiting)
            waiting, held = [], 0
        waiting.append(index)
        held += size
    if waiting:
        yield Chunk(loaded, packed, [cases[i] for i in waiting], waiting)


def _pick(logits: torch.Tensor, ids: Sequence[int]) -> torch.Tensor:
    """Log-probabilities of these tokens, shape (tokens,)."""
    scores = logits.float().log_softmax(dim=-1)
    return scores.gather(1, torch.tensor(list(ids), device=scores.device)[:, None])[:, 0].cpu()
