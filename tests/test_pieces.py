"""How much corrected text a stream hands out at a time."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations import Aligner
from aligner_integrations.decoding.rows import Row
from aligner_integrations.errors import CorrectionError
from aligner_integrations.pieces import Pieces
from tests.passes import on_pass
from tests.test_aligner import WRITES

UNITS = ["token", "word", "sentence"]


def cut(unit: Any, tokens: list[str]) -> list[str]:
    pieces = Pieces(unit)
    return [piece for piece in [*map(pieces.push, tokens), pieces.finish()] if piece]


@pytest.mark.parametrize("unit", UNITS)
@given(tokens=st.lists(st.text(alphabet="ab .!?\n。」\"'”)*3")))
def test_pieces_join_to_the_whole(unit: str, tokens: list[str]) -> None:
    assert "".join(cut(unit, tokens)) == "".join(tokens)


@given(tokens=st.lists(st.text(alphabet="ab .\n\t\u00a0")))
def test_words_are_whole(tokens: list[str]) -> None:
    assert all(piece[-1].isspace() for piece in cut("word", tokens)[:-1])


@given(tokens=st.lists(st.text(alphabet="ab .!\n。")))
def test_sentences_are_whole(tokens: list[str]) -> None:
    for piece in cut("sentence", tokens)[:-1]:
        assert re.search(r"([.!]\s+|。|\n\s*)\Z", piece)


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("Boil them. Then cool them! Ready? Yes…  Good.", 5),
        ("It takes 3.5 minutes. See example.org/a.b for more.", 2),
        ('He said "Stop." She said (yes.) *Bold.* **Both.** End', 5),
        ("# Title\nOne\n\nTwo", 3),
        ("我煮鸡蛋。你呢？好！", 3),
        ("他说：「好。」她说：“真的吗？！”然后走了。", 3),
        ("no end at all", 1),
        ("", 0),
    ],
)
@pytest.mark.parametrize("size", [1, 3, 1000])
def test_sentences(text: str, sentences: int, size: int) -> None:
    tokens = [text[start : start + size] for start in range(0, len(text), size)]
    pieces = cut("sentence", tokens)
    assert "".join(pieces) == text
    if size == 1:
        assert len([piece for piece in pieces if piece.strip()]) == sentences


def test_closing_quotes_stay_with_their_sentence() -> None:
    assert cut("sentence", list("他说：「好。」她说：“真的吗？！”走了。")) == [
        "他说：「好。」",
        "她说：“真的吗？！”",
        "走了。",
    ]
    assert cut("sentence", list('He said "Stop." Then.')) == ['He said "Stop." ', "Then."]


def test_nothing_is_held_longer_than_it_must() -> None:
    pieces = Pieces("word")
    assert [pieces.push(text) for text in ("Boil", " th", "em w", "ell", "\n")] == [
        "",
        "Boil ",
        "them ",
        "",
        "well\n",
    ]
    assert pieces.finish() == ""
    assert Pieces("token").push("x") == "x"


def stream(aligner: Aligner, **call: Any) -> list[str]:
    return list(aligner.stream("q", "some answer", **call))


def astream(aligner: Aligner, **call: Any) -> list[str]:
    async def read() -> list[str]:
        return [piece async for piece in aligner.astream("q", "some answer", **call)]

    return asyncio.run(read())


both = pytest.mark.parametrize("ask", [stream, astream])


@both
def test_streams_hand_out_whole_units(writer: Aligner, ask: Callable[..., list[str]]) -> None:
    assert len(ask(writer)) > 4
    assert ask(writer, options={"stream_by": "word"}) == ["Cool ", "water, ", "😀 ", "kindly."]
    assert ask(writer, options={"stream_by": "sentence"}) == [WRITES]


@both
@pytest.mark.parametrize("policy", ["raise", "original", "refuse"])
def test_an_error_before_the_first_unit(
    writer: Aligner, monkeypatch: pytest.MonkeyPatch, ask: Callable[..., list[str]], policy: str
) -> None:
    """Text was written, but none handed out, so it can still be replaced; none of it leaks."""

    def fail(rows: list[Row]) -> None:
        if rows and len(rows[0].output) >= 4:
            raise RuntimeError("boom")

    on_pass(monkeypatch, fail)
    call = {"options": {"stream_by": "sentence"}, "on_error": policy}
    if policy == "raise":
        with pytest.raises(CorrectionError):
            ask(writer, **call)
    else:
        wanted = "some answer" if policy == "original" else writer.refusal_text
        assert ask(writer, **call) == [wanted]


@both
def test_an_error_behind_the_first_unit(
    writer: Aligner, monkeypatch: pytest.MonkeyPatch, ask: Callable[..., list[str]]
) -> None:
    def fail(rows: list[Row]) -> None:
        if rows and len(rows[0].output) >= 8:
            raise RuntimeError("boom")

    on_pass(monkeypatch, fail)
    with pytest.raises(CorrectionError):
        ask(writer, options={"stream_by": "word"}, on_error="original")


@both
@pytest.mark.parametrize("unit", UNITS)
def test_what_is_not_corrected_comes_in_one_piece(
    writer: Aligner, ask: Callable[..., list[str]], unit: str
) -> None:
    call = {"options": {"stream_by": unit}, "correct_when": {"longer_than": 99}}
    assert ask(writer, **call) == ["some answer"]
