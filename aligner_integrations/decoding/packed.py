"""One pass over several rows without padding: their new tokens are laid end to end.

Linear layers see one long sequence; attention is run row by row, each over its own cache. So a
pass costs what its tokens cost, whatever mix of prefill, verification and single tokens they are.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch.nn import functional
from transformers import AttentionInterface

from aligner_integrations.decoding.kv import PackedCache, RowCache, Span, cache_keyword

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)
_NAME = "aligner_packed"


class CannotPackError(Exception):
    """Why a model does not take packed passes; `pack` turns it into plain decoding."""


class PackedModel:
    """A transformers model that takes packed passes.

    Args:
        model: A causal language model in eval mode. Its attention is exchanged during a pass, so
            between passes it is as it was.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model
        self._cache_keyword = cache_keyword(model)
        self.device = model.get_input_embeddings().weight.device

    def forward(
        self, parts: Sequence[tuple[RowCache, Sequence[int]]], wanted: Sequence[int]
    ) -> list[torch.Tensor]:
        """One pass.

        Args:
            parts: For each row its cache and its new tokens.
            wanted: For each row, of how many of its last new tokens the logits are wanted.

        Returns:
            For each row logits of shape (wanted, vocabulary). Each cache is longer by the row's
            new tokens.
        """
        tokens = [token for _, new in parts for token in new]
        positions = [cache.length + i for cache, new in parts for i in range(len(new))]
        ends = torch.tensor([len(new) for _, new in parts]).cumsum(0).tolist()
        keep = [i for end, count in zip(ends, wanted, strict=True) for i in range(end - count, end)]
        cache = PackedCache([Span(row, len(new)) for row, new in parts])
        config = self._model.config
        own, config._attn_implementation = config._attn_implementation, _NAME
        try:
            result = self._model(
                input_ids=torch.tensor([tokens], device=self.device),
                position_ids=torch.tensor([positions], device=self.device),
                use_cache=True,
                logits_to_keep=torch.tensor(keep, dtype=torch.long, device=self.device),
                packed_spans=cache.spans,
                **{self._cache_keyword: cache},
            )
        finally:
            config._attn_implementation = own
        for row, new in parts:
            row.length += len(new)
        return list(result.logits[0].split(list(wanted)))


def pack(model: PreTrainedModel) -> PackedModel | None:
    """The model for packed passes; None, with the reason logged, where it can't take them.

    A short trial against the model's own forward pass decides.
    """
    try:
        if "logits_to_keep" not in inspect.signature(model.forward).parameters:
            raise CannotPackError("its forward pass has no logits_to_keep")
        with torch.inference_mode():
            wanted = _own_logits(model)
            packed = PackedModel(model)
            _compare(wanted, _packed_logits(packed))
    except Exception as error:  # whatever a model of unknown make does wrong, plain decoding works
        logger.warning("%s: plain decoding, because %s", type(model).__name__, error)
        return None
    return packed


_TRIAL = ([1, 5, 9, 2, 7, 3], [4, 8, 6])


def _own_logits(model: PreTrainedModel) -> list[torch.Tensor]:
    device = model.get_input_embeddings().weight.device
    return [
        model(input_ids=torch.tensor([tokens], device=device)).logits[0, -2:] for tokens in _TRIAL
    ]


def _packed_logits(packed: PackedModel) -> list[torch.Tensor]:
    """The same, with a wrong draft that is cut back on the way."""
    rows = [RowCache() for _ in _TRIAL]
    packed.forward(
        [(row, [*tokens[:-2], 11]) for row, tokens in zip(rows, _TRIAL, strict=True)], [1, 1]
    )
    for row in rows:
        row.length -= 1
    return packed.forward(
        [(row, tokens[-2:]) for row, tokens in zip(rows, _TRIAL, strict=True)], [2, 2]
    )


def _compare(wanted: list[torch.Tensor], got: list[torch.Tensor]) -> None:
    tolerance = 1e-3 if wanted[0].dtype == torch.float32 else 0.1
    for one, other in zip(wanted, got, strict=True):
        scale = float(one.float().std()) + 1e-6
        difference = float((one.float() - other.float()).abs().max())
        if not difference <= tolerance * scale:
            raise CannotPackError(
                f"packed logits differ from its own by {difference / scale:.1e} deviations"
            )


def _attend(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    packed_spans: list[Span],
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, None]:
    """Attention of each row's queries, shape (1, heads, new, size), over the row's own cache."""
    if kwargs.get("s_aux") is not None:
        raise CannotPackError("its attention has sinks")
    layer = int(module.layer_idx)  # type: ignore[arg-type]
    outputs, at = [], 0
    for span in packed_spans:
        end = span.cache.length + span.new
        first = 0 if sliding_window is None else max(0, span.cache.length + 1 - sliding_window)
        keys = span.cache.keys[layer][:, :, first:end]
        values = span.cache.values[layer][:, :, first:end]
        queries = query[:, :, at : at + span.new]
        mask = _mask(span.new, end - first, sliding_window, query.device)
        outputs.append(_attend_row(queries, keys, values, mask, scaling, softcap))
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


AttentionInterface.register(_NAME, _attend)
