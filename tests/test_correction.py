from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations import Correction, CorrectionStats, Edit
from aligner_integrations.correction import find_edits

WORDS = st.lists(
    st.sampled_from(["boil", "egg", "water", " ", "  ", "\n", ".", ",", "é", "e\u0301", "😀", "\0"])
    | st.text(max_size=3),
    max_size=12,
).map("".join)


def apply_edits(answer: str, edits: list[Edit]) -> str:
    for edit in reversed(edits):
        start, end = edit.answer_span
        answer = answer[:start] + edit.after + answer[end:]
    return answer


@given(answer=WORDS, text=WORDS)
def test_edits_turn_the_answer_into_the_text(answer: str, text: str) -> None:
    edits = Correction(text, "q", answer).edits
    assert apply_edits(answer, edits) == text
    assert bool(edits) == (answer != text)
    for edit in edits:
        assert answer[slice(*edit.answer_span)] == edit.before
        assert text[slice(*edit.text_span)] == edit.after
        assert edit.before != edit.after
        assert edit.op == {(True, True): "replace", (True, False): "delete"}.get(
            (bool(edit.before), bool(edit.after)), "insert"
        )
    ends = [edit.answer_span[1] for edit in edits]
    starts = [edit.answer_span[0] for edit in edits]
    assert all(end < start for end, start in zip(ends, starts[1:], strict=False))


@pytest.mark.parametrize(
    ("answer", "text", "expected"),
    [
        ("a b c", "a c", [("delete", "b ", "", (2, 4), (2, 2))]),
        ("a c", "a b c", [("insert", "", "b ", (2, 2), (2, 4))]),
        ("a b c", "a x c", [("replace", "b", "x", (2, 3), (2, 3))]),
        ("one two three", "four five three", [("replace", "one two", "four five", (0, 7), (0, 9))]),
        ("", "new", [("insert", "", "new", (0, 0), (0, 3))]),
        ("old", "", [("delete", "old", "", (0, 3), (0, 0))]),
        ("same", "same", []),
    ],
)
def test_edits_by_example(answer: str, text: str, expected: list[tuple[object, ...]]) -> None:
    assert list(find_edits(answer, text)) == [Edit(*edit) for edit in expected]  # type: ignore[arg-type]


def test_edits_of_a_long_answer_are_quick() -> None:
    answer = "Boil the egg in the water. " * 2000
    assert len(Correction(answer.replace("egg", "rice"), "q", answer).edits) == 2000


@given(answer=WORDS, text=WORDS)
def test_similarity_is_a_ratio(answer: str, text: str) -> None:
    correction = Correction(text, "q", answer)
    assert 0 <= correction.similarity <= 1
    assert (correction.similarity == 1) == (not correction.changed)
    assert correction.similarity == pytest.approx(Correction(answer, "q", text).similarity)


@pytest.mark.parametrize(
    ("answer", "text", "expected"), [("abc", "xyz", 0), ("ab", "ac", 0.5), ("", "", 1)]
)
def test_similarity_by_example(answer: str, text: str, expected: float) -> None:
    assert Correction(text, "q", answer).similarity == pytest.approx(expected)


@given(answer=WORDS, text=WORDS)
def test_dict_is_json(answer: str, text: str) -> None:
    correction = Correction(text, "q", answer, CorrectionStats(1, 2, 3, 4, 5, 0.25, 0.5), "model")
    data = json.loads(json.dumps(correction.to_dict()))
    assert data["text"] == text
    assert data["answer"] == answer
    assert data["question"] == "q"
    assert data["changed"] == (answer != text)
    assert [e["before"] for e in data["edits"]] == [e.before for e in correction.edits]
    assert data["stats"] == {
        "prompt_tokens": 1,
        "output_tokens": 2,
        "copied_tokens": 3,
        "forward_passes": 4,
        "near_ties": 5,
        "smallest_margin": 0.25,
        "seconds": 0.5,
        "stop_reason": "stop",
        "drafted_tokens": 0,
        "accepted_tokens": 0,
        "queue_seconds": 0.0,
    }


@pytest.mark.parametrize(
    ("text", "more", "outcome"),
    [
        ("b", {}, "changed"),
        ("a", {}, "unchanged"),
        ("a", {"skipped": "json"}, "skipped_json"),
        ("a", {"policy": "original"}, "original"),
        ("no", {"policy": "refuse"}, "refuse"),
    ],
)
def test_outcome(text: str, more: Any, outcome: str) -> None:
    assert Correction(text, "q", "a", **more).outcome == outcome


def test_record_holds_no_text() -> None:
    correction = Correction(
        "kept safe", "secret question", "secret answer", model="m", policy="refuse", error="why"
    )
    record = json.dumps(correction.record())
    assert all(text not in record for text in ("secret", "safe"))
    assert correction.record() == {
        "changed": True,
        "similarity": pytest.approx(correction.similarity, abs=1e-4),
        "seconds": 0.0,
        "model": "m",
        "policy": "refuse",
        "error": "why",
        "skipped": None,
        "lost": 0,
    }


def test_a_correction_is_a_value() -> None:
    correction = Correction("b", "q", "a")
    assert str(correction) == "b"
    assert correction == Correction("b", "q", "a")
    with pytest.raises(AttributeError):
        correction.text = "c"  # type: ignore[misc]


def test_a_space_on_both_sides_is_no_part_of_an_edit() -> None:
    (edit,) = find_edits("Boil. You fool. Then cool.", "Boil. You friend. Then cool.")
    assert (edit.before, edit.after) == ("fool", "friend")
    for before, after in [
        ("a b c d ", "x  d "),
        (" a b", " b"),
        ("a. b c. d", "a.  d"),
        ("  ", " "),
    ]:
        for one in find_edits(before, after):
            assert not (one.before.endswith(" ") and one.after.endswith(" "))
            assert not (one.before.startswith(" ") and one.after.startswith(" "))
            assert before[slice(*one.answer_span)] == one.before
            assert after[slice(*one.text_span)] == one.after
