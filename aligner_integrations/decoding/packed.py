"""One pass over several rows without padding: their new tokens are laid end to end.

Linear layers see one long sequence; attention is run row by row, each over its own cache. So a
pass costs what its tokens cost, whatever mix of prefill, verification and single tokens they are.
"""

from __future__ import annotations

import inspect
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import DynamicCache
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from aligner_integrations.decoding import attention
from aligner_integrations.decoding.attention import CannotPackError
from aligner_integrations.decoding.kv import PackedCache, RowCache, Span, cache_keyword
from aligner_integrations.decoding.offsets import Offset, Place, add_offsets, find_places

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Part:
    """One row's share of a pass.

    Attributes:
        cache: The row's cache; the pass puts the new tokens behind its valid ones.
        tokens: The new tokens.
        wanted: Of how many of the last new tokens the logits are wanted.
        single: Give each token the bits that a pass of its own would give it, where the linear
            layers do so too; see `aligner_integrations.decoding.exact`.
        offset: What is added to its hidden states.
    """

    cache: RowCache
    tokens: Sequence[int]
    wanted: int
    single: bool = False
    offset: Offset | None = None


class PackedModel:
    """A transformers model that takes packed passes.

    Args:
        model: A causal language model in eval mode. Its attention is exchanged during a pass, so
            between passes it is as it was.
    """

    def __init__(self, model: PreTrainedModel) -> None:
        self.model = model
        self.device = model.get_input_embeddings().weight.device
        self.dtype = model.dtype
        self._cache_keyword = cache_keyword(model)
        name = model.config._attn_implementation
        self._own = ALL_ATTENTION_FUNCTIONS.get(name, None)

    def forward(self, parts: Sequence[Part]) -> list[torch.Tensor]:
        """One pass over several rows.

        Returns:
            For each part logits of shape (wanted, vocabulary). Each cache is longer by the part's
            tokens.
        """
        tokens = [token for part in parts for token in part.tokens]
        positions = [p.cache.length + i for p in parts for i in range(len(p.tokens))]
        keep: list[int] = []
        places: list[Place] = []
        end = 0
        for part in parts:
            count = len(part.tokens)
            places += find_places(part.offset, position=part.cache.length, count=count, column=end)
            end += count
            keep += range(end - part.wanted, end)
        cache = PackedCache([Span(p.cache, len(p.tokens), p.single) for p in parts])
        config = self.model.config
        own, config._attn_implementation = config._attn_implementation, attention.NAME
        try:
            with add_offsets(self.model, places):
                result = self.model(
                    input_ids=torch.tensor([tokens], device=self.device),
                    position_ids=torch.tensor([positions], device=self.device),
                    use_cache=True,
                    logits_to_keep=torch.tensor(keep, dtype=torch.long, device=self.device),
                    packed_spans=cache.spans,
                    packed_own=self._own,
                    **{self._cache_keyword: cache},
                )
        finally:
            config._attn_implementation = own
        for part in parts:
            part.cache.length += len(part.tokens)
        return list(result.logits[0].split([part.wanted for part in parts]))

    def prefill_alone(
        self, tokens: Sequence[int], offset: Offset | None = None
    ) -> tuple[RowCache, torch.Tensor]:
        """The model's own pass over one prompt, as plain decoding begins.

        Returns:
            A cache that holds the prompt, and the logits behind it, shape (1, vocabulary).
        """
        cache = DynamicCache(config=self.model.config)
        with add_offsets(self.model, find_places(offset, position=0, count=len(tokens))):
            result = self.model(
                input_ids=torch.tensor([list(tokens)], device=self.device),
                position_ids=torch.arange(len(tokens), device=self.device)[None],
                use_cache=True,
                logits_to_keep=1,
                **{self._cache_keyword: cache},
            )
        row = RowCache()
        for index, layer in enumerate(cache.layers):
            row.take(index, layer.keys, layer.values, len(tokens))
        row.length = len(tokens)
        return row, result.logits[0]


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
    rows = [(RowCache(), tokens) for tokens in _TRIAL]
    packed.forward([Part(row, [*tokens[:-2], 11], 1) for row, tokens in rows])
    for row, _ in rows:
        row.length -= 1
    return packed.forward([Part(row, tokens[-2:], 2) for row, tokens in rows])


def _compare(wanted: list[torch.Tensor], got: list[torch.Tensor]) -> None:
    tolerance = 1e-3 if wanted[0].dtype == torch.float32 else 0.1
    for one, other in zip(wanted, got, strict=True):
        scale = float(one.float().std()) + 1e-6
        difference = float((one.float() - other.float()).abs().max())
        if not difference <= tolerance * scale:
            raise CannotPackError(
                f"packed logits differ from its own by {difference / scale:.1e} deviations"
            )
