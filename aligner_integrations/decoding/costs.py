"""What a forward pass costs by the number of its tokens. Only ratios matter."""

from __future__ import annotations

import bisect
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import torch

from aligner_integrations.decoding.kv import RowCache
from aligner_integrations.decoding.linears import has_packed_linears
from aligner_integrations.decoding.packed import PackedModel, Part


@dataclass(frozen=True, slots=True)
class PassCosts:
    """A cost curve: straight lines between measured points, and beyond the last.

    Attributes:
        tokens: Tokens in a pass, ascending, beginning with 1.
        seconds: Cost of each, in any unit.

    Raises:
        ValueError: These are no such points.
    """

    tokens: Sequence[int]
    seconds: Sequence[float]

    def __post_init__(self) -> None:
        rising = all(a < b for a, b in pairwise(self.tokens))
        if (
            len(self.tokens) < 2
            or len(self.tokens) != len(self.seconds)
            or self.tokens[0] != 1
            or not rising
            or not all(cost > 0 for cost in self.seconds)
        ):
            raise ValueError(f"no cost curve: {self.tokens!r}, {self.seconds!r}")

    def of(self, tokens: int) -> float:
        """Cost of a pass of so many tokens."""
        right = min(max(bisect.bisect_left(self.tokens, tokens), 1), len(self.tokens) - 1)
        x0, x1 = self.tokens[right - 1], self.tokens[right]
        y0, y1 = self.seconds[right - 1], self.seconds[right]
        return y0 + (y1 - y0) * (tokens - x0) / (x1 - x0)

    @property
    def efficient(self) -> int:
        """From how many tokens on a pass costs little more than in proportion to them."""
        least = min(cost / count for count, cost in zip(self.tokens, self.seconds, strict=True))
        pairs = zip(self.tokens, self.seconds, strict=True)
        return next(count for count, cost in pairs if cost / count <= 1.1 * least)


CPU_COSTS = PassCosts((1, 4, 8, 16, 32, 64, 128, 256), (43, 44, 53, 72, 115, 205, 390, 800))
"""A CPU with packed linear layers (135M, fp32, milliseconds)."""

AVX2_CPU_COSTS = PassCosts(
    (1, 2, 4, 8, 16, 32, 64, 128, 256), (64, 70, 90, 95, 128, 191, 321, 600, 1200)
)
"""A CPU with packed linear layers, but without AVX-512."""

STOCK_CPU_COSTS = PassCosts((1, 2, 8, 16, 32, 64, 128, 256), (55, 85, 91, 117, 168, 272, 476, 930))
"""A CPU without: two tokens cost much more than one."""

GPU_COSTS = PassCosts((1, 64, 256, 1024, 4096), (10, 11, 14, 40, 160))
"""A GPU: nearly flat until it has some hundred tokens to work on."""

_CONTEXT = 256  # tokens in the cache while costs are measured


def default_costs(model: PackedModel) -> PassCosts:
    """What passes usually cost on the model's device, by ratio."""
    if model.device.type != "cpu":
        return GPU_COSTS
    if not has_packed_linears(model.model):
        return STOCK_CPU_COSTS
    return AVX2_CPU_COSTS if torch.backends.cpu.get_cpu_capability() == "AVX2" else CPU_COSTS


@torch.inference_mode()
def measure_costs(model: PackedModel, repeats: int = 3) -> PassCosts:
    """Measure a model's passes on this machine; takes about as long as reading 3000 tokens.

    Args:
        model: The model.
        repeats: Passes of each length; the fastest counts, since other work only slows them.
    """
    usual = AVX2_CPU_COSTS.tokens if model.device.type == "cpu" else (*GPU_COSTS.tokens[:-1], 2048)
    config = model.model.config.get_text_config()
    positions = int(getattr(config, "max_position_embeddings", None) or 2048)
    context = min(_CONTEXT, positions // 2)
    lengths = [1, *(length for length in usual[1:] if length <= positions - context)]
    if len(lengths) == 1:
        lengths.append(max(2, positions - context))
    cache = RowCache()
    model.forward([Part(cache, [3 + i % 50 for i in range(context)], 1)])
    fastest = [float("inf")] * len(lengths)
    for repeat in range(repeats + 1):
        for index, length in enumerate(lengths):
            cache.length = context
            started = time.perf_counter()
            (logits,) = model.forward([Part(cache, [3 + i % 50 for i in range(length)], length)])
            float(logits[-1, 0])  # waits for the device
            if repeat:  # the first round warms up
                fastest[index] = min(fastest[index], time.perf_counter() - started)
    rising = [max(fastest[: index + 1]) for index in range(len(fastest))]
    return PassCosts(tuple(lengths), tuple(rising))
