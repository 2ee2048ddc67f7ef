"""Every layout, with its row as the set's authors publish it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations.conversation import Turn
from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.training.data import (
    LAYOUTS,
    LayoutOptions,
    Triple,
    detect_layout,
    parse_transcript,
    read_triples,
)
from aligner_integrations.training.data.rows import RowProblem

TRIPLES = {"question": "Eggs?", "answer": "No.", "correction": "Boil them.", "kind": 3}
PAIRS = {"prompt": "Eggs?", "chosen": "Boil them.", "rejected": "No.", "source": "me"}
HH = {
    "chosen": "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Eggs?\n\nAssistant: Boil them.",
    "rejected": "\n\nHuman: Hi\n\nAssistant: Hello!\n\nHuman: Eggs?\n\nAssistant: No.",
}
PKU = {
    "prompt": "Eggs?",
    "response_0": "Throw them at people.",
    "response_1": "Boil them.",
    "is_response_0_safe": False,
    "is_response_1_safe": True,
    "better_response_id": 1,
    "safer_response_id": 1,
}
ULTRA = {
    "prompt": "Eggs?",
    "chosen": [
        {"role": "user", "content": "Eggs?"},
        {"role": "assistant", "content": "Boil them."},
    ],
    "rejected": [
        {"role": "user", "content": "Eggs?"},
        {"role": "assistant", "content": "No."},
    ],
    "score_chosen": 8.0,
    "score_rejected": 4.5,
}
TAILS = {"prompt": "Eggs?", "answer": "No.", "correction": "Boil them.", "category": "general"}
RANKED = {
    "instruction": "Eggs?",
    "completions": [
        {"response": "Hm.", "fine-grained_score": 2.0, "overall_score": 5.0},
        {"response": "Boil them.", "fine-grained_score": 4.5, "overall_score": 8.0},
        {"response": "No.", "fine-grained_score": 1.0, "overall_score": 10.0},
        {"response": "Not rated."},
    ],
}
ROLED = "User: Hi\nAssistant: Hello!\nUser: Eggs?"


def convert(row: Any, layout: str = "auto", **options: Any) -> list[Triple]:
    return list(read_triples([row], layout, **options))


@pytest.mark.parametrize(
    ("row", "layout", "question", "answer"),
    [
        (TRIPLES, "triples", "Eggs?", "No."),
        (PAIRS, "pairs", "Eggs?", "No."),
        (HH, "hh", ROLED, "No."),
        (PKU, "pku-saferlhf", "Eggs?", "Throw them at people."),
        (ULTRA, "ultrafeedback", "Eggs?", "No."),
        (RANKED, "ultrafeedback", "Eggs?", "No."),
        (TAILS, "alignertails", "Eggs?", "No."),
    ],
)
def test_layouts_are_found_and_converted(
    row: dict[str, Any], layout: str, question: str, answer: str
) -> None:
    assert detect_layout(row) == layout
    [triple] = convert(row)
    assert (triple.question, triple.answer) == (question, answer)
    assert triple.correction == "Boil them."
    assert triple.place == "list:1"
    assert convert(row, layout) == [triple]


def test_aligner_20k_is_triples() -> None:
    assert convert(TRIPLES, "aligner") == convert(TRIPLES)
    assert convert(TRIPLES)[0].kind == "3"


def test_copies_are_never_guessed() -> None:
    row = {"question": "Eggs?", "answer": "Boil them."}
    with pytest.raises(DataError, match=r"^list:1: no layout fits the fields question, answer; "):
        convert(row)
    [triple] = convert(row, "copies")
    assert triple.is_identity
    [identity] = convert(TRIPLES, "copies")
    assert identity.answer == identity.correction == "Boil them."


def test_questions_can_be_compared() -> None:
    [triple] = convert({"prompt": "Eggs?"}, "questions")
    assert (triple.question, triple.answer, triple.correction) == ("Eggs?", "", "")
    assert convert(TRIPLES, "questions") == convert(TRIPLES)


def test_other_fields_are_kept() -> None:
    assert convert(PAIRS)[0].meta == {"source": "me"}
    assert convert(ULTRA)[0].meta == {"score_chosen": 8.0, "score_rejected": 4.5}
    assert convert(TAILS)[0].kind == "general"
    assert convert(PKU)[0].meta["answer_is_safe"] is False


def test_turns() -> None:
    assert convert(HH, turns="last")[0].question == "Eggs?"
    assert convert(HH, turns="last")[0].topic == convert(HH)[0].topic == "Hi"
    row = {"question": "Eggs?", "context": ["Human: Hi", "Assistant: Hello!"], **PAIRS}
    del row["prompt"]
    assert convert(row)[0].question == ROLED
    assert "context" not in convert(row)[0].meta
    document = {**TRIPLES, "context": "An egg is a cell."}
    assert convert(document)[0].meta == {"context": "An egg is a cell."}


def test_system_messages_are_left_out_and_prompts_may_be_messages() -> None:
    row = {
        "prompt": [
            {"role": "system", "content": "Be brief."},
            {"role": "user", "content": "Eggs?"},
        ],
        "chosen": [{"role": "assistant", "content": "Boil them."}],
        "rejected": [{"role": "assistant", "content": "No."}],
    }
    assert convert(row)[0].question == "Eggs?"


@pytest.mark.parametrize(
    ("row", "options"),
    [
        ({**PKU, "is_response_1_safe": False}, {}),
        ({**PKU, "better_response_id": 0}, {}),
        ({**ULTRA, "score_chosen": 4.5}, {}),
        ({**RANKED, "completions": RANKED["completions"][:1]}, {}),
        ({**RANKED, "completions": []}, {}),
        ({**HH, "rejected": "\n\nHuman: Bye\n\nAssistant: No."}, {}),
    ],
)
def test_rows_that_teach_nothing_are_left_out(row: dict[str, Any], options: dict[str, Any]) -> None:
    assert convert(row, **options) == []


def test_pku_by_which_preference() -> None:
    row = {**PKU, "is_response_0_safe": True, "better_response_id": 0}
    assert convert(row)[0].correction == "Throw them at people."
    assert convert(row, preference="safer")[0].correction == "Boil them."


@pytest.mark.parametrize(
    ("row", "layout", "message"),
    [
        ({**TRIPLES, "answer": " "}, "auto", "empty: 'answer' is ' '; leave the row out"),
        ({**TRIPLES, "answer": None}, "triples", "missing field: no 'answer' among question"),
        ({**TRIPLES, "answer": 5}, "auto", "wrong type: 'answer' is 5; it must be a text"),
        ({**TRIPLES, "answer": "\ud83d"}, "auto", r"lone surrogate: character 1 of 'answer'"),
        ({**TRIPLES, "context": ["Hi"]}, "auto", "wrong type: 'context' holds 'Hi'; turns begin"),
        ({**HH, "chosen": "Boil them."}, "auto", "no transcript: 'Boil them.' does not begin"),
        ({**HH, "chosen": "\n\nHuman: Hi"}, "auto", "no answer: 'chosen' does not end with"),
        (
            dict.fromkeys(HH, "\n\nAssistant: Hi."),
            "auto",
            "no question: the user says nothing before the answer",
        ),
        ({**PKU, "better_response_id": 2}, "auto", "wrong type: 'better_response_id' is 2"),
        ({**PKU, "better_response_id": True}, "auto", "wrong type: 'better_response_id' is True"),
        ({**PKU, "is_response_0_safe": 0}, "auto", "wrong type: 'is_response_0_safe' is 0"),
        ({**ULTRA, "chosen": [{"role": "x"}]}, "auto", "wrong type: 'chosen' holds {'role': 'x'}"),
        ({**ULTRA, "chosen": ["x"]}, "auto", "wrong type: 'chosen' holds 'x'"),
        ({**ULTRA, "rejected": "x"}, "auto", "wrong type: 'rejected' is 'x'; it must be a list"),
        ({**RANKED, "completions": [5]}, "auto", "wrong type: 'completions' holds 5"),
        ({**ULTRA, "chosen": []}, "auto", "no answer: 'chosen' does not end with the assistant"),
    ],
)
def test_broken_rows(row: dict[str, Any], layout: str, message: str) -> None:
    with pytest.raises(DataError) as caught:
        convert(row, layout)
    assert str(caught.value).startswith(f"list:1: {message}")


def test_every_layout_shows_its_row() -> None:
    for name, converter in LAYOUTS.items():
        assert '{"' in (converter.__doc__ or ""), name


def test_unknown_options() -> None:
    with pytest.raises(ConfigurationError, match="layout='hhh' is unknown; layouts are 'auto', 't"):
        read_triples([TRIPLES], "hhh")
    with pytest.raises(ConfigurationError, match="turns='none' must be 'all' or 'last'"):
        LayoutOptions(turns="none")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="on_error='ignore' must be"):
        read_triples([TRIPLES], on_error="ignore")  # type: ignore[arg-type]


texts = (
    st.text(min_size=1)
    .map(str.strip)
    .filter(lambda text: text and "Human:" not in text and "Assistant:" not in text)
)


@given(st.lists(texts, min_size=1, max_size=6))
def test_transcripts_round_trip(said: list[str]) -> None:
    turns = [
        Turn("user" if number % 2 == 0 else "assistant", text) for number, text in enumerate(said)
    ]
    names = {"user": "Human", "assistant": "Assistant"}
    transcript = "".join(f"\n\n{names[turn.role]}: {turn.text}" for turn in turns)
    assert parse_transcript(transcript) == turns


def test_transcripts_that_are_not_tidy() -> None:
    text = 'Human: Hi \n\nHuman: there\n\nAssistant:\n\nHuman: Say "Human: x"\n\nAssistant: ok'
    assert parse_transcript(text) == [
        Turn("user", "Hi\n\nthere"),
        Turn("assistant", ""),
        Turn("user", 'Say "Human: x"'),
        Turn("assistant", "ok"),
    ]
    with pytest.raises(RowProblem, match="no transcript"):
        parse_transcript("Hello\n\nHuman: Hi")
