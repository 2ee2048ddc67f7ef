from __future__ import annotations

import html
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from aligner_integrations import Correction, CorrectionStats
from aligner_integrations.rendering import split_runs

HOSTILE = [
    "<script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "' onmouseover='alert(1)",
    '"><svg onload=alert(1)>',
    "</del></div><iframe src=javascript:alert(1)>",
    "&lt;b&gt; &amp;",
]
OURS = re.compile(r"</?(?:div|del|ins)(?: style='[^'<>]*')?>")


def show(correction: Correction, *, colour: bool = False) -> str:
    console = Console(
        width=10_000, force_terminal=colour, color_system="standard" if colour else None
    )
    with console.capture() as capture:
        console.print(correction)
    return capture.get()


@given(answer=st.text() | st.sampled_from(HOSTILE), text=st.text() | st.sampled_from(HOSTILE))
def test_runs_hold_answer_and_text(answer: str, text: str) -> None:
    runs = list(split_runs(Correction(text, "q", answer)))
    assert "".join(run for kind, run in runs if kind != "removed") == text
    removed = [run for kind, run in runs if kind == "removed"]
    assert removed == [edit.before for edit in Correction(text, "q", answer).edits if edit.before]
    assert all(run for _, run in runs)


@pytest.mark.parametrize("evil", HOSTILE)
@pytest.mark.parametrize("where", ["answer", "text", "both", "error"])
def test_html_is_escaped(evil: str, where: str) -> None:
    correction = Correction(
        f"xyz {evil}" if where in ("text", "both") else "xyz",
        evil,
        f"a {evil}" if where in ("answer", "both") else "a",
        policy="refuse" if where == "error" else None,
        error=evil if where == "error" else None,
    )
    shown = correction._repr_html_()
    assert "<" not in OURS.sub("", shown), "a tag that is not ours"
    assert html.escape(evil) in shown or where == "both"


def test_html_shows_what_changed() -> None:
    shown = Correction("a x c", "q", "a b c")._repr_html_()
    assert re.search(r"a <del[^>]*>b</del><ins[^>]*>x</ins> c</div>", shown)
    assert "changed · similarity 0.80" in shown


def test_terminal_shows_what_changed() -> None:
    stats = CorrectionStats(output_tokens=5, copied_tokens=4, seconds=1.234)
    shown = show(Correction("a x c", "q", "a b c", stats), colour=True)
    assert "\x1b[9;31mb\x1b[0m\x1b[1;32mx\x1b[0m" in shown
    assert "4 of 5 tokens copied · 1.23 s" in shown


def test_terminal_does_not_read_markup() -> None:
    evil = "[red]x[/red] [link=http://evil]y[/link] [/]"
    assert evil in show(Correction(evil, "q", evil))


def test_a_policy_is_visible() -> None:
    shown = show(Correction("a", "q", "a", policy="original", error="boom"))
    assert "not corrected, policy 'original': boom" in shown
    assert show(Correction("a", "q", "a")).splitlines()[1].startswith("unchanged")
