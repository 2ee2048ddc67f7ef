"""Validation, near-duplicates, leakage, splits."""

from __future__ import annotations

import random
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.training.data import (
    NearIndex,
    Triple,
    find_duplicates,
    find_leaks,
    split_triples,
    validate,
)
from aligner_integrations.training.data.splitting import find_content_words
from tests.training.data.conftest import Write

ROW = {"question": "Eggs?", "answer": "No.", "correction": "Boil them."}


def test_validation_counts_by_kind(write: Write) -> None:
    path = write(
        [
            ROW,
            b"{",
            {**ROW, "answer": ""},
            {**ROW, "answer": 5},
            b"\xff",
            {**ROW, "answer": "\ud83d"},
            {**ROW, "answer": "a" * 101},
            {**ROW, "answer": " Eggs?"},
            {**ROW, "answer": "a\0b"},
            {**ROW, "correction": "Fry them."},
            {"question": "Eggs?", "answer": "No."},
            ROW,
        ]
    )
    report = validate(path, max_chars=100)
    assert (report.rows, report.usable, report.ok) == (12, 2, False)
    assert dict(report.counts) == dict.fromkeys(
        [
            "invalid JSON",
            "empty",
            "wrong type",
            "not UTF-8",
            "lone surrogate",
            "too long",
            "echo",
            "control character",
            "contradiction",
            "missing field",
        ],
        1,
    )
    assert [problem.place for problem in report.problems] == [
        f"{path}:{line}" for line in range(2, 12)
    ]
    assert str(report.problems[8]) == (
        f"{path}:10: contradiction: the same question and answer have another correction at "
        f"{path}:1; keep one"
    )
    assert report.to_dict()["counts"]["echo"] == 1


def test_validation_keeps_the_first_problems_only(write: Write) -> None:
    report = validate(write([ROW, *[b"{"] * 50]), max_problems=3)
    assert len(report.problems) == 3
    assert report.counts["invalid JSON"] == 50


def test_validation_counts_what_the_layout_leaves_out() -> None:
    hh = {name: f"\n\nHuman: {name}\n\nAssistant: x" for name in ("chosen", "rejected")}
    report = validate([hh])
    assert report.ok
    assert dict(report.left_out) == {"the transcripts differ before the last answer": 1}


def test_validation_of_nothing_but_broken_lines(write: Write) -> None:
    assert validate(write([b"{", b"["])).counts["invalid JSON"] == 2
    with pytest.raises(DataError, match="holds no rows"):
        validate(write([]))


def make(question: str, place: str = "", answer: str = "x") -> Triple:
    return Triple(question, answer, "y", place=place)


def test_duplicates_name_both_places() -> None:
    long = "How do I boil a fresh egg so that it is soft inside and firm outside"
    rows = [
        make(f"{long}?", "a:1"),
        make("What is rice?", "a:2"),
        make(f"{long.upper()}!", "a:3"),
        make(f"{long}, please?", "a:4"),
        make("", "a:5"),
        make("🥚", "a:6"),
        make("🥚", "a:7"),
    ]
    found = find_duplicates(rows, "question")
    assert [(pair.place, pair.other) for pair in found] == [
        ("a:3", "a:1"),
        ("a:4", "a:1"),
        ("a:7", "a:6"),
    ]
    assert found[0].similarity == 1.0
    assert 0.8 <= found[1].similarity < 1.0


def test_which_part_is_compared() -> None:
    rows = [make("Eggs?", "a:1", "No."), make("Eggs?", "a:2", "Never in my life.")]
    assert len(find_duplicates(rows, "question")) == 1
    assert find_duplicates(rows, "answer") == find_duplicates(rows, "all") == []
    assert len(find_duplicates(rows, "correction")) == 1
    with pytest.raises(ConfigurationError, match="part='title' must be one of"):
        find_duplicates(rows, "title")  # type: ignore[arg-type]


def test_scripts_without_spaces() -> None:
    train = [make("如何把鸡蛋煮得外面硬里面软而且不会裂开", "t:1")]
    evaluation = [make(f"{train[0].question}吗？", "e:1"), make("米饭怎么煮", "e:2")]
    assert [leak.place for leak in find_leaks(train, evaluation)] == ["e:1"]


def test_leaks() -> None:
    train = [make("What do cats eat in winter?", "t:1"), make("Eggs?", "t:2")]
    [leak] = find_leaks(train, [make("EGGS", "e:1"), make("Rice?", "e:2")])
    assert (leak.place, leak.other, leak.text) == ("e:1", "t:2", "EGGS")
    assert leak.to_dict()["similarity"] == 1.0


def test_index_settings() -> None:
    for wrong in ({"threshold": 0.1}, {"threshold": 1.1}, {"shingle": 0}, {"permutations": 4}):
        with pytest.raises(ConfigurationError, match="must be"):
            NearIndex(**wrong)  # type: ignore[arg-type]


def make_questions(count: int, seed: int = 0) -> list[Triple]:
    rng = random.Random(seed)
    words = [f"word{n}" for n in range(60)]
    return [
        make("How do I " + " ".join(rng.choices(words, k=rng.randint(1, 9))) + "?", f"f:{n}")
        for n in range(count)
    ]


def test_found_pairs_do_not_depend_on_the_process() -> None:
    script = (
        "from tests.training.data.test_checks import make_questions\n"
        "from aligner_integrations.training.data import find_duplicates, split_triples\n"
        "rows = make_questions(300)\n"
        "pairs = find_duplicates(rows, 'question')\n"
        "parts = split_triples(rows)\n"
        "print([(p.place, p.other, p.similarity) for p in pairs])\n"
        "print([[t.place for t in part] for part in (parts.train, parts.evaluation)])\n"
    )
    outputs = [
        subprocess.run(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", script],
            capture_output=True,
            text=True,
            check=True,
            env={"PYTHONHASHSEED": seed},
        ).stdout
        for seed in ("1", "2")
    ]
    assert outputs[0] == outputs[1]
    assert "f:" in outputs[0]


def test_near_duplicates_agree_with_comparing_all() -> None:
    rows = make_questions(250)
    found = {pair.place for pair in find_duplicates(rows, "question", NearIndex(0.6))}

    def shingles(triple: Triple) -> set[tuple[str, ...]]:
        words = triple.question.rstrip("?").lower().split()
        return {tuple(words[n : n + 3]) for n in range(len(words) - 2)}

    sets = [shingles(row) for row in rows]
    wanted = {
        rows[later].place
        for later in range(len(rows))
        for earlier in range(later)
        if len(sets[later] & sets[earlier]) >= 0.6 * len(sets[later] | sets[earlier])
    }
    assert found <= wanted
    assert len(found) >= 0.9 * len(wanted) > 0


@given(st.integers(0, 1000), st.sampled_from([0.1, 0.5]))
@settings(max_examples=15)
def test_splits_do_not_leak(seed: int, share: float) -> None:
    rows = make_questions(120, seed)
    parts = split_triples(rows, share=share, seed=seed)
    assert len(parts.train) + len(parts.evaluation) + len(parts.dropped) == len(rows)
    assert find_leaks(parts.train, parts.evaluation) == []
    held = [find_content_words(triple.question) for triple in parts.evaluation]
    for triple in parts.train:
        words = find_content_words(triple.question)
        assert all(len(words & other) < 0.8 * max(len(words), len(other)) for other in held)


def test_a_question_always_falls_on_the_same_side() -> None:
    rows = make_questions(300)
    whole = {t.question for t in split_triples(rows).evaluation}
    half = {t.question for t in split_triples(rows[:150]).evaluation}
    assert half == {t.question for t in rows[:150]} & whole
    assert whole != {t.question for t in split_triples(rows, seed=1).evaluation}
    shouted = [Triple(t.question.upper(), "x", "y") for t in rows]
    assert {t.question.lower() for t in split_triples(shouted).evaluation} == {
        question.lower() for question in whole
    }


def test_dialogues_go_by_their_first_turn() -> None:
    rows = [
        Triple(f"why {turn}?", "x", "y", meta={"first_turn": f"topic{n}"})
        for n in range(40)
        for turn in range(3)
    ]
    parts = split_triples(rows, share=0.3)
    topics = [{t.topic for t in part} for part in (parts.train, parts.evaluation)]
    assert topics[1]
    assert not topics[0] & topics[1]


@pytest.mark.parametrize("wrong", [{"share": 0}, {"share": 1}, {"overlap": 0}, {"overlap": 1.1}])
def test_split_settings(wrong: dict[str, float]) -> None:
    with pytest.raises(ConfigurationError, match="must be"):
        split_triples([], **wrong)
