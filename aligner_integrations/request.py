"""One correction under way: what was asked, and how its end becomes a `Correction`."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass, field
from typing import Any

from aligner_integrations.correction import Correction, CorrectionStats
from aligner_integrations.engines.base import Engine, Finished, ReadAhead
from aligner_integrations.errors import (
    AlignerError,
    ConfigurationError,
    ContextOverflowError,
    CorrectionError,
    InputTypeError,
)
from aligner_integrations.options import GenerationOptions, Policy, check_policy

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Request:
    """What a caller wants of an engine, and what it shall get if that fails.

    Raises:
        InputTypeError: The question is not a str.
        ConfigurationError: ``on_error`` is no policy.
    """

    engine: Engine
    question: str
    answer: Any
    options: GenerationOptions
    on_error: Policy
    refusal_text: str
    read_ahead: ReadAhead | None = None
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        check_policy("on_error", self.on_error)
        if not isinstance(self.question, str):
            raise InputTypeError(
                f"question must be a str, not {type(self.question).__name__}: {self.question!r:.80}"
            )

    def finish(self, finished: Finished) -> Correction:
        """The correction that the model wrote."""
        return Correction(
            finished.text, self.question, self.answer, finished.stats, self.engine.name
        )

    def finish_blank(self) -> Correction:
        """A blank answer holds nothing to correct."""
        return Correction(
            self.answer, self.question, self.answer, self._stats("blank"), self.engine.name
        )

    def resolve(self, error: BaseException) -> Correction:
        """What the policies put in place of a correction that failed.

        Raises:
            BaseException: ``error`` itself, where the policy is ``"raise"`` or none applies.
        """
        overflow = isinstance(error, ContextOverflowError)
        policy = self.options.on_overflow if overflow else self.on_error
        if (
            policy == "raise"
            or not isinstance(error, AlignerError)
            or isinstance(error, ConfigurationError)
        ):
            raise error
        reason = f"{type(error).__name__}: {error}"
        logger.warning("not corrected, the caller gets %r: %s", policy, reason)
        return Correction(
            self.answer if policy == "original" else self.refusal_text,
            self.question,
            self.answer,
            self._stats("policy"),
            self.engine.name,
            policy,
            reason,
        )

    def check_answer(self) -> None:
        """Raise `InputTypeError` unless the answer is a str by now."""
        if not isinstance(self.answer, str):
            raise InputTypeError(
                f"answer must be a str, not {type(self.answer).__name__}: {self.answer!r:.80}"
            )

    def check_piece(self, piece: Any) -> str:
        """A piece of the answer, as an iterator gave it.

        Raises:
            InputTypeError: It is not a str.
        """
        if not isinstance(piece, str):
            raise InputTypeError(
                f"the answer's pieces must be str, not {type(piece).__name__}: {piece!r:.80}"
            )
        return piece

    def _stats(self, stop_reason: str) -> CorrectionStats:
        return CorrectionStats(seconds=time.perf_counter() - self.started, stop_reason=stop_reason)


def unfinished() -> CorrectionError:
    """The error for asking a stream for its correction before it has ended."""
    return CorrectionError(
        "this stream has not ended yet; iterate to its end before you read .correction"
    )
