"""Places in an answer at which a sentence can stand: between sentences of plain prose."""

from __future__ import annotations

import re
from collections.abc import Iterator

_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
# Lines that are no prose: indented code, headings, quotes, tables, list items, HTML, formulas,
# rules, link targets, directives.
_MARKED = re.compile(
    r"\t| {4}|\s*(?:#|>|\||[-*+•–]\s|\(?\w{1,3}[.)]\s|<|\$\$|\\[a-z\[]|[-*_=]{3,}\s*$"
    r"|\[[^\]]+\]:|:::)"
)
_SPEAKER = re.compile(r"\s*[A-Z][\w .'-]{0,30}:\s")
_END = re.compile(r"(?<=[.!?…])[\"'”’)\]*_]{0,3}(?= +\S)|(?<=[。！？])")
_SHORT = re.compile(
    r"(?:^|[\s(\"'])(?:[A-Za-z]|e\.g|i\.e|etc|vs|cf|ca|approx|Mrs?|Ms|Dr|Prof|St|No|Nr|Fig|Inc|Ltd|Co"
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
    for start, paragraph in _find_paragraphs(text):
        found.extend(start + place for place in _find_in(paragraph))
    return found


def _find_paragraphs(text: str) -> Iterator[tuple[int, str]]:
    """Paragraphs that are one line of prose, with their offsets.

    Several lines without a blank one between them are verse, a list or a form more often than
    wrapped prose, so they are left alone.
    """
    fence = ""
    lines: list[tuple[int, str, bool]] = []
    offset = 0
    for line in text.split("\n"):
        mark = _FENCE.match(line)
        prose = not fence and not mark and not _MARKED.match(line) and not _SPEAKER.match(line)
        if mark and not fence:
            fence = mark[1]
        elif mark and mark[1].startswith(fence) and not line[mark.end() :].strip(" \t\r`~"):
            fence = ""
        lines.append((offset, line, prose))
        offset += len(line) + 1
    for index, (start, line, prose) in enumerate(lines):
        alone = all(
            not 0 <= near < len(lines) or not lines[near][1].strip()
            for near in (index - 1, index + 1)
        )
        if prose and alone and line.strip():
            yield start, line


def _find_in(paragraph: str) -> Iterator[int]:
    stripped = paragraph.rstrip()
    if not _DONE.search(stripped):
        return  # a heading, a label, a line of a formula, a text that was cut
    begin = len(paragraph) - len(paragraph.lstrip())
    yield begin
    for match in _END.finditer(stripped):
        place = match.end()
        following = stripped[place:].lstrip(" ")
        if not following or following[0].islower() or _SHORT.search(stripped[: match.start()]):
            continue
        if _is_balanced(stripped[begin:place]) and stripped[place] == " ":
            yield place + len(stripped[place:]) - len(following)
    if _is_balanced(stripped[begin:]):
        yield len(stripped)


def _is_balanced(text: str) -> bool:
    """Whether all brackets, quotes, code and emphasis that were opened are closed."""
    pairs = (("(", ")"), ("[", "]"), ("{", "}"), ("“", "”"), ("«", "»"), ("「", "」"))
    return all(text.count(opening) == text.count(closing) for opening, closing in pairs) and all(
        text.count(mark) % 2 == 0 for mark in ('"', "`", "**", "__", "$$")
    )
