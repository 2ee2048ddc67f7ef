"""Places in an answer at which a sentence can stand: between sentences of plain prose."""

from __future__ import annotations

import re
from collections.abc import Iterator

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
# Lines that are no prose: indented code, headings, quotes, tables, list items, HTML, formulas,
# rules, link targets, directives.
_MARKED = re.compile(
    r"\t| {4}|\s*(?:#|>|\||[-*+•–]\s|\(?(?:\d{1,3}|[A-Za-z]|[ivx]{1,4})[.)]\s|<|\$\$|\\[a-z\[]"
    r"|[-*_=]{3,}\s*$|\[[^\]]+\]:|:::)"
)
# "Dr Watson: ...", a line of a play or of a form.
_SPEAKER = re.compile(r"\s*[A-Z][\w.'-]{0,20}(?: [A-Z][\w.'-]{0,20}){0,2}:\s")
_END = re.compile(r"(?<=[.!?…])[\"'”’)\]*_]{0,3}(?= +\S)|(?<=[。！？])")
_SHORT = re.compile(
    r"(?:^|[\s(\"'])(?:[A-Za-z]|e\.g|i\.e|etc|vs|cf|ca|approx|Mrs?|Ms|Dr|Prof|St|Nr|Fig|Inc|Ltd|Co"
    r"|Jr|Sr|dept|est|min|max|(?:[A-Za-z]\.)+[A-Za-z])\.$"
)
_DONE = re.compile(r"[.!?…。！？][\"'”’)\]*_]{0,3}$")


def find_boundaries(text: str) -> list[int]:
    r"""Where a sentence may be put into ``text``, as character offsets.

    Before, between and after the sentences of paragraphs of prose; never inside code, lists,
    tables, headings, quotes, verse, formulas, brackets, quotation marks or emphasis.

    Example:
        >>> find_boundaries("Boil them. Cool them.")
        [0, 11, 21]
        >>> find_boundaries("- Boil them.\n- Cool them.")
        []
    """
    found: list[int] = []
    for start, line, alone in _find_lines(text):
        found.extend(start + place for place in _find_in(line, alone))
    return found


def _find_lines(text: str) -> Iterator[tuple[int, str, bool]]:
    """Lines of prose with their offsets, and whether each is a paragraph of its own."""
    fence = ""
    offset = 0
    lines = text.split("\n")
    for number, line in enumerate(lines):
        mark = _FENCE.match(line)
        if not (fence or mark or _MARKED.match(line) or _SPEAKER.match(line)) and line.strip():
            around = [*lines[number - 1 : number], *lines[number + 1 : number + 2]]
            yield offset, line, not any(near.strip() for near in around)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and not line[mark.end() :].strip(" \t\r`~"):
            fence = ""
        offset += len(line) + 1


def _find_in(paragraph: str, alone: bool) -> Iterator[int]:
    """Places in a line; between its sentences only, where it goes on in the next line.

    Such lines may be verse or entries of a list, to which a sentence must not be added.
    """
    stripped = paragraph.rstrip()
    if not _DONE.search(stripped):
        return  # a heading, a label, a line of a formula, a text that was cut
    begin = len(paragraph) - len(paragraph.lstrip())
    if alone:
        yield begin
    for match in _END.finditer(stripped):
        place = match.end()
        following = stripped[place:].lstrip(" ")
        if not following or following[0].islower() or _SHORT.search(stripped[: match.start()]):
            continue
        if _is_balanced(stripped[begin:place]) and stripped[place] == " ":
            yield place + len(stripped[place:]) - len(following)
    if alone and _is_balanced(stripped[begin:]):
        yield len(stripped)


def _is_balanced(text: str) -> bool:
    """Whether all brackets, quotes, code and emphasis that were opened are closed."""
    pairs = (("(", ")"), ("[", "]"), ("{", "}"), ("“", "”"), ("«", "»"), ("「", "」"))
    return all(text.count(opening) == text.count(closing) for opening, closing in pairs) and all(
        text.count(mark) % 2 == 0 for mark in ('"', "`", "**", "__", "$$")
    )
