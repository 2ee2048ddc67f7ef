"""Parts of an answer that a correction is to keep word for word."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.gates import compile_pattern

Span = tuple[int, int]
"""``(start, end)`` in characters."""

_TABLE_ROW = re.compile(r"^[ \t]*\|.*\|[ \t]*$", re.MULTILINE)
_NUMBER = re.compile(r"(?<![\w.])[-+]?\d[\d.,:/]*(?:\d|(?<=\d))%?(?!\w)")

PATTERNS: dict[str, re.Pattern[str]] = {
    "code": re.compile(r"(`{3,}|~{3,})[^\n]*\n.*?\n[ \t]*\1|`[^`\n]+`", re.DOTALL),
    "urls": re.compile(r"\b(?:https?|ftp)://[^\s<>\"'`]*[^\s<>\"'`.,;:!?)\]}]"),
    "citations": re.compile(r"\[\d+(?:\s*[,;–-]\s*\d+)*\]"),
    "numbers": _NUMBER,
    "tables": _NUMBER,  # looked for in rows of Markdown tables only
}
"""What the names that ``protect=`` knows stand for; any other name is a regular expression."""


def check_protect(protect: Iterable[str]) -> tuple[str, ...]:
    """The names and regular expressions, as a tuple.

    Raises:
        ConfigurationError: It is one str, or holds what is no regular expression.
    """
    if isinstance(protect, str):
        raise ConfigurationError(
            f"protect={protect!r} must be a list, such as [{protect!r}]; names are "
            f"{', '.join(PATTERNS)}, anything else is a regular expression"
        )
    names = tuple(protect)
    for name in names:
        if name not in PATTERNS:
            compile_pattern("protect", name)
    return names


def find_protected(text: str, protect: Sequence[str]) -> list[Span]:
    """The protected parts of a text, in order, where they overlap joined.

    Example:
        >>> find_protected("See [1] and https://example.org.", ["citations", "urls"])
        [(4, 7), (12, 31)]
    """
    found: list[Span] = []
    for name in protect:
        pattern = PATTERNS.get(name) or re.compile(name)
        rows = _TABLE_ROW.finditer(text) if name == "tables" else [None]
        for row in rows:
            start, end = row.span() if row else (0, len(text))
            found += [m.span() for m in pattern.finditer(text, start, end) if m.end() > m.start()]
    joined: list[Span] = []
    for start, end in sorted(found):
        if joined and start < joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def find_lost(answer: str, text: str, protect: Sequence[str]) -> tuple[str, ...]:
    """Protected parts of an answer that its correction no longer holds, as often as they are gone.

    Only whole occurrences count: a ``1`` within ``12`` is not the number 1.
    """
    if not protect or answer == text:
        return ()
    wanted = Counter(answer[start:end] for start, end in find_protected(answer, protect))
    return tuple(part for part, times in wanted.items() for _ in range(times - _count(part, text)))


def _count(part: str, text: str) -> int:
    before = r"(?<!\w)" if re.match(r"\w", part) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", part) else ""
    return len(re.findall(before + re.escape(part) + after, text))
