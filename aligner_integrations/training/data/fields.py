"""Reading the fields of a row, with a clear word for what is wrong."""

from __future__ import annotations

from typing import Any

from aligner_integrations.training.data.rows import Row, RowProblem

_MISSING = object()


def read_text(row: Row, *names: str) -> str:
    """The text of the first of these fields that the row has.

    Raises:
        RowProblem: There is none, it is no text, it is blank, or it is no valid Unicode.
    """
    name, value = _find(row, names)
    return check_text(name, value)


def check_text(name: str, value: Any) -> str:
    """``value`` if it is a text that can be trained on.

    Raises:
        RowProblem: It is no text, it is blank, or it is no valid Unicode.
    """
    if not isinstance(value, str):
        raise RowProblem("wrong type", f"{name!r} is {value!r:.60}; it must be a text")
    if not value.strip():
        raise RowProblem("empty", f"{name!r} is {value!r:.20}; leave the row out")
    try:
        value.encode("utf-8")
    except UnicodeEncodeError as error:
        raise RowProblem(
            "lone surrogate",
            f"character {error.start + 1} of {name!r} is {value[error.start]!r}, half of a "
            "character that was cut or wrongly decoded; mend or remove it",
        ) from error
    return value


def read_choice(row: Row, name: str) -> int:
    """A field that is 0 or 1.

    Raises:
        RowProblem: There is none, or it is something else.
    """
    _, value = _find(row, (name,))
    if isinstance(value, bool) or value not in (0, 1):
        raise RowProblem("wrong type", f"{name!r} is {value!r:.60}; it must be 0 or 1")
    return int(value)


def read_flag(row: Row, name: str) -> bool:
    """A field that is true or false.

    Raises:
        RowProblem: There is none, or it is something else.
    """
    _, value = _find(row, (name,))
    if not isinstance(value, bool):
        raise RowProblem("wrong type", f"{name!r} is {value!r:.60}; it must be true or false")
    return value


def read_list(row: Row, name: str) -> list[Any]:
    """A field that is a list.

    Raises:
        RowProblem: There is none, or it is something else.
    """
    _, value = _find(row, (name,))
    if not isinstance(value, list):
        raise RowProblem("wrong type", f"{name!r} is {value!r:.60}; it must be a list")
    return value


def _find(row: Row, names: tuple[str, ...]) -> tuple[str, Any]:
    for name in names:
        if (value := row.get(name, _MISSING)) is not _MISSING and value is not None:
            return name, value
    wanted = " or ".join(map(repr, names))
    raise RowProblem(
        "missing field", f"no {wanted} among {', '.join(map(str, row)) or 'no fields':.200}"
    )
