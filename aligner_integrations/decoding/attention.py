"""Attention of a packed pass: row by row, each over its own cache."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from aligner_integrations.decoding.kv import Span

NAME = "aligner_packed"
"""What transformers knows this attention by."""


class CannotPackError(Exception):
    """Why a model does not take packed passes; `pack` turns it into plain decoding."""


def attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed_spans: list[Span],
    packed_own: Callable[..., tuple[torch.Tensor, Any]] | None = None,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of each row's queries, shape (1, heads, new, size), over the row's own cache.

    Rows whose span is ``single`` are attended token by token with ``packed_own``, the model's own
    attention, so each token gets the very bits that a pass of its own would give it.
    """
    if kwargs.get("s_aux") is not None:
        raise CannotPackError("its attention has sinks")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    outputs, at = [], 0
    for span in packed_spans:
        keys, values = span.cache.keys[layer], span.cache.values[layer]
        if span.single and packed_own is not None:
            for index in range(span.new):
                end = span.cache.length + index + 1
                first = 0 if sliding_window is None else max(0, end - sliding_window)
                output, _ = packed_own(
                    module,
                    query[:, :, at + index : at + index + 1],
                    keys[:, :, first:end],
                    values[:, :, first:end],
                    None,
                    scaling=scaling,
                    **({} if softcap is None else {"softcap": softcap}),
                )
                outputs.append(output.transpose(1, 2))
        else:
            end = span.cache.length + span.new
            first = 0 if sliding_window is None else max(0, span.cache.length + 1 - sliding_window)
            mask = _mask(span.new, end - first, sliding_window, query.device)
            outputs.append(
                _attend_row(
                    query[:, :, at : at + span.new],
                    keys[:, :, first:end],
                    values[:, :, first:end],
                    mask,
                    scaling,
                    softcap,
                )
            )
        at += span.new
    return torch.cat(outputs, dim=2).transpose(1, 2).contiguous(), None


def _mask(
    new: int, seen: int, sliding_window: int | None, device: torch.device
) -> torch.Tensor | None:
    """Which keys each new token may see; None for a single token, which may see all."""
    if new == 1:
        return None
    mask = torch.ones(new, seen, dtype=torch.bool, device=device).tril(seen - new)
    return mask if sliding_window is None else mask.triu(seen - new - sliding_window + 1)


def _attend_row(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    scaling: float | None,
    softcap: float | None,
) -> torch.Tensor:
    heads, size = query.shape[1], query.shape[3]
    if softcap is not None:
        groups = heads // key.shape[1]
        key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
        scores = query @ key.transpose(2, 3) * (size**-0.5 if scaling is None else scaling)
        scores = torch.tanh(scores / softcap) * softcap
        if mask is not None:
            scores = scores.masked_fill(~mask, torch.finfo(scores.dtype).min)
        return torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype) @ value
    if mask is None:  # the heads of a group become queries of their shared key head
        query = query.reshape(1, key.shape[1], -1, size)
        output = functional.scaled_dot_product_attention(query, key, value, scale=scaling)
        return output.reshape(1, heads, 1, -1)
    return functional.scaled_dot_product_attention(
        query, key, value, attn_mask=mask, scale=scaling, enable_gqa=True
    )


AttentionInterface.register(NAME, attend)
