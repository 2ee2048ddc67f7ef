"""The library's own errors.

Every message names the value that was wrong, the reason and the remedy.
"""

from __future__ import annotations


class AlignerError(Exception):
    """Base of every error that this library raises on purpose."""


class MissingExtraError(AlignerError, ImportError):
    """An optional dependency is not installed."""

    def __init__(self, package: str, extra: str) -> None:
        super().__init__(
            f"{package!r} is not installed; run: pip install 'aligner-integrations[{extra}]'"
        )
        self._arguments = (package, extra)

    def __reduce__(self) -> tuple[type[MissingExtraError], tuple[str, str]]:
        return type(self), self._arguments


class ConfigurationError(AlignerError, ValueError):
    """An option has a value that cannot work."""


class SteeringError(ConfigurationError):
    """The files that steer a model are missing or broken, or do not fit it."""


class InputTypeError(AlignerError, TypeError):
    """A caller handed in something that holds no answer."""


class InvalidTextError(AlignerError, ValueError):
    """A question or an answer is not valid Unicode text."""


class PromptFormatError(AlignerError, ValueError):
    """A prompt format is unknown, malformed or missing."""


class DataError(AlignerError, ValueError):
    """Training data is broken; the message begins with its place, ``file:line``."""


class ModelNotFoundError(AlignerError, FileNotFoundError):
    """Model files are not where they were looked for."""


class ModelIntegrityError(AlignerError):
    """Model files are there, but are not the files they should be."""


class ContextOverflowError(AlignerError, ValueError):
    """Question, answer and room for the correction do not fit the model's context."""


class QueueFullError(AlignerError, RuntimeError):
    """More answers wait for the model than its queue may hold."""


class CorrectionError(AlignerError, RuntimeError):
    """The model failed while it wrote a correction."""


class TruncatedCorrectionError(CorrectionError):
    """The correction reached its token limit before it ended; it was not handed out."""


class LatencyError(CorrectionError):
    """The correction took longer than ``max_latency``, or a server's ``timeout``, allows."""


class ServerError(CorrectionError):
    """No server with the aligner could be reached, or none of them answered as it should."""


class TrainingError(AlignerError, RuntimeError):
    """Training stopped before its end; its last checkpoint stays."""


class QuestionNotFoundError(AlignerError, LookupError):
    """The question that belongs to an answer is unknown, or more than one fits."""
