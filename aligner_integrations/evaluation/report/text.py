"""Text that a page, or a picture in it, can hold."""

from __future__ import annotations

import re

_UNPRINTABLE = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff\ufffe\uffff]")


def clean(text: str) -> str:
    r"""Halves of characters joined where both are there; what no page may hold shown as U+FFFD.

    Example:
        >>> clean("a\x00b"), clean("\ud83d\ude00") == "\U0001f600", clean("\udc00")
        ('a�b', True, '�')
    """
    joined = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return _UNPRINTABLE.sub("\N{REPLACEMENT CHARACTER}", joined)


def shorten(text: str, limit: int) -> str:
    """One line of at most so many characters.

    Example:
        >>> shorten("a long name", 6)
        'a lon…'
    """
    line = " ".join(clean(text).split())
    return line if len(line) <= limit else line[: limit - 1] + "…"
