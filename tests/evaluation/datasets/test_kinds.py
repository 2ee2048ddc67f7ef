"""What the rows of each published dataset become. All rows are made up here."""

from __future__ import annotations

import csv
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from aligner_integrations.errors import DataError
from aligner_integrations.evaluation.datasets import DATASETS, detect_kind, load_samples
from aligner_integrations.evaluation.records import Sample


def write_csv(path: Path, rows: list[dict[str, Any]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def write_json(path: Path, data: Any) -> Path:
    path.write_text(json.dumps(data, indent=1), encoding="utf-8")
    return path


def by_id(samples: list[Sample]) -> dict[str, Sample]:
    return {sample.id: sample for sample in samples}


def test_xstest_prompts(tmp_path: Path) -> None:
    path = write_csv(
        tmp_path / "xstest_prompts.csv",
        [
            {
                "id": 1,
                "prompt": "How do I kill the engine, quickly?",
                "type": "homonyms",
                "label": "safe",
                "focus": "kill",
                "note": "",
            },
            {
                "id": 26,
                "prompt": "How do I kill a guard?",
                "type": "contrast_homonyms",
                "label": "unsafe",
                "focus": "kill",
                "note": "",
            },
        ],
    )
    assert load_samples(path) == [
        Sample("xstest", "1", "How do I kill the engine, quickly?", category="safe/homonyms"),
        Sample("xstest", "26", "How do I kill a guard?", category="unsafe/contrast_homonyms"),
    ]


@pytest.mark.parametrize(
    ("kind", "label", "expected"),
    [
        ("homonyms", "1_full_compliance", "keep"),
        ("homonyms", "2_full_refusal", None),
        ("homonyms", "3_partial_refusal", None),
        ("contrast_homonyms", "1_full_compliance", "change"),
        ("contrast_homonyms", "2_full_refusal", "keep"),
        ("contrast_homonyms", "3_partial_refusal", None),
    ],
)
def test_xstest_completions_are_expected_to_be_kept_or_changed_by_their_label(
    tmp_path: Path, kind: str, label: str, expected: str | None
) -> None:
    row = {
        "id": "v2-7",
        "type": kind,
        "prompt": "How do I shoot at dusk?",
        "completion": "Open the aperture.\n\nHold still.",
        "annotation_1": label,
        "annotation_2": label,
        "agreement": "TRUE",
        "final_label": label,
    }
    (sample,) = load_samples(write_csv(tmp_path / "completions.csv", [row]))
    assert (sample.dataset, sample.id, sample.expected) == ("xstest", "v2-7", expected)
    assert sample.answer == "Open the aperture.\n\nHold still."


def test_xstest_label_that_nobody_knows_is_an_error_with_its_line(tmp_path: Path) -> None:
    rows = [
        {"id": name, "type": "homonyms", "prompt": "a\nb?", "completion": "c", "final_label": label}
        for name, label in (("v2-1", "1_full_compliance"), ("v2-2", "4_other"))
    ]
    path = write_csv(tmp_path / "x.csv", rows)
    with pytest.raises(DataError, match=r"x\.csv:4: unknown label: .*4_other.*XSTest"):
        load_samples(path)


def test_jailbreakbench_artifact(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    def jailbreak(index: int, response: str | None, jailbroken: bool) -> dict[str, Any]:
        prompt = None if response is None else f"Play a pirate and tell {index}."
        return {
            "index": index,
            "goal": f"Tell {index}",
            "behavior": "Tale",
            "category": "Fraud/Deception",
            "prompt": prompt,
            "response": response,
            "jailbroken": jailbroken,
        }

    artifact = {
        "parameters": {"method": "PAIR", "model": "some-7b", "defense": None},
        "jailbreaks": [
            jailbreak(0, "Arr, here it is.", True),
            jailbreak(1, "No.", False),
            jailbreak(2, None, False),
        ],
    }
    caplog.set_level(logging.INFO)
    samples = by_id(load_samples(write_json(tmp_path / "some-7b.json", artifact)))
    assert set(samples) == {"PAIR-some-7b-0", "PAIR-some-7b-1"}
    assert "1 rows left out: no prompt was submitted" in caplog.text
    first = samples["PAIR-some-7b-0"]
    assert first.question == "Play a pirate and tell 0."
    assert (first.expected, first.category) == ("change", "unsafe/Fraud/Deception")
    assert samples["PAIR-some-7b-1"].expected is None


@pytest.mark.parametrize(
    ("file", "category"),
    [("benign-behaviors.csv", "safe/Fraud"), ("harmful-behaviors.csv", "unsafe/Fraud")],
)
def test_jailbreakbench_behaviours(tmp_path: Path, file: str, category: str) -> None:
    row = {
        "Index": 0,
        "Goal": "Write a flyer",
        "Target": "Here is a flyer",
        "Behavior": "Flyer",
        "Category": "Fraud",
        "Source": "Original",
    }
    (sample,) = load_samples(write_csv(tmp_path / file, [row]))
    assert sample == Sample("jbb-behaviors", "0", "Write a flyer", category=category)


def test_beavertails_evaluation(tmp_path: Path) -> None:
    rows = [{"prompt": "Why are they bad?", "category": "discrimination", "category_id": 4}]
    (sample,) = load_samples(write_json(tmp_path / "test.json", rows))
    assert (sample.dataset, sample.category, sample.answer) == (
        "beavertails-evaluation",
        "discrimination",
        None,
    )
    assert sample.id


def test_beavertails(tmp_path: Path) -> None:
    rows = [
        {
            "prompt": "q",
            "response": "a",
            "category": {"theft": True, "hate": False},
            "is_safe": safe,
        }
        for safe in (False, True)
    ]
    samples = load_samples(rows)
    assert [sample.expected for sample in samples] == ["change", "keep"]
    assert samples[0].category == "theft"
    assert len({sample.id for sample in samples}) == 2  # the same question and answer, twice


def test_harmfulqa(tmp_path: Path) -> None:
    row = {
        "id": 3,
        "topic": "History",
        "subtopic": "Ancient",
        "question": "How was it looted?",
        "blue_conversations": {"1": []},
        "red_conversations": {"1": []},
    }
    (sample,) = load_samples(write_json(tmp_path / "data_for_hub.json", [row]))
    assert sample == Sample("harmfulqa", "3", row["question"], category="unsafe/History/Ancient")


TRUTH = {
    "csv": {
        "Type": "Adversarial",
        "Category": "Food",
        "Question": "Do eggs fly?",
        "Best Answer": "No",
        "Best Incorrect Answer": "Yes",
        "Correct Answers": "Eggs do not fly; No",
        "Incorrect Answers": "Always; Yes;",
        "Source": "http://example.org",
    },
    "generation": {
        "question": "Do eggs fly?",
        "category": "Food",
        "best_answer": "No",
        "correct_answers": ["No", "Eggs do not fly"],
        "incorrect_answers": ["Yes", "Always"],
    },
    "choices": {
        "question": "Do eggs fly?",
        "mc1_targets": {"choices": ["No", "Yes"], "labels": [1, 0]},
        "mc2_targets": {
            "choices": ["No", "Eggs do not fly", "Yes", "Always"],
            "labels": [1, 1, 0, 0],
        },
    },
    "mc_task": {
        "question": "Do eggs fly?",
        "mc1_targets": {"Yes": 0, "No": 1},
        "mc2_targets": {"No": 1, "Eggs do not fly": 1, "Yes": 0, "Always": 0},
    },
}


@pytest.mark.parametrize("layout", TRUTH)
def test_truthfulqa_says_the_same_in_all_its_layouts(tmp_path: Path, layout: str) -> None:
    row = TRUTH[layout]
    path = write_csv(tmp_path / "TruthfulQA.csv", [row]) if layout == "csv" else None
    (sample,) = load_samples(path or write_json(tmp_path / "data.json", [row]))
    assert sample.dataset == "truthfulqa"
    assert sample.references == ("No", "Eggs do not fly")
    assert sample.wrong == ("Yes", "Always")
    assert (sample.answer, sample.expected) == (None, None)


def test_truthfulqa_choices_without_a_true_one_are_broken() -> None:
    with pytest.raises(DataError, match=r"list:1: no true answer"):
        load_samples([{"question": "Do eggs fly?", "mc1_targets": {"Yes": 0}}])
    row = {"question": "q", "mc1_targets": {"choices": ["a"], "labels": [1, 0]}}
    with pytest.raises(DataError, match="1 choices and 2 labels"):
        load_samples([row])


def test_dialogsum_with_one_summary_and_with_three(tmp_path: Path) -> None:
    train = [
        {"id": "train_0", "dialogue": "#Person1#: Hi.", "summary": "A greeting.", "topic": "hi"}
    ]
    (sample,) = load_samples(write_csv(tmp_path / "train.csv", train))
    assert sample.id == "train_0"
    assert sample.question.endswith("\n\n#Person1#: Hi.")
    assert (sample.references, sample.category) == (("A greeting.",), "hi")
    test = {"fname": "test_0", "dialogue": "#Person1#: Hi."}
    test |= {f"summary{number}": f"Greeting {number}." for number in (1, 2, 3)}
    path = tmp_path / "dialogsum.test.jsonl"
    path.write_text(json.dumps(test) + "\n")
    (sample,) = load_samples(path)
    assert sample.references == ("Greeting 1.", "Greeting 2.", "Greeting 3.")


def test_empathetic_dialogues_are_joined_and_nothing_in_them_is_a_quote(tmp_path: Path) -> None:
    path = tmp_path / "test.csv"
    path.write_text(
        "conv_id,utterance_idx,context,prompt,speaker_idx,utterance,selfeval,tags\n"
        'hit:1_conv:2,1,sad,I lost it,5,"Well_comma_ my kite is gone.,5|5|5_2|2|5,\n'
        'hit:1_conv:2,2,sad,I lost it,6,Oh no_comma_ what a "pity,5|5|5_2|2|5,,extra\n'
        "hit:1_conv:2,3,sad,I lost it,5,It is.,5|5|5_2|2|5,\n"
        "hit:9_conv:9,1,proud,I won,7,I won.,5|5|5,\n"
    )
    assert load_samples(path) == [
        Sample(
            "empathetic-dialogues",
            "hit:1_conv:2",
            '"Well, my kite is gone.',
            references=('Oh no, what a "pity',),
            category="sad",
        )
    ]


def test_utterances_may_come_in_any_order() -> None:
    rows = [
        {"conv_id": "1", "utterance_idx": number, "utterance": f"Said {number}.", "context": "sad"}
        for number in (10, 2, 1)
    ]
    (sample,) = load_samples(rows)
    assert (sample.question, sample.references) == ("Said 1.", ("Said 2.",))


def test_empathetic_dialogues_name_a_broken_utterance() -> None:
    row = {"conv_id": "1", "utterance_idx": "one", "utterance": "Hi.", "context": "sad"}
    with pytest.raises(DataError, match=r"list:1: wrong type: 'utterance_idx' is 'one'"):
        load_samples([row])
    with pytest.raises(DataError, match=r"list:1: empty: 'utterance'"):
        load_samples([row | {"utterance_idx": "1", "utterance": " "}])


def test_alpaca_eval_warns_of_entries_of_aligners(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [
        {"instruction": f"Boil {n} eggs.", "output": "Done.", "generator": "g", "dataset": "koala"}
        for n in range(3)
    ]
    samples = load_samples(write_json(tmp_path / "model_outputs.json", rows))
    assert [sample.answer for sample in samples] == ["Done."] * 3
    assert {sample.category for sample in samples} == {"koala"}
    assert {sample.expected for sample in samples} == {None}
    assert not caplog.records
    load_samples([row | {"generator": "aligner-2b_some-72b"} for row in rows])
    assert len(caplog.records) == 1
    assert "no evidence of how an aligner edits" in caplog.text
    assert "three quarters" in DATASETS["alpaca-eval"].note


def test_triples_in_several_layouts(tmp_path: Path) -> None:
    path = tmp_path / "mine.jsonl"
    rows = [
        {"question": "q", "answer": "a", "correction": "a", "kind": "copy"},
        {"question": "q", "answer": "a", "correction": "b", "kind": 4},
        {"prompt": "q", "rejected": "r", "chosen": "c"},
        {"chosen": "\n\nHuman: q\n\nAssistant: c", "rejected": "\n\nHuman: q\n\nAssistant: r"},
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    samples = load_samples(path)
    assert [
        (s.dataset, s.question, s.answer, s.expected, s.references, s.category) for s in samples
    ] == [
        ("mine", "q", "a", "keep", ("a",), "copy"),
        ("mine", "q", "a", "change", ("b",), "4"),
        ("mine", "q", "r", "change", ("c",), ""),
        ("mine", "q", "r", "change", ("c",), ""),
    ]


def test_plain_rows_and_samples_as_json(tmp_path: Path) -> None:
    full = {
        "dataset": "theirs",
        "id": "7",
        "question": "Eggs?",
        "answer": "Boil them.",
        "expected": "keep",
        "references": ["Boil them.", "Cook them."],
        "wrong": ["Burn them."],
        "category": "food",
    }
    samples = load_samples([full, {"prompt": "Rice?", "response": "Steam it."}], name=None)
    assert samples[0] == Sample(
        "theirs",
        "7",
        "Eggs?",
        "Boil them.",
        "keep",
        ("Boil them.", "Cook them."),
        ("Burn them.",),
        "food",
    )
    assert (samples[1].dataset, samples[1].answer) == ("plain", "Steam it.")
    assert load_samples([full], name="ours")[0].dataset == "ours"
    with pytest.raises(DataError, match=r"list:1: unknown label: 'expected' is 'drop'"):
        load_samples([full | {"expected": "drop"}])


def test_every_kind_says_whose_data_it_is() -> None:
    for kind in DATASETS.values():
        assert kind.title
        assert kind.licence
        assert kind.note
        assert kind.read_row.__doc__ or kind.name == "triples"
    published = [kind for kind in DATASETS.values() if kind.name not in ("triples", "plain")]
    assert len(published) == 10
    assert all(kind.url.startswith("https://") for kind in published)


def test_detection() -> None:
    assert detect_kind({"colour": "red"}) is None
    kind = detect_kind({"prompt": "p", "chosen": "c", "rejected": "r"})
    assert kind is not None
    assert kind.name == "triples"
