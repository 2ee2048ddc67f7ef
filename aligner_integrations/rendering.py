"""How a correction looks: coloured in a terminal, as HTML in a notebook."""

from __future__ import annotations

import html
from collections.abc import Iterator
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

    from aligner_integrations.correction import Correction

Kind = Literal["same", "removed", "added"]
_STYLES = {"same": "", "removed": "red strike", "added": "bold green"}
_TAGS = {
    "removed": ("<del style='background:#ffd7d5;color:#82071e'>", "</del>"),
    "added": ("<ins style='background:#ccffd8;color:#055d20;text-decoration:none'>", "</ins>"),
}


def split_runs(correction: Correction) -> Iterator[tuple[Kind, str]]:
    """Answer and correction as one inline diff: runs of same, removed and added text."""
    at = 0
    for edit in correction.edits:
        if edit.text_span[0] > at:
            yield "same", correction.text[at : edit.text_span[0]]
        if edit.before:
            yield "removed", edit.before
        if edit.after:
            yield "added", edit.after
        at = edit.text_span[1]
    if at < len(correction.text):
        yield "same", correction.text[at:]


def summarise(correction: Correction) -> str:
    """One line: what happened and what it cost."""
    stats = correction.stats
    what = "changed" if correction.changed else "unchanged"
    if correction.policy:
        what = f"not corrected, policy {correction.policy!r}: {correction.error}"
    return (
        f"{what} · similarity {correction.similarity:.2f} · {stats.copied_tokens} of "
        f"{stats.output_tokens} tokens copied · {stats.seconds:.2f} s"
    )


def diff_text(correction: Correction) -> Text:
    """The inline diff as coloured text."""
    from rich.text import Text

    line = Text()
    for kind, run in split_runs(correction):
        line.append(run, style=_STYLES[kind])
    return line


def mark_sides(correction: Correction) -> tuple[Text, Text]:
    """Answer and corrected text side by side: what went away, and what came, in colour."""
    from rich.text import Text

    answer, text = Text(correction.answer), Text(correction.text)
    for edit in correction.edits:
        answer.stylize(_STYLES["removed"], *edit.answer_span)
        text.stylize(_STYLES["added"], *edit.text_span)
    return answer, text


def render_terminal(correction: Correction) -> Iterator[RenderableType]:
    """Rich renderables: the inline diff, then the summary."""
    from rich.text import Text

    yield diff_text(correction)
    yield Text(summarise(correction), style="dim")


def render_html(correction: Correction) -> str:
    """A self-contained HTML fragment; all text is escaped."""
    runs = []
    for kind, run in split_runs(correction):
        start, end = _TAGS.get(kind, ("", ""))
        runs.append(start + html.escape(run) + end)
    return (
        "<div style='font-family:sans-serif;line-height:1.5'>"
        f"<div style='white-space:pre-wrap'>{''.join(runs)}</div>"
        f"<div style='color:#888;font-size:smaller'>{html.escape(summarise(correction))}</div>"
        "</div>"
    )
