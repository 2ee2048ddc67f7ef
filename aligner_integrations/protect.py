"""Parts of an answer that a correction is to keep word for word."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from difflib import get_close_matches

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.gates import compile_pattern

Span = tuple[int, int]
"""``(start, end)`` in characters."""

_TABLE_ROW = re.compile(r"^[ \t]*\|.*\|[ \t\r]*$", re.MULTILINE)

# None of these may look far ahead from many places in vain: answers are anyone's text, and every
# pattern must be done with a hundred thousand characters of it in a moment.

# A fence that nothing closes goes on to the end, as Markdown has it.
_CODE = r"""
    (?<!\S) (?P<fence>`{3,}|~{3,}) (?![`~]) [^`\n]* (?=\n) .*?
    (?: \n[ \t>]* (?P=fence) [`~]* | \Z )
    | (?<!`) (?P<ticks>`{1,3}) (?!`) [^\n]*? [^`\n] (?P=ticks) (?!`)
"""
# Brackets belong to it in pairs, at most two deep; punctuation and emphasis (*, _) do not end it.
_URL = r"""
    (?<![A-Za-z0-9]) (?i:https?|ftp)://
    (?: {char} | {round} | {square} )*
    (?: (?! [.,;:!?*_~] ) {char} | {round} | {square} )
""".format(
    char=r"[^\s<>\"'`|()\[\]{}“”‘’«»„…。，、；：！？（）「」『』【】《》]",
    round=r"\( (?: [^\s<>\"'`|()] | \( [^\s<>\"'`|()]* \) )* \)",
    square=r"\[ (?! \d+ (?:[,;–-]\d+)* \] ) [^\s<>\"'`|()\[\]]* \]",  # [1] is a citation
)
# With a unit that is written to it, as in 12%, 5kg or 8am; a date is one number.
_NUMBER = re.compile(
    r"""
    (?<![\w.]) (?<!\d[,:/]) [-+−]?
    (?: \d{4}-\d\d-\d\d (?:T[\d:.]*\d)? | \d+ (?:[.,:/]\d+)* (?:[eE][-+]?\d+)? )
    (?: % | [^\W\d_]{1,4} )? (?! \w | [.,:/]\d )
    """,
    re.VERBOSE,
)

PATTERNS: dict[str, re.Pattern[str]] = {
    "code": re.compile(_CODE, re.DOTALL | re.VERBOSE),
    "urls": re.compile(_URL, re.VERBOSE),
    "citations": re.compile(r"\[\d+(?:\s*[,;–-]\s*\d+)*\]"),
    "numbers": _NUMBER,
    "tables": _NUMBER,  # looked for in rows of Markdown tables only
}
"""What the names that ``protect=`` knows stand for; any other name is a regular expression."""


def check_protect(protect: Iterable[str]) -> tuple[str, ...]:
    """The names and regular expressions, as a tuple.

    Raises:
        ConfigurationError: It is one str, or holds what is no regular expression, or a name that
            is nearly one of ours.
    """
    if isinstance(protect, str) or not isinstance(protect, Iterable):
        raise ConfigurationError(
            f"protect={protect!r:.80} must be a list, such as [{protect!r:.80}]; names are "
            f"{', '.join(PATTERNS)}, anything else is a regular expression"
        )
    names = tuple(protect)
    for name in names:
        if not isinstance(name, str) or name not in PATTERNS:
            compile_pattern("protect", name)
            if name.isalpha() and (meant := get_close_matches(name, PATTERNS, cutoff=0.8)):
                raise ConfigurationError(
                    f"protect={name!r} would be a regular expression; for the built-in name write "
                    f"{meant[0]!r}, for the word '\\\\b{name}\\\\b'"
                )
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


def join_space(text: str, spans: Iterable[Span]) -> list[Span]:
    """The same with the space before each, for tokenizers that write it as a token of its own.

    A model that is about to write something else departs at that token already.

    Example:
        >>> join_space("See [1]", [(4, 7)])
        [(3, 7)]
    """
    return [(start - (text[start - 1 : start] == " "), end) for start, end in spans]


def find_lost(answer: str, text: str, protect: Sequence[str]) -> tuple[str, ...]:
    """Protected parts of an answer that its correction no longer holds, as often as they are gone.

    Only whole occurrences count: the 1 in 12, in 1.5 or in [1] is not the number 1.
    """
    if not protect or answer == text:
        return ()
    wanted = Counter(answer[start:end] for start, end in find_protected(answer, protect))
    # A number of a table is still there where the table has become prose.
    spans = find_protected(text, ["numbers" if name == "tables" else name for name in protect])
    held = Counter(text[start:end] for start, end in spans)
    missing = {part: times for part, times in wanted.items() if held[part] < times}
    return tuple(
        part
        for part, times in missing.items()
        for _ in range(times - max(held[part], _count(part, text, spans)))
    )


def _count(part: str, text: str, spans: Sequence[Span]) -> int:
    """How often a text holds a part that is not within a larger one."""
    before = r"(?<!\w)" if re.match(r"\w", part) else ""
    after = r"(?!\w)" if re.search(r"\w\Z", part) else ""
    starts = [start for start, _ in spans]
    times = 0
    for found in re.finditer(before + re.escape(part) + after, text):
        index = bisect_right(starts, found.start()) - 1
        start, end = spans[index] if index >= 0 else (0, 0)
        times += end < found.end() or (start, end) == found.span()
    return times
