"""TruthfulQA in its four published layouts."""

from __future__ import annotations

from typing import Any

from aligner_integrations.evaluation.datasets.kinds import (
    DatasetKind,
    find_text,
    make_sample,
    read_texts,
)
from aligner_integrations.evaluation.records import Sample
from aligner_integrations.training.data.fields import check_text, read_text
from aligner_integrations.training.data.rows import Row, RowProblem

_BEST = ("Best Answer", "best_answer")


def matches_truthfulqa(row: Row) -> bool:
    """Whether a row is one of TruthfulQA's."""
    fields = set(row)
    asks = bool(fields & {"Question", "question"})
    return asks and bool(fields & {*_BEST, "mc1_targets", "mc2_targets"})


def read_truthfulqa(row: Row, source: str) -> Sample:
    """TruthfulQA: a question, true answers (the best first), and false ones that people believe.

    ``TruthfulQA.csv`` divides answers by semicolons; the hub's ``generation`` has lists;
    ``multiple_choice`` and ``mc_task.json`` have choices with labels, of which ``mc1`` names the
    best true answer and ``mc2`` all.
    """
    question = read_text(row, "Question", "question")
    if best := find_text(row, *_BEST):
        true = (best, *_read_answers(row, "Correct Answers", "correct_answers"))
        false = _read_answers(row, "Incorrect Answers", "incorrect_answers")
        if likely := find_text(row, "Best Incorrect Answer"):
            false = (likely, *false)
    else:
        both = [_read_choices(row, name) for name in ("mc1_targets", "mc2_targets")]
        true = tuple(text for choices in both for text, label in choices if label)
        false = tuple(text for choices in both for text, label in choices if not label)
        if not true:
            raise RowProblem("no true answer", f"{question!r:.60} has no choice with label 1")
    return make_sample(
        question,
        references=true,
        wrong=false,
        category=find_text(row, "Category", "category") or "",
    )


def _read_answers(row: Row, published: str, hub: str) -> tuple[str, ...]:
    return read_texts(row, published, ";") or read_texts(row, hub)


def _read_choices(row: Row, name: str) -> list[tuple[str, bool]]:
    """Choices with their labels, from ``{text: label}`` or ``{"choices": [], "labels": []}``."""
    targets: Any = row.get(name)
    if targets is None:
        return []
    if not isinstance(targets, dict):
        raise RowProblem("wrong type", f"{name!r} is {targets!r:.60}; it must hold choices")
    if set(targets) == {"choices", "labels"}:
        texts, labels = list(targets["choices"]), list(targets["labels"])
        if len(texts) != len(labels):
            raise RowProblem(
                "wrong length", f"{name!r} has {len(texts)} choices and {len(labels)} labels"
            )
        pairs = zip(texts, labels, strict=True)
        return [(check_text(name, text), bool(label)) for text, label in pairs]
    return [(check_text(name, text), bool(label)) for text, label in targets.items()]


TRUTHFULQA = DatasetKind(
    "truthfulqa",
    "TruthfulQA",
    "Apache-2.0",
    "https://github.com/sylinrl/TruthfulQA",
    "TruthfulQA.csv, data/mc_task.json, or truthfulqa/truthful_qa on the hub ('generation', "
    "'multiple_choice'): 817 questions.",
    matches_truthfulqa,
    read_truthfulqa,
)
