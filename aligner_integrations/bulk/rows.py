"""Rows of an input file, what is to be done with them, and what became of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from aligner_integrations.correction import Correction
from aligner_integrations.training.data.rows import RowProblem

QUESTION_FIELDS = ("question", "prompt")
ANSWER_FIELDS = ("answer", "response")
RECORD_NAMES = ("changed", "similarity", "model", "policy", "error", "skipped", "lost", "strength")
"""Of `Correction.record`, what goes into a row. The seconds don't: most of them are waiting for
the batch, and without them the same input gives the same bytes."""

_OUTAGES = ("ServerError:", "QueueFullError:")


@dataclass(frozen=True, slots=True)
class SourceRow:
    """One row of the input.

    Attributes:
        number: Its number, from 1; what is blank is no row.
        place: ``file:line``.
        fields: Its fields; none if it can't be read.
        raw: Its line of JSON, where the file has such lines.
        problem: Why it can't be read.
    """

    number: int
    place: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    raw: bytes = b""
    problem: RowProblem | None = None


@dataclass(frozen=True, slots=True)
class Columns:
    """Which fields hold the texts, and which take the result.

    Attributes:
        question: Names to look for; the first that a row has counts.
        answer: The same for the answer.
        correction: Where the corrected answer goes.
        record: Where the record goes.
    """

    question: tuple[str, ...] = QUESTION_FIELDS
    answer: tuple[str, ...] = ANSWER_FIELDS
    correction: str = "correction"
    record: str = "aligner"

    def read(self, row: SourceRow) -> tuple[str, str]:
        """Question and answer of a row.

        Raises:
            RowProblem: The row can't be read, lacks one, has something else in its place, or has
                a field where the result is to go.
        """
        if row.problem is not None:
            raise row.problem
        for name, option in ((self.correction, "correction"), (self.record, "record")):
            if name in row.fields:
                raise RowProblem(
                    "field in the way",
                    f"there is a field {name!r} already; name another with --{option}-field",
                )
        question = _find_text(row.fields, self.question, "question")
        return question, _find_text(row.fields, self.answer, "answer")


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a row; plain data, so that it can come from another machine.

    Attributes:
        text: The corrected answer; None if it failed.
        record: Of `RECORD_NAMES`, what is known.
        reason: Why it failed.
        outage: The reason lies hardly in the row: the server is away, or has too much to do.
    """

    text: str | None
    record: dict[str, Any] = field(default_factory=dict)
    reason: str = ""
    outage: bool = False

    @classmethod
    def from_correction(cls, correction: Correction) -> Outcome:
        """The outcome of a row that went well, or to which a policy applied."""
        record = {"strength": 0.0} | correction.record()
        kept = {name: record[name] for name in RECORD_NAMES}
        outage = (correction.error or "").startswith(_OUTAGES)
        return cls(correction.text, kept, outage=outage)

    @classmethod
    def from_error(cls, error: Exception) -> Outcome:
        """The outcome of a row that failed."""
        reason = f"{type(error).__name__}: {error}"
        return cls(None, reason=reason, outage=reason.startswith(_OUTAGES))


@dataclass(frozen=True, slots=True)
class Task:
    """A row and what is to be done with it.

    Attributes:
        row: The row.
        pair: Question and answer, if it is to be corrected.
        problem: Why it can't be, if so.
        line: What an earlier run has written for it, if so.
    """

    row: SourceRow
    pair: tuple[str, str] | None = None
    problem: RowProblem | None = None
    line: bytes = b""


def _find_text(fields: Mapping[str, Any], names: tuple[str, ...], what: str) -> str:
    for name in names:
        if (value := fields.get(name)) is None:
            continue
        if isinstance(value, str):
            return value
        raise RowProblem("wrong type", f"{name!r} is {value!r:.60}; it must be a text")
    there = ", ".join(map(str, fields)) or "none"
    raise RowProblem(
        "missing field",
        f"no {' or '.join(map(repr, names))} among the fields ({there:.200}); name the one with "
        f"the {what} with --{what}-field",
    )
