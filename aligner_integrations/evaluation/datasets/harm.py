"""Datasets about harm: XSTest, JailbreakBench, BeaverTails, HarmfulQA."""

from __future__ import annotations

from typing import Any

from aligner_integrations.evaluation.datasets.kinds import (
    SAFE,
    UNSAFE,
    DatasetKind,
    find_text,
    has_fields,
    make_sample,
    read_label,
)
from aligner_integrations.evaluation.records import Expectation, Sample
from aligner_integrations.training.data.fields import read_flag, read_text
from aligner_integrations.training.data.rows import Row, RowProblem, RowSkipped

_COMPLIANCE = {
    "1_full_compliance": "complied",
    "2_full_refusal": "refused",
    "3_partial_refusal": "partly",
}
_XSTEST: dict[tuple[bool, str], Expectation] = {
    (True, "complied"): "keep",
    (False, "complied"): "change",
    (False, "refused"): "keep",
}


def read_xstest(row: Row, source: str) -> Sample:
    """XSTest: a prompt that is safe but looks unsafe, or its unsafe contrast.

    Types that begin with ``contrast_`` are unsafe. With the completions of a model, which humans
    labelled, what complies with a safe prompt or refuses an unsafe one is to be kept, and what
    complies with an unsafe one changed; of refused safe prompts and partial refusals nothing is
    expected.
    """
    kind = read_text(row, "type")
    safe = not kind.startswith("contrast_")
    if (label := find_text(row, "label")) in (SAFE, UNSAFE):
        safe = label == SAFE
    answer = find_text(row, "completion")
    expected = None
    if answer is not None and find_text(row, "final_label") is not None:
        expected = _XSTEST.get((safe, read_label(row, "final_label", _COMPLIANCE)))
    return make_sample(
        read_text(row, "prompt"),
        answer,
        name=row.get("id_v2") or row.get("id"),
        expected=expected,
        category=f"{SAFE if safe else UNSAFE}/{kind}",
    )


def read_artifact(row: Row, source: str) -> Sample:
    """JailbreakBench's artifacts: what an attack asked a model, and what that answered.

    A response that the benchmark's judge calls a jailbreak is to be changed. Of the others nothing
    is expected: they are refusals, but evasions and nonsense as well. Goals for which no prompt
    was submitted are left out.
    """
    if row.get("prompt") is None or row.get("response") is None:
        raise RowSkipped("no prompt was submitted for this goal")
    jailbroken = read_flag(row, "jailbroken")
    parts = [row.get("method"), row.get("model"), row.get("index")]
    return make_sample(
        read_text(row, "prompt"),
        read_text(row, "response"),
        name="-".join(str(part) for part in parts if part is not None) or None,
        expected="change" if jailbroken else None,
        category=f"{UNSAFE}/{find_text(row, 'category') or 'jailbreak'}",
    )


def read_behaviour(row: Row, source: str) -> Sample:
    """JBB-Behaviors: goals without answers; the file's or split's name tells harmful from benign.

    The published ``Target``, the first words of a compliant answer, is no answer and is left out.
    """
    category = find_text(row, "Category", "category") or ""
    for word, label in (("benign", SAFE), ("harmful", UNSAFE)):
        if word in source:
            category = f"{label}/{category}"
            break
    return make_sample(read_text(row, "Goal"), name=row.get("Index"), category=category)


def read_beavertails_evaluation(row: Row, source: str) -> Sample:
    """BeaverTails-Evaluation: prompts in 14 categories of harm, without answers."""
    return make_sample(read_text(row, "prompt"), category=read_text(row, "category"))


def read_beavertails(row: Row, source: str) -> Sample:
    """BeaverTails itself: answers that humans labelled safe (keep) or unsafe (change)."""
    safe = read_flag(row, "is_safe")
    return make_sample(
        read_text(row, "prompt"),
        read_text(row, "response"),
        expected="keep" if safe else "change",
        category=_join_categories(row.get("category")),
    )


def _join_categories(value: Any) -> str:
    if value is None or isinstance(value, str):
        return value or ""
    if not isinstance(value, dict):
        raise RowProblem(
            "wrong type", f"'category' is {value!r:.60}; it must be true/false by name"
        )
    return ", ".join(str(name) for name, holds in value.items() if holds)


def read_harmfulqa(row: Row, source: str) -> Sample:
    """HarmfulQA: harmful questions by topic.

    Its blue and red conversations are role plays of several turns, no answers to the question; they
    are left out.
    """
    parts = [find_text(row, "topic"), find_text(row, "subtopic")]
    return make_sample(
        read_text(row, "question"),
        name=row.get("id"),
        category="/".join([UNSAFE, *filter(None, parts)]),
    )


XSTEST = DatasetKind(
    "xstest",
    "XSTest",
    "CC-BY-4.0 (prompts); completions: terms of Meta, Mistral and OpenAI",
    "https://github.com/paul-rottger/exaggerated-safety",
    "xstest_prompts.csv, or model_completions/xstest_v2_completions_*.csv, whose answers are cut "
    "where they are long; two people labelled each.",
    lambda row: (
        {"prompt", "type"} <= set(row) and bool({"focus", "label", "final_label"} & set(row))
    ),
    read_xstest,
)
ARTIFACTS = DatasetKind(
    "jailbreakbench",
    "JailbreakBench artifacts",
    "MIT",
    "https://github.com/JailbreakBench/artifacts",
    "attack-artifacts/METHOD/TYPE/MODEL.json. Responses were cut at 150 tokens; whether one is a "
    "jailbreak was decided by a model, not by people.",
    has_fields("prompt", "response", "jailbroken"),
    read_artifact,
)
BEHAVIOURS = DatasetKind(
    "jbb-behaviors",
    "JailbreakBench behaviours",
    "MIT",
    "https://huggingface.co/datasets/JailbreakBench/JBB-Behaviors",
    "data/harmful-behaviors.csv and data/benign-behaviors.csv (the hub's configuration "
    "'behaviors'): 100 questions each, which match each other.",
    has_fields("Goal", "Target", "Behavior"),
    read_behaviour,
)
BEAVERTAILS_EVALUATION = DatasetKind(
    "beavertails-evaluation",
    "BeaverTails-Evaluation",
    "CC-BY-NC-4.0",
    "https://huggingface.co/datasets/PKU-Alignment/BeaverTails-Evaluation",
    "test.json: 700 questions, 50 in each of 14 categories, most of them harmful.",
    has_fields("prompt", "category", "category_id"),
    read_beavertails_evaluation,
)
BEAVERTAILS = DatasetKind(
    "beavertails",
    "BeaverTails",
    "CC-BY-NC-4.0",
    "https://huggingface.co/datasets/PKU-Alignment/BeaverTails",
    "round0/30k or 330k, test.jsonl.gz. A safe answer is not always a good one, so over-correction "
    "is overstated.",
    has_fields("prompt", "response", "is_safe"),
    read_beavertails,
)
HARMFULQA = DatasetKind(
    "harmfulqa",
    "HarmfulQA",
    "Apache-2.0",
    "https://huggingface.co/datasets/declare-lab/HarmfulQA",
    "data_for_hub.json: 1960 questions that a model wrote.",
    lambda row: (
        "question" in row and ("blue_conversations" in row or {"topic", "subtopic"} <= set(row))
    ),
    read_harmfulqa,
)
