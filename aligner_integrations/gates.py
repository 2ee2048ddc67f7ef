"""Which answers are corrected at all: gates, and kinds of answer that pass through as they are."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Collection
from dataclasses import asdict, dataclass, fields
from typing import Any

from aligner_integrations.errors import ConfigurationError

Predicate = Callable[[str, str], bool]
"""``(question, answer)`` to whether the answer is to be corrected."""

_FENCE = re.compile(r"(`{3,}|~{3,})[^`]*")


@dataclass(frozen=True, slots=True)
class CorrectWhen:
    """A cheap gate: an answer is corrected only where every condition that is set holds.

    Args:
        longer_than: The answer has more characters than this.
        matches: This regular expression is found in the answer.
        tags: The request has at least one of these tags. LangChain's are the config's, LlamaIndex's
            those of ``instrument_tags``, the gateway's those of the request's metadata.

    Raises:
        ConfigurationError: A value is out of range or no regular expression.

    Example:
        >>> gate = CorrectWhen(longer_than=20)
        >>> gate.allows("How long?", "8 minutes.", tags=())
        False
    """

    longer_than: int = 0
    matches: str | None = None
    tags: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        length = self.longer_than
        if not isinstance(length, int) or isinstance(length, bool) or length < 0:
            raise ConfigurationError(
                f"correct_when longer_than={length!r} must be a number of characters, 0 or more"
            )
        if self.matches is not None:
            compile_pattern("correct_when matches", self.matches)
        if not isinstance(self.tags, Collection) or isinstance(self.tags, str):
            raise ConfigurationError(
                f"correct_when tags={self.tags!r} must be a list of tags, such as [{self.tags!r}]"
            )
        object.__setattr__(self, "tags", tuple(self.tags))

    def allows(self, question: str, answer: str, tags: Collection[str]) -> bool:
        """Whether an answer is to be corrected."""
        return (
            len(answer) > self.longer_than
            and (self.matches is None or re.search(self.matches, answer) is not None)
            and (not self.tags or not set(self.tags).isdisjoint(tags))
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `read_gate` reads it."""
        return {**asdict(self), "tags": list(self.tags)}


Gate = CorrectWhen | Predicate
"""What decides whether an answer is corrected."""


def read_gate(value: Gate | dict[str, Any] | None) -> Gate | None:
    """A gate as it is, or from a dict of `CorrectWhen`'s fields.

    Raises:
        ConfigurationError: It is neither, or a field is unknown.
    """
    if isinstance(value, dict):
        known = [field.name for field in fields(CorrectWhen)]
        if unknown := sorted(set(value) - set(known)):
            raise ConfigurationError(
                f"correct_when has no condition {unknown[0]!r}; it has {', '.join(known)}"
            )
        return CorrectWhen(**value)
    if value is None or callable(value) or isinstance(value, CorrectWhen):
        return value
    raise ConfigurationError(
        f"correct_when={value!r:.80} must be a function of question and answer, a CorrectWhen, or "
        "a dict of its conditions"
    )


def is_open(gate: Gate | None, question: str, answer: str, tags: Collection[str]) -> bool:
    """Whether a gate lets an answer be corrected."""
    if gate is None:
        return True
    if isinstance(gate, CorrectWhen):
        return gate.allows(question, answer, tags)
    return bool(gate(question, answer))


def is_json(answer: str) -> bool:
    """Whether an answer is a JSON object or array and nothing else."""
    if answer.strip()[:1] not in ("{", "["):
        return False
    try:
        # Numbers stay text: Python refuses to read integers of thousands of digits.
        json.loads(answer, parse_int=str, parse_float=str)
    except (ValueError, RecursionError):
        return False
    return True


def is_code(answer: str) -> bool:
    """Whether an answer is one fenced code block and nothing else."""
    # Line by line: one regular expression for it takes minutes on a long row of backticks.
    first, *lines = (line.strip() for line in answer.strip().split("\n"))
    opening = _FENCE.fullmatch(first)
    if opening is None or not lines:
        return False
    fence, end = opening[1], lines.pop()
    closes = end.startswith(fence) and not end.strip(fence[0])
    return closes and not any(line.startswith(fence) for line in lines)


KINDS: dict[str, Callable[[str], bool]] = {"json": is_json, "code": is_code}
"""Kinds of answer that can pass through uncorrected."""


def compile_pattern(name: str, pattern: str) -> re.Pattern[str]:
    """A regular expression, compiled.

    Raises:
        ConfigurationError: It is none; the message begins with ``name``.
    """
    if not isinstance(pattern, str):
        raise ConfigurationError(
            f"{name}={pattern!r:.80} must be a str with a regular expression, not "
            f"{type(pattern).__name__}"
        )
    try:
        return re.compile(pattern)
    except (re.error, OverflowError, RecursionError) as error:
        raise ConfigurationError(
            f"{name}={pattern!r} is no regular expression: {error}; write a backslash before "
            "characters that stand for themselves"
        ) from None
