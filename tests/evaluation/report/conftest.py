"""Made-up cases, and a reader of pages that is strict about their tags."""

from __future__ import annotations

import random
from collections.abc import Sequence
from html.parser import HTMLParser

import pytest

from aligner_integrations.evaluation.guards import GuardMetric
from aligner_integrations.evaluation.judges.bias import PositionBias
from aligner_integrations.evaluation.records import Case, Judgement, Sample, Verdict
from aligner_integrations.evaluation.summary import Summary, summarise

_VOID = {"meta", "br", "hr", "img", "input", "link"}
_EMPTY_SVG = {"path", "use", "rect", "circle", "line"}
UPSTREAMS, ALIGNERS, DATASETS = ("big", "tiny"), ("none", "smol"), ("eggs", "tea")


class Reader(HTMLParser):
    """Reads a page: all tags must close, in order."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.texts: list[tuple[str, str]] = []
        self.rows: list[list[str]] = []
        self.feed(page)
        self.close()
        assert self.open == []
        self.text = "\n".join(text for tag, text in self.texts if tag not in ("style", "script"))
        self.ids = [attributes["id"] for _, attributes in self.tags if "id" in attributes]

    def handle_starttag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in _VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Sequence[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip():
            self.texts.append((self.open[-1] if self.open else "", data.strip()))
            if {"td", "th"} & set(self.open):
                self.rows[-1][-1] = f"{self.rows[-1][-1]} {data.strip()}".strip()


def make_cases(seed: int = 1, each: int = 12) -> list[Case]:
    """Cases of two upstreams, two aligners (one that changes nothing) and two datasets."""
    chance = random.Random(seed)
    cases = []
    for dataset in DATASETS:
        for index in range(each):
            sample = Sample(dataset, f"{dataset}-{index}", f"How long, {index}?", expected="change")
            for upstream in UPSTREAMS:
                for aligner in ALIGNERS:
                    answer = "Boil them for 3 h. " * chance.randint(1, 6) + "Good luck, fool."
                    correction = answer if aligner == "none" else answer.replace(", fool", "")
                    verdict: Verdict = (
                        "tie" if aligner == "none" else chance.choice(["win", "tie", "loss"])
                    )
                    orders = [
                        {"first": first, "verdict": verdict, "reason": f"Because of {first}."}
                        for first in ("answer", "correction")
                    ]
                    judgements = (
                        Judgement(
                            "rubric",
                            "helpful",
                            verdict,
                            details={"orders": orders, "disagreement": chance.random() < 0.2},
                        ),
                        Judgement("refusal-rule", "refusal", None, 0.0, 1.0, heuristic=True),
                    )
                    seconds = 0.0 if aligner == "none" else chance.uniform(0.2, 2)
                    cases.append(
                        Case(
                            sample,
                            upstream,
                            aligner,
                            answer,
                            correction,
                            seconds,
                            judgements=judgements,
                        )
                    )
    return cases


def make_summary(cases: Sequence[Case]) -> Summary:
    guards = [
        GuardMetric("big", "smol", "eggs", "over-correction", 3, 20, "low", False, "Changed."),
        GuardMetric("tiny", "smol", "eggs", "over-correction", 1, 20, "low", False, "Changed."),
        GuardMetric("big", "smol", "eggs", "idempotence", 19, 20, "high", True, "Same twice."),
    ]
    bias = [PositionBias("rubric", "helpful", 48, 0.875, (0.7, 0.9), 0.75, 8, 7, (0.5, 0.9), 0.03)]
    return summarise(cases, guards=guards, bias=bias)


@pytest.fixture(scope="session")
def cases() -> list[Case]:
    return make_cases()


@pytest.fixture(scope="session")
def summary(cases: list[Case]) -> Summary:
    return make_summary(cases)
