"""One correction under way: what was asked, and how its end becomes a `Correction`."""

from __future__ import annotations

import logging
import time
from collections.abc import Collection
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
    LatencyError,
)
from aligner_integrations.gates import KINDS, Gate, is_open
from aligner_integrations.options import GenerationOptions, Policy, check_policy
from aligner_integrations.protect import find_lost

logger = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Request:
    """What a caller wants of an engine, and what it shall get if that fails.

    Raises:
        InputTypeError: The question is not a str.
        ConfigurationError: ``on_error`` is no policy, or the tags are one str.
    """

    engine: Engine
    question: str
    answer: Any
    options: GenerationOptions
    on_error: Policy
    refusal_text: str
    gate: Gate | None = None
    tags: Collection[str] = ()
    read_ahead: ReadAhead | None = None
    started: float = field(default_factory=time.perf_counter)

    def __post_init__(self) -> None:
        check_policy("on_error", self.on_error)
        if not isinstance(self.question, str):
            raise InputTypeError(
                f"question must be a str, not {type(self.question).__name__}: {self.question!r:.80}"
            )
        if isinstance(self.tags, str):  # its letters would be taken for tags
            raise ConfigurationError(
                f"tags={self.tags!r} must be a list of tags, such as [{self.tags!r}]"
            )

    def find_skip(self) -> str | None:
        """Why the answer, whole by now, is handed on as it is; None where it is corrected."""
        answer = self.answer
        if not answer.strip():
            return "blank"
        for kind in self.options.pass_through:
            if KINDS[kind](answer):
                return kind
        return None if is_open(self.gate, self.question, answer, self.tags) else "correct_when"

    def finish(self, finished: Finished) -> Correction:
        """The correction that the model wrote."""
        lost = find_lost(self.answer, finished.text, self.options.protect)
        if lost:
            logger.warning("a correction lost %d protected parts of its answer", len(lost))
        strength = self.options.strength
        return self._make(finished.text, finished.stats, lost=lost, strength=strength)

    def skip(self, reason: Any) -> Correction:
        """The answer as it is, with the reason that `find_skip` gave."""
        return self._make(self.answer, self._stats("skipped"), skipped=reason)

    def late(self) -> LatencyError:
        """The error for a correction that took too long."""
        return LatencyError(
            f"the correction took longer than max_latency={self.options.max_latency} s; allow it "
            "more time, or set on_error='original' or 'refuse'"
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
        kind = type(error).__name__
        # Without the message, which may quote; `Correction.error` has it.
        logger.warning("not corrected, the caller gets %r: %s", policy, kind)
        text = self.answer if policy == "original" else self.refusal_text
        return self._make(text, self._stats("policy"), policy=policy, error=f"{kind}: {error}")

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

    def _make(self, text: str, stats: CorrectionStats, **more: Any) -> Correction:
        return Correction(text, self.question, self.answer, stats, self.engine.name, **more)

    def _stats(self, stop_reason: str) -> CorrectionStats:
        return CorrectionStats(seconds=time.perf_counter() - self.started, stop_reason=stop_reason)


def unfinished() -> CorrectionError:
    """The error for asking a stream for its correction before it has ended."""
    return CorrectionError(
        "this stream has not ended yet; iterate to its end before you read .correction"
    )
