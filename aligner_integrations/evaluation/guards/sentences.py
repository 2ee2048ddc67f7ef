"""Answers as sentences, so that a report can say which of them an edit left alone."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator

from aligner_integrations.protect import find_protected

_WHOLE = ("code", "urls", "numbers")
"""What no sentence ends within."""

_END = re.compile(
    r"""
    (?<=[.!?…]) ["'”’»)\]*_]{0,3} (?= [ \t]+ \S )
    | (?<=[。！？]) [”’」』）]{0,2} (?= \S )
    """,
    re.VERBOSE,
)
# What a full stop ends without ending a sentence: titles, initials, "e.g."; and a list's numbers.
_SHORT = re.compile(
    r"""
    (?: ^ | [\s("'“*_] )
    (?: [A-Z] | (?:[A-Za-z]\.)+[A-Za-z] | [Ee]tc | vs | cf | ca | approx | Mrs? | Ms | Dr | Prof
      | St | Nr | Fig | Eq | Sec | Inc | Ltd | Co | Jr | Sr | Gen | Col | [Dd]ept | [Ee]st | pp?
      | al
    ) \. $
    """,
    re.VERBOSE,
)
_ITEM = re.compile(r"\s*(?:[-*+•>]\s+)*[(*_]*(?:\d{1,3}|[A-Za-z]|[ivxIVX]{1,4})[.)]+[*_]*")
_NUMBERED = re.compile(r"(?<!\w)(?:No|no|Nos|p|pp)\.\Z")
_SPACE = re.compile(r"\s*")
_LOOK_BACK = 24
"""Characters before a full stop that are looked at; longer abbreviations there are none."""


def split_sentences(text: str) -> list[str]:
    r"""The sentences of an answer, in order, without the space around them.

    Every line ends a sentence; a fenced code block is one, however long. Nothing is split within
    code, links and numbers, nor after abbreviations, initials and the numbers of lists.

    Example:
        >>> split_sentences("Dr. Lee pays 3.50. Really?\n1. Boil it. Cool it.")
        ['Dr. Lee pays 3.50.', 'Really?', '1. Boil it.', 'Cool it.']
    """
    whole = find_protected(text, _WHOLE)
    starts = [start for start, _ in whole]
    parts = []
    begin = 0
    for place in (*_find_ends(text), len(text)):
        index = bisect_right(starts, place - 1) - 1  # of the last part that begins before it
        inside = index >= 0 and place < whole[index][1]
        if place == len(text) or not (inside or _is_short(text, begin, place)):
            parts.append(text[begin:place].strip())
            begin = place
    return [part for part in parts if part]


def _find_ends(text: str) -> Iterator[int]:
    """Where a sentence may end: before each line break, and after closing punctuation."""
    places = {match.start() for match in re.finditer(r"\n", text)}
    places.update(match.end() for match in _END.finditer(text))
    yield from sorted(places - {len(text)})


def _is_short(text: str, begin: int, place: int) -> bool:
    """Whether the full stop before a place is an abbreviation's, or what follows is lower case."""
    if text[place] == "\n":
        return False
    space = _SPACE.match(text, place)
    following = text[space.end() if space else place]
    if following.islower() and text[place - 1] in ".…":
        return True
    tail = text[max(begin, place - _LOOK_BACK) : place]
    if following.isdigit() and _NUMBERED.search(tail):
        return True
    line = tail[tail.rfind("\n") + 1 :]
    return bool(_ITEM.fullmatch(line) or _SHORT.search(tail))


def share_sentences(*texts: str) -> Counter[str]:
    """The sentences that all of these texts hold, each as often as every one of them holds it.

    Example:
        >>> sum(share_sentences("Boil it. Cool it. Fool.", "Boil it. Cool it.").values())
        2
    """
    first, *others = (Counter(split_sentences(text)) for text in texts)
    for other in others:
        first &= other
    return first


def hold_all(text: str, part: str) -> bool:
    """Whether a text holds every sentence of another one to the character, in any order.

    Example:
        >>> hold_all("Boil it. Obey me. Cool it.", "Boil it. Cool it.")
        True
    """
    return Counter(split_sentences(part)) <= Counter(split_sentences(text))
