"""Looking through a data set for everything that is wrong with it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from aligner_integrations.training.data.layouts import LayoutOptions
from aligner_integrations.training.data.reading import read_outcomes
from aligner_integrations.training.data.rows import RowProblem, RowSkipped
from aligner_integrations.training.data.triples import Triple


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing that is wrong.

    Attributes:
        place: ``file:line``.
        kind: The kind of problem, for counting.
        detail: The value, the reason and the remedy.
    """

    place: str
    kind: str
    detail: str

    def __str__(self) -> str:
        return f"{self.place}: {self.kind}: {self.detail}"


@dataclass(slots=True)
class ValidationReport:
    """What was found.

    Attributes:
        rows: Rows that were read.
        usable: Rows that make a sound example.
        left_out: Rows that the layout leaves out on purpose, by reason.
        counts: Problems by kind, all of them.
        problems: The first problems, as many as were asked for.
    """

    rows: int = 0
    usable: int = 0
    left_out: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    problems: list[Problem] = field(default_factory=list)

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.counts

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "rows": self.rows,
            "usable": self.usable,
            "left_out": dict(self.left_out),
            "counts": dict(self.counts.most_common()),
            "problems": [
                {"place": p.place, "kind": p.kind, "detail": p.detail} for p in self.problems
            ],
        }


def validate(
    source: Any,
    layout: str = "auto",
    *,
    max_problems: int = 100,
    max_chars: int = 50_000,
    options: LayoutOptions | None = None,
) -> ValidationReport:
    """Read a whole data set and collect what is wrong with it.

    Besides rows that can't be read, these are problems: a text longer than ``max_chars``
    ("too long"), an answer or correction that repeats the question ("echo"), a NUL or another
    control character ("control character"), and a question and answer that stand there twice with
    different corrections ("contradiction").

    Args:
        source: As for `read_triples`.
        layout: As for `read_triples`.
        max_problems: How many problems to keep in full; all are counted.
        max_chars: Characters that a question, an answer or a correction may have.
        options: What the layout's converter is told.

    Raises:
        DataError: The source can't be read at all, is empty, or no layout fits its fields.

    Example:
        >>> good = {"question": "Eggs?", "answer": "No.", "correction": "Boil them."}
        >>> report = validate([good, {**good, "answer": ""}])
        >>> str(report.problems[0])
        "list:2: empty: 'answer' is ''; leave the row out"
    """
    report = ValidationReport()
    seen: dict[int, tuple[int, str]] = {}
    for place, outcome in read_outcomes(source, layout, options):
        report.rows += 1
        if isinstance(outcome, RowSkipped):
            report.left_out[str(outcome)] += 1
            continue
        problem = (
            outcome
            if isinstance(outcome, RowProblem)
            else _look(outcome, max_chars) or _compare(outcome, seen)
        )
        if problem is None:
            report.usable += 1
            continue
        report.counts[problem.kind] += 1
        if len(report.problems) < max_problems:
            report.problems.append(Problem(place, problem.kind, problem.detail))
    return report


_CONTROL = {chr(code) for code in range(32)} - set("\t\n\r\f") | {"\x7f"}


def _look(triple: Triple, max_chars: int) -> RowProblem | None:
    for name in ("question", "answer", "correction"):
        text: str = getattr(triple, name)
        if len(text) > max_chars:
            return RowProblem(
                "too long",
                f"{name!r} has {len(text)} characters, more than {max_chars}; cut or leave it out",
            )
        if bad := _CONTROL.intersection(text):
            return RowProblem(
                "control character",
                f"{name!r} holds {min(bad)!r}, which no model writes; remove it",
            )
        if name != "question" and text.strip() == triple.question.strip():
            return RowProblem("echo", f"{name!r} repeats the question {text!r:.60}; leave it out")
    return None


def _compare(triple: Triple, seen: dict[int, tuple[int, str]]) -> RowProblem | None:
    # Hashes instead of texts: a data set of gigabytes shall not be held.
    correction = hash(triple.correction)
    earlier = seen.setdefault(hash((triple.question, triple.answer)), (correction, triple.place))
    if earlier[0] == correction:
        return None
    return RowProblem(
        "contradiction",
        f"the same question and answer have another correction at {earlier[1]}; keep one",
    )
