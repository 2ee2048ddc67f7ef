"""Splitting answers into sentences."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations.evaluation.guards.sentences import (
    hold_all,
    share_sentences,
    split_sentences,
)
from tests.timing import within

FENCE = "```python\nx = 1. \ny = a. B\n\nprint(x)\n```"


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("", []),
        (" \n\n ", []),
        ("Boil it", ["Boil it"]),
        ("Boil it. Cool it! Eat it? Yes…", ["Boil it.", "Cool it!", "Eat it?", "Yes…"]),
        ('He said "Go." Then he left.', ['He said "Go."', "Then he left."]),
        ("**Stop.** Go on.", ["**Stop.**", "Go on."]),
        (
            "Dr. Lee met Mr. J. R. Smith Jr. today. Good.",
            ["Dr. Lee met Mr. J. R. Smith Jr. today.", "Good."],
        ),
        ("Use pans, e.g. Iron ones. Fine.", ["Use pans, e.g. Iron ones.", "Fine."]),
        ("Yes. No. It is. Two. Ok.", ["Yes.", "No.", "It is.", "Two.", "Ok."]),
        ("Fish, rice, etc. are fine. Eat.", ["Fish, rice, etc. are fine.", "Eat."]),
        ("See Fig. 3 and No. 4. Then p. 5.", ["See Fig. 3 and No. 4.", "Then p. 5."]),
        ("It costs 3.50. Pay 1,000.25 now.", ["It costs 3.50.", "Pay 1,000.25 now."]),
        ("It was in 1999. Then not.", ["It was in 1999.", "Then not."]),
        ("Ask at https://a.example/b?c=1. Go.", ["Ask at https://a.example/b?c=1.", "Go."]),
        ("Run `a.b. C` now. Done.", ["Run `a.b. C` now.", "Done."]),
        ("1. Boil it. Cool it.\n2) Eat.", ["1. Boil it.", "Cool it.", "2) Eat."]),
        ("- a. First\n- b. Second", ["- a. First", "- b. Second"]),
        ("**1.** Boil it.", ["**1.** Boil it."]),
        (f"Look. Now:\n{FENCE}\nDone. Good.", ["Look.", "Now:", FENCE, "Done.", "Good."]),
        ("```\nopen. Code\nnever closed. Really", ["```\nopen. Code\nnever closed. Really"]),
        ("煮沸它。冷却它！吃。", ["煮沸它。", "冷却它！", "吃。"]),
        ("Wait... what? No.", ["Wait... what?", "No."]),
        ("One\r\nTwo.\tThree.", ["One", "Two.", "Three."]),
    ],
)
def test_split(text: str, sentences: list[str]) -> None:
    assert split_sentences(text) == sentences


@given(st.text(alphabet="aB1.!? \n`'\"[]<>。\t-", max_size=60))
def test_nothing_but_space_is_lost(text: str) -> None:
    sentences = split_sentences(text)
    assert "".join("".join(sentences).split()) == "".join(text.split())
    assert all(sentence == sentence.strip() != "" for sentence in sentences)


@given(st.lists(st.sampled_from(["Boil it.", "Is it hot?", "Eat 3.5 eggs!"]), max_size=8))
def test_plain_sentences_are_found_again(sentences: list[str]) -> None:
    assert split_sentences(" ".join(sentences)) == sentences
    assert split_sentences("\n\n".join(sentences)) == sentences


def test_sharing_and_holding() -> None:
    assert share_sentences("A bc. C de. A bc.", "A bc. E f. A bc. A bc.") == {"A bc.": 2}
    assert hold_all("C d. X y. A b.", "A b. C d.")
    assert not hold_all("A b.", "A b. A b.")
    assert not hold_all("a b.", "A b.")
    assert hold_all("anything", "")


def test_long_answers_are_split_fast() -> None:
    for text in (
        "A b. " * 20_000,
        "." * 100_000,
        "a. " * 30_000,
        "\n" * 100_000,
        '."' * 50_000,
        "A. " * 30_000,
    ):
        with within(10):
            split_sentences(text)
