"""What a forward pass costs by the number of its tokens. Only ratios matter."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class PassCosts:
    """A cost curve: straight lines between measured points, and beyond the last.

    Attributes:
        tokens: Tokens in a pass, ascending, beginning with 1.
        seconds: Cost of each, in any unit.
    """

    tokens: Sequence[int]
    seconds: Sequence[float]

    def of(self, tokens: int) -> float:
        """Cost of a pass of so many tokens."""
        right = min(max(bisect.bisect_left(self.tokens, tokens), 1), len(self.tokens) - 1)
        x0, x1 = self.tokens[right - 1], self.tokens[right]
        y0, y1 = self.seconds[right - 1], self.seconds[right]
        return y0 + (y1 - y0) * (tokens - x0) / (x1 - x0)


CPU_COSTS = PassCosts((1, 2, 4, 8, 16, 32, 64, 128, 256), (43, 67, 67, 77, 104, 161, 265, 486, 989))
"""A CPU: memory-bound for a few tokens, then in proportion to them (135M, fp32, milliseconds)."""

GPU_COSTS = PassCosts((1, 64, 256, 1024, 4096), (10, 11, 14, 40, 160))
"""A GPU: nearly flat until it has some hundred tokens to work on."""
