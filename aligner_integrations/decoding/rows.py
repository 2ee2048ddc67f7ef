"""One request as the decoder sees it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from aligner_integrations.decoding.sampling import Sampler

StopReason = Literal["stop", "length", "cancelled"]


@dataclass(slots=True, eq=False)
class Row:
    """Token ids of one request, on their way through the model.

    Attributes:
        prompt: Ids of the prompt.
        draft: Ids of the answer in output context: what a correction that changes nothing holds.
        stop_ids: Ids that end the correction; they do not become part of the output.
        max_new_tokens: Most output tokens.
        sampler: Chooses each token.
        is_cancelled: Asked before every step; True drops the row.
        output: Ids written so far.
        forward_passes: Model calls that the row took part in.
        stop_reason: None while the row is running.
    """

    prompt: list[int]
    draft: list[int]
    stop_ids: frozenset[int]
    max_new_tokens: int
    sampler: Sampler
    is_cancelled: Callable[[], bool] = lambda: False
    output: list[int] = field(default_factory=list)
    forward_passes: int = 0
    stop_reason: StopReason | None = None

    def append(self, token: int) -> list[int]:
        """Take the next token; returns what became output (nothing for a stop token)."""
        if token in self.stop_ids:
            self.stop_reason = "stop"
            return []
        self.output.append(token)
        if len(self.output) >= self.max_new_tokens:
            self.stop_reason = "length"
        return [token]
