"""KV caches, one a row, each with a length of its own that can be cut back at will."""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch
from transformers import Cache

if TYPE_CHECKING:
    from transformers import PreTrainedModel

_STEP = 256  # positions by which a row's buffers grow


@dataclass(slots=True, eq=False)
class RowCache:
    """Keys and values of one row.

    Attributes:
        length: Positions that are valid. Lowering it forgets what comes behind: rejected drafts
            are simply written over.
        keys: A tensor per layer, shape (1, key/value heads, capacity, head size).
        values: Likewise.
    """

    length: int = 0
    keys: dict[int, torch.Tensor] = field(default_factory=dict)
    values: dict[int, torch.Tensor] = field(default_factory=dict)

    def write(self, layer: int, keys: torch.Tensor, values: torch.Tensor) -> None:
        """Put new positions, shape (heads, new, size), behind the valid ones."""
        end = self.length + keys.shape[1]
        if layer not in self.keys or self.keys[layer].shape[2] < end:
            self.keys[layer] = _grow(self.keys.get(layer), keys, self.length, end)
            self.values[layer] = _grow(self.values.get(layer), values, self.length, end)
        self.keys[layer][0, :, self.length : end] = keys
        self.values[layer][0, :, self.length : end] = values

    def take(self, layer: int, keys: torch.Tensor, values: torch.Tensor, end: int) -> None:
        """Take over a layer's positions, shape (1, heads, positions, size), that stop at ``end``.

        A sliding window holds its last positions only; those before it are never looked at.
        """
        start = end - keys.shape[2]
        self.keys[layer] = _grow(None, keys[0], 0, end)
        self.values[layer] = _grow(None, values[0], 0, end)
        self.keys[layer][:, :, start:end] = keys
        self.values[layer][:, :, start:end] = values

    def copy(self) -> RowCache:
        """The same positions in a cache of its own."""
        other = RowCache(self.length)
        for layer, keys in self.keys.items():
            held = self.values[layer][:, :, : self.length]
            other.take(layer, keys[:, :, : self.length], held, self.length)
        return other


@dataclass(frozen=True, slots=True)
class Span:
    """New tokens of one row within a packed pass.

    Attributes:
        cache: The row's cache; the new positions come behind its valid ones.
        new: How many tokens.
        single: Attend to each by itself.
    """

    cache: RowCache
    new: int
    single: bool = False


class PackedCache(Cache):  # type: ignore[misc, unused-ignore]
    """What a transformers model sees as its cache in a pass over several rows, laid end to end."""

    def __init__(self, spans: list[Span]) -> None:
        super().__init__(layers=[])
        self.spans = spans

    def update(
        self,
        key_states: torch.Tensor,
        value_states: torch.Tensor,
        layer_idx: int,
        *args: Any,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Write each row's part into its own cache; attention reads it from there."""
        at = 0
        for span in self.spans:
            part = slice(at, at + span.new)
            span.cache.write(layer_idx, key_states[0, :, part], value_states[0, :, part])
            at += span.new
        return key_states, value_states

    def get_seq_length(self, layer_idx: int = 0) -> int:
        """Positions are always given explicitly, so the model has no use for a length."""
        return 0


def cache_keyword(model: PreTrainedModel) -> str:
    """What a model's forward pass calls its cache; newer transformers have another name for it."""
    return "cache" if "cache" in inspect.signature(model.forward).parameters else "past_key_values"


def _grow(old: torch.Tensor | None, like: torch.Tensor, valid: int, end: int) -> torch.Tensor:
    capacity = -(-end // _STEP) * _STEP
    new = like.new_empty(1, like.shape[0], capacity, like.shape[2])
    if old is not None:
        new[:, :, :valid] = old[:, :, :valid]
    return new
