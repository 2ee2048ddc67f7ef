"""What the LlamaIndex adapters share: which aligner corrects, and what happens where it can't."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

from aligner_integrations.aligner import Aligner, Options
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.options import GenerationOptions, Policy, check_policy
from aligner_integrations.sharing import load_shared

RECORD_KEY = "aligner"
"""Where `Correction.record` stands in the metadata of nodes and responses."""


@dataclass(frozen=True, slots=True)
class CorrectionStep:
    """An adapter's arguments, checked when the adapter is made rather than at its first answer.

    Args:
        aligner: The aligner; by default one is loaded when it is first needed.
        model: What to load, as in `Aligner.from_pretrained`; None for the bundled model.
        source: All arguments of `Aligner.from_pretrained`, in place of ``model``.
        on_error: As in `Aligner.correct`.
        on_overflow: As in `Aligner.correct`.
        options: As in `Aligner.correct`.

    Raises:
        ConfigurationError: A value cannot work, or two of them contradict each other.
    """

    aligner: Aligner | None = None
    model: str | None = None
    source: dict[str, Any] | None = None
    on_error: Policy = "raise"
    on_overflow: Policy | None = None
    options: Options = None

    def __post_init__(self) -> None:
        if isinstance(self.aligner, str):
            raise ConfigurationError(
                f"aligner={self.aligner!r} is a name; pass it as model={self.aligner!r}, "
                "or a loaded Aligner as aligner="
            )
        if self.aligner is not None and self.model is not None:
            raise ConfigurationError(
                f"aligner={self.aligner!r} and model={self.model!r} are two aligners; "
                "pass one of them"
            )
        check_policy("on_error", self.on_error)
        if self.on_overflow is not None:
            check_policy("on_overflow", self.on_overflow)
        if self.options is not None:
            GenerationOptions.coerce(self.options)

    @property
    def arguments(self) -> dict[str, Any]:
        """How the aligner's methods are to be called."""
        return {
            "options": self.options,
            "on_error": self.on_error,
            "on_overflow": self.on_overflow,
        }

    def load(self) -> Aligner:
        """The aligner; every adapter of a process shares one copy of a model."""
        if self.aligner is not None:
            return self.aligner
        return load_shared(self.source or ({"model": self.model} if self.model else None))

    async def aload(self) -> Aligner:
        """`load`, without blocking the event loop."""
        if self.aligner is not None:
            return self.aligner
        return await asyncio.to_thread(self.load)
