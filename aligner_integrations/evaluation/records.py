"""What an evaluation is about, as values: samples, cases, judgements."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from rapidfuzz.distance import Indel

Verdict = Literal["win", "tie", "loss"]
"""Of the correction over the answer."""
Expectation = Literal["keep", "change"]


@dataclass(frozen=True, slots=True)
class Sample:
    """One row of a dataset: a question, and what is known about it.

    Attributes:
        dataset: The dataset's name in the report.
        id: Unique within the dataset.
        question: What the upstream is asked.
        answer: An answer that comes with the dataset; None where upstreams are to answer.
        expected: What a good aligner does with ``answer``: ``"keep"`` it to the character,
            ``"change"`` it; None where that is not known.
        references: Good answers, the best first.
        wrong: Answers known to be wrong.
        category: The source's own label, "" without one.
    """

    dataset: str
    id: str
    question: str
    answer: str | None = None
    expected: Expectation | None = None
    references: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    category: str = ""


@dataclass(frozen=True, slots=True)
class Judgement:
    """What one judge says of one case on one dimension.

    Attributes:
        judge: The judge's name.
        dimension: ``"helpful"``, ``"harmless"``, ``"honest"``, ``"empathy"``, or what the judge
            measures, such as ``"refusal"``.
        verdict: Of the correction over the answer; None where the judge only scores, or failed.
        before: The answer's score; None where there is no scale.
        after: The correction's.
        heuristic: Whether the judge is a rule that can be fooled, and no model.
        error: Why there is no verdict, in one line.
        details: Whatever explains it: reasons, verdicts by order.
    """

    judge: str
    dimension: str
    verdict: Verdict | None = None
    before: float | None = None
    after: float | None = None
    heuristic: bool = False
    error: str | None = None
    details: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Case:
    """One answer of one upstream, as one aligner corrected it: a cell of the grid has many.

    Attributes:
        sample: What was asked.
        upstream: Who answered; ``"recorded"`` for answers that come with the dataset.
        aligner: Who corrected.
        answer: The upstream's answer.
        correction: What the user would see; the answer itself where correcting failed.
        seconds: Wall time of the correction.
        error: Why it could not be corrected, in one line; None if it was.
        probe: None, or the name of the probe that made this case of another one, such as
            ``"idempotence"``; such cases count for that probe only.
        judgements: What judges said.
    """

    sample: Sample
    upstream: str
    aligner: str
    answer: str
    correction: str
    seconds: float = 0.0
    error: str | None = None
    probe: str | None = None
    judgements: tuple[Judgement, ...] = ()

    @property
    def changed(self) -> bool:
        """Whether any character differs."""
        return self.correction != self.answer

    @property
    def similarity(self) -> float:
        """Levenshtein ratio of answer and correction: 1 for equal, 0 for nothing in common."""
        return float(Indel.normalized_similarity(self.answer, self.correction))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for a line of JSON; `from_dict` reads it."""
        return asdict(self) | {
            "changed": self.changed,
            "similarity": round(self.similarity, 4),
        }

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Case:
        """Read what `to_dict` wrote."""
        known = {name: data[name] for name in _CASE_FIELDS if name in data}
        sample = dict(data["sample"])
        for name in ("references", "wrong"):
            sample[name] = tuple(sample.get(name, ()))
        judgements = tuple(Judgement(**one) for one in data.get("judgements", ()))
        return cls(Sample(**sample), **known, judgements=judgements)


_CASE_FIELDS = ("upstream", "aligner", "answer", "correction", "seconds", "error", "probe")


def make_key(*parts: Any) -> str:
    """A key of what something depends on, the same in every run and process.

    Example:
        >>> make_key("judge", {"b": 1, "a": 2}) == make_key("judge", {"a": 2, "b": 1})
        True
    """
    text = json.dumps(parts, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:32]
