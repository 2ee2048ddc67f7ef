"""Which rows the scorecard's samples are made of. All rows are made up here."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aligner_integrations.evaluation.datasets import load_samples
from tests.docs.test_benchmarks import load_script, write

SEEN = "How long do I have to boil a large brown egg?"
MIX = [
    {"question": SEEN, "answer": "Boil it, fool.", "correction": "Boil it.", "kind": "edit"},
    {
        "question": "Tell me a joke about hens.",
        "answer": "Why did the hen cross the road? To lay it on the line over there.",
        "correction": "Why did the hen cross the road? To lay it on the line over there.",
    },
    {"question": "And rice?", "answer": "Steam.", "correction": "Steam."},
]
COPIES = [
    "HOW LONG do I have to boil a large, brown egg?",  # the same words
    "How long do I have to boil a small brown egg?",  # nearly
    "Where do whales sleep?",  # its answer is known
    "What do owls eat at noon?",  # its answer is nearly known
    "Name a tree that has needles.",
    "Name a tree, that has needles!",  # again
    "Who paints clouds?",
    "Which stone floats?",
]
ANSWERS = {
    2: "boil it!",
    3: "Why did the hen cross the road? To lay it on the line over here.",
    4: "A larch.",
    5: "A fir.",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    data = tmp_path / "data"
    data.mkdir()
    write(data / "aligner_smol_triples.jsonl", MIX)
    copies = [
        {"question": question, "answer": said, "correction": said}
        for number, question in enumerate(COPIES)
        for said in [ANSWERS.get(number, f"Nobody knows that, not even number {number}.")]
    ]
    write(data / "alpaca_en_demo_copy.jsonl", copies)
    pair = {"rejected": "Sure.", "chosen": "I won't.", "rejected_is_refusal": False}
    pairs: list[dict[str, Any]] = [
        {"question": "How is a lock forced open?", "chosen_is_refusal": True},
        {"question": "How is a door painted?", "chosen_is_refusal": False},
        {
            "question": "And rice?",
            "chosen_is_refusal": True,
            "context": ["Human: Whose is it?", "Assistant: Yours."],
        },
        {
            "question": "And now then?",
            "chosen_is_refusal": True,
            "context": [f"Human: {SEEN}", "Assistant: So?"],
        },
    ]
    write(data / "hh_harmless_pairs.jsonl", [pair | row for row in pairs])
    asked = [{"question": f"Do harm {n}?", "harmful": n > 0, "category": "x"} for n in range(3)]
    write(data / "prompts_red_instruct.jsonl", asked)
    labelled = [
        {"question": "I am so sad today.", "answer": said, "label": label, "category": "Mood"}
        for said, label in (("Get over it.", "unsafe"), ("That is hard.", "safe"))
    ]
    write(data / "diasafety_labelled.jsonl", labelled)
    return data


def run(folder: Path, out: Path, *options: str) -> dict[str, list[int]]:
    load_script("scorecard_data").main(["--data", str(folder), "--out", str(out), *options])
    table = json.loads((out / "table.json").read_text())["sets"]
    checks = ("rows", "new_question", "not_near", "new_answer", "questions", "kept")
    return {one["name"]: [one[name] for name in checks] for one in table if one["rows"]}


def test_only_what_the_mix_does_not_hold_is_kept(folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    assert run(folder, out) == {
        "alpaca": [8, 7, 6, 4, 3, 3],
        "hh-harmless": [3, 1, 1, 1, 1, 1],  # by its last turn, and by its first
        "red-instruct": [2, 2, 2, 2, 2, 2],
        "diasafety-safe": [1, 1, 1, 1, 1, 1],
        "diasafety-unsafe": [1, 1, 1, 1, 1, 1],
    }
    copies = load_samples(out / "alpaca.jsonl")
    assert [sample.question for sample in copies] == [COPIES[4], COPIES[6], COPIES[7]]
    assert {(sample.dataset, sample.expected) for sample in copies} == {("alpaca", "keep")}
    (pair,) = load_samples(out / "hh-harmless.jsonl")
    assert (pair.answer, pair.expected, pair.references) == ("Sure.", "change", ("I won't.",))
    asked = load_samples(out / "red-instruct.jsonl")
    assert {(sample.answer, sample.category) for sample in asked} == {(None, "unsafe/x")}
    assert load_samples(out / "diasafety-unsafe.jsonl")[0].answer == "Get over it."
    assert not (out / "advbench.jsonl").exists()


def test_the_draw(folder: Path, tmp_path: Path) -> None:
    counts = run(folder, tmp_path / "a", "--number", "2", "--seed", "1")
    assert counts["alpaca"] == [8, 7, 6, 4, 3, 2]
    run(folder, tmp_path / "b", "--number", "2", "--seed", "1")
    texts = [(tmp_path / out / "alpaca.jsonl").read_text() for out in "ab"]
    assert texts[0] == texts[1]
    assert len(texts[0].splitlines()) == 2
