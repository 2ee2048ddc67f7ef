"""Defects go between sentences, and the correction is the original to the character."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.training.data import Defect, Triple, insert_defects, read_defects
from aligner_integrations.training.data.boundaries import find_boundaries

MARK = "‖"


def show(text: str) -> str:
    for place in reversed(find_boundaries(text)):
        text = text[:place] + MARK + text[place:]
    return text


@pytest.mark.parametrize(
    "text",
    [
        "‖Boil them.‖",
        "‖Boil them. ‖Then cool them!  ‖Done?‖",
        "‖One.‖\n\n‖Two.‖  \n\n‖Three.‖\n",
        '‖He said "Go. Now." ‖Then he went.‖',
        "‖See (here. There.) for more. ‖Fine.‖",
        "‖Use `a. B` here. ‖Fine.‖",
        "‖**Bold. Text.** ‖Fine.‖",
        "‖Dr. Smith, e.g. A. Jones of the U.S. Army, pays 3.5 or so. ‖It works.‖",
        "‖No. ‖Never do that.‖",
        "‖It costs ca. 5 euros... or more. ‖Fine.‖",
        "# Title.\n\n‖Text.‖",
        "‖Intro.‖\n\n```python\nx = 1. A\n\nY. Z.\n```\n\n‖End.‖",
        "~~~\nNever. Closed.\n\nSo. Code.",
        "````\n```\n\nInner. Code.\n\n```\n````\n\n‖End.‖",
        "- One. Two.\n\n- Three. Four.",
        "1. One. Two.\n\n2) Three. Four.",
        "| a. B | c. |\n|---|---|\n| D. E. | f. |",
        "> Quoted. Text.",
        "    indented. Code.",
        "$$\na. B.\n$$",
        "Roses are red.\nViolets are blue.",
        "Step in. ‖Step out.\nSo. ‖It is.",
        "Romeo: My love. So it is.",
        "An answer that was cut. In the mid",
        "‖Ein Satz. ‖Über Bären. ‖1990 war gut.‖",
        "‖煮鸡蛋。然后冷却。‖",
        "",
        "   \n\n ",
        '{"a": "One. Two."}',
    ],
)
def test_boundaries(text: str) -> None:
    assert show(text.replace(MARK, "")) == text


DEFECTS = [Defect("insult", "You fool."), Defect("lie", "The Moon is square 🧀.")]
prose = st.lists(
    st.sampled_from(
        ["Boil them.", "Is it good? Yes!", "- a. B.", "", "```", "x = 1.", " Eggs 🥚. "]
    ),
    max_size=8,
).map("\n".join)


@given(prose | st.text(), st.integers(1, 3), st.integers(0, 3))
def test_taking_the_defects_out_gives_the_correction(text: str, count: int, seed: int) -> None:
    good = Triple("q", text, text)
    for made in insert_defects([good], DEFECTS, seed=seed, per_answer=count):
        assert made.correction == text
        spans = made.meta["defect_spans"]
        assert 1 <= len(spans) <= min(count, len(DEFECTS))
        mended = made.answer
        for start, end in reversed(spans):
            assert mended[start:end] in {defect.text for defect in DEFECTS}
            before = start > 0 and mended[start - 1] == " " and mended[:start].strip() != ""
            at_end = before and not mended[end : end + 1].startswith(" ")
            mended = (
                mended[: start - 1] + mended[end:] if at_end else mended[:start] + mended[end + 1 :]
            )
        assert mended == text


def test_the_choice_depends_on_seed_and_texts_alone() -> None:
    rows = [Triple(f"q{n}", "x", "One. Two. Three.") for n in range(30)]
    made = list(insert_defects(rows))
    assert made == list(insert_defects(rows))
    assert sorted(t.answer for t in made) == sorted(t.answer for t in insert_defects(rows[::-1]))
    assert made != list(insert_defects(rows, seed=1))


def test_copies_and_answers_without_a_place(caplog: pytest.LogCaptureFixture) -> None:
    rows = [Triple("q", "x", "One. Two."), Triple("q", "x", "```\ncode\n```")]
    with caplog.at_level("INFO"):
        spoiled, copy = insert_defects(rows, DEFECTS, copies=True)
    assert not spoiled.is_identity
    assert copy.is_identity
    assert copy.kind == "copy"
    assert "1 answers have no place for a defect" in caplog.text


def test_a_defect_that_is_there_already_is_not_put_in() -> None:
    assert list(insert_defects([Triple("q", "x", "You fool.")], DEFECTS[:1])) == []


def test_bundled_defects() -> None:
    defects = read_defects()
    assert len({defect.text for defect in defects}) == len(defects) >= 50
    assert all(defect.text.endswith(".") for defect in defects)
    kinds = {defect.kind for defect in defects}
    assert len(kinds) == 7
    assert {defect.kind for defect in read_defects(kinds=["hostile"])} == {"hostile"}


def test_wrong_defects(tmp_path: Path) -> None:
    path = tmp_path / "defects.jsonl"
    path.write_text('{"kind": "a", "text": "b"}\n{"kind": "a"}\n')
    with pytest.raises(DataError, match=r"defects\.jsonl:2: missing field: no 'text'"):
        read_defects(path)
    with pytest.raises(ConfigurationError, match="no defect is of kind 'rude'; kinds are"):
        read_defects(kinds=["rude"])
    with pytest.raises(ConfigurationError, match="0 defects"):
        insert_defects([], [])
    with pytest.raises(ConfigurationError, match="per_answer=0"):
        insert_defects([], per_answer=0)
