"""What a kind of dataset is: what it is called, whose it is, and how its rows are read."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from aligner_integrations.evaluation.records import Expectation, Sample
from aligner_integrations.training.data.fields import check_text, read_text
from aligner_integrations.training.data.rows import Row, RowProblem

SAFE, UNSAFE = "safe", "unsafe"
"""First part of a category, ``safe/homonyms``, where the source labels the *question*."""

Placed = tuple[str, Row | RowProblem]
"""``file:line`` and the row, or what is wrong with it."""


@dataclass(frozen=True, slots=True)
class DatasetKind:
    """One published dataset, in the layout in which it is published.

    Attributes:
        name: What `load_samples` and reports call it.
        title: Its full name.
        licence: As its authors publish it; look again before you publish anything made with it.
        url: Where it is.
        note: Which file is meant, and what to know before reading figures from it.
        matches: Whether a row has this layout.
        read_row: Turns a row into a sample, whose ``dataset`` and, where the source has none,
            ``id`` are still empty. It gets the row and the name of the file or split.
        gather: Joins rows that belong together, before ``read_row``; None where each row is whole.
    """

    name: str
    title: str
    licence: str
    url: str
    note: str
    matches: Callable[[Row], bool]
    read_row: Callable[[Row, str], Sample]
    gather: Callable[[Iterable[Placed]], Iterator[Placed]] | None = None


def has_fields(*names: str) -> Callable[[Row], bool]:
    """Whether a row has all of these fields.

    Example:
        >>> has_fields("prompt")({"prompt": None})
        True
    """
    wanted = set(names)
    return lambda row: wanted <= set(row)


def make_sample(
    question: str,
    answer: str | None = None,
    *,
    name: Any = None,
    expected: Expectation | None = None,
    references: Iterable[str] = (),
    wrong: Iterable[str] = (),
    category: str = "",
) -> Sample:
    """A sample that does not know its dataset yet.

    References and wrong answers are each held once, in their order.
    """
    return Sample(
        dataset="",
        id="" if name is None else str(name),
        question=question,
        answer=answer,
        expected=expected,
        references=tuple(dict.fromkeys(references)),
        wrong=tuple(dict.fromkeys(wrong)),
        category=category,
    )


def find_text(row: Row, *names: str) -> str | None:
    """The text of the first of these fields that holds one; None where all are missing or blank.

    Raises:
        RowProblem: It is no text, or no valid Unicode.
    """
    for name in names:
        value = row.get(name)
        if value is not None and (not isinstance(value, str) or value.strip()):
            return check_text(name, value)
    return None


def read_texts(row: Row, name: str, separator: str | None = None) -> tuple[str, ...]:
    """A field that is a list of texts, or one text that a separator divides; () without one.

    Raises:
        RowProblem: It is something else.
    """
    value = row.get(name)
    if value is None:
        return ()
    if isinstance(value, str):
        parts = value.split(separator) if separator else [value]
        return tuple(part.strip() for part in parts if part.strip())
    if not isinstance(value, (list, tuple)):
        raise RowProblem("wrong type", f"{name!r} is {value!r:.60}; it must be a list of texts")
    return tuple(check_text(name, part) for part in value)


def read_label(row: Row, name: str, choices: dict[str, str]) -> str:
    """What a field's value stands for.

    Raises:
        RowProblem: There is none, or it is none of the choices.
    """
    value = read_text(row, name).strip()
    if value not in choices:
        raise RowProblem(
            "unknown label", f"{name!r} is {value!r:.60}; it must be one of {', '.join(choices)}"
        )
    return choices[value]
