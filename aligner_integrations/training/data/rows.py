"""Rows of a file or a data set, with their places; a broken row is a value, not yet an error."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from aligner_integrations.errors import DataError
from aligner_integrations.imports import require

Row = Mapping[str, Any]
_BOM = b"\xef\xbb\xbf"


class RowProblem(Exception):  # noqa: N818 - it is raised and caught in this package only
    """Why a row can't be used.

    Attributes:
        kind: The kind of problem, for counting: ``"missing field"``, ``"empty"``, ...
        detail: The value, the reason and the remedy.
    """

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(f"{kind}: {detail}")
        self.kind = kind
        self.detail = detail


class RowSkipped(Exception):  # noqa: N818 - no error: the layout leaves such rows out
    """Why a sound row makes no example."""


def read_rows(source: Any) -> Iterator[tuple[str, Row | RowProblem]]:
    """Rows of ``source`` with their places.

    Args:
        source: A JSON Lines file (``.gz`` too), a Parquet file, a folder that
            ``Dataset.save_to_disk`` wrote, a ``datasets.Dataset`` or ``IterableDataset``, or any
            iterable of dicts.

    Yields:
        ``file:line`` and the row, or what is wrong with it. In Parquet and data sets the line is
        the row's number, from 1.

    Raises:
        DataError: The source itself can't be read.
    """
    if isinstance(source, (str, Path)):
        yield from _read_path(Path(source))
        return
    if isinstance(source, Mapping):  # a DatasetDict is one too
        raise DataError(
            f"{type(source).__name__} with {', '.join(map(repr, source))} holds several splits; "
            "pass one of them"
        )
    if not isinstance(source, Iterable):
        raise DataError(f"{source!r:.80} is no file, data set or iterable of rows")
    yield from _number(name_source(source), source)


def name_source(source: Any) -> str:
    """What to call a source in messages."""
    if isinstance(source, (str, Path)):
        return str(source)
    split = getattr(source, "split", None)
    return f"{type(source).__name__}[{split}]" if split else type(source).__name__


def _read_path(path: Path) -> Iterator[tuple[str, Row | RowProblem]]:
    if path.is_dir():
        require("datasets", "train")
        from datasets import load_from_disk

        try:
            loaded = load_from_disk(str(path))
        except FileNotFoundError as error:
            raise DataError(
                f"{path}: is a folder that datasets did not save; name the files in it"
            ) from error
        if isinstance(loaded, Mapping):
            raise DataError(
                f"{path}: holds the splits {', '.join(map(repr, loaded))}; name the folder of one"
            )
        yield from _number(str(path), loaded)
        return
    if not path.exists():
        raise DataError(
            f"{path}: no such file; a data set of a hub is read with datasets.load_dataset, and "
            "passed instead of a name"
        )
    yield from _read_parquet(path) if path.suffix == ".parquet" else _read_lines(path)


def _number(name: str, rows: Iterable[Any]) -> Iterator[tuple[str, Row | RowProblem]]:
    for number, row in enumerate(rows, start=1):
        yield f"{name}:{number}", _check_object(row)


def _read_lines(path: Path) -> Iterator[tuple[str, Row | RowProblem]]:
    opener: Any = gzip.open if path.suffix == ".gz" else open
    try:
        # As bytes: a text file would also break lines at U+2028, and stop at the first bad byte.
        with opener(path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if number == 1:
                    line = line.removeprefix(_BOM)  # noqa: PLW2901
                if line.strip():
                    yield f"{path}:{number}", parse_line(line)
    except (OSError, EOFError) as error:
        raise DataError(f"{path}: can't be read: {error}") from error


def parse_line(line: bytes) -> Row | RowProblem:
    """A line of JSON Lines as a row, or what is wrong with it."""
    try:
        text = line.decode("utf-8").rstrip("\r\n")
    except UnicodeDecodeError as error:
        return RowProblem(
            "not UTF-8",
            f"byte {error.start + 1} of the line is {line[error.start : error.start + 1]!r}; "
            "convert the file to UTF-8",
        )
    try:
        return _check_object(json.loads(text))
    except json.JSONDecodeError as error:
        where = f"{error.msg} at column {error.colno}"
    except (ValueError, RecursionError) as error:  # numbers of 5000 digits, 5000 open brackets
        where = str(error)
    return RowProblem("invalid JSON", f"{text!r:.60}: {where}; write one object a line")


def _check_object(row: Any) -> Row | RowProblem:
    if isinstance(row, Mapping):
        return row
    return RowProblem("not an object", f"{row!r:.60} has no fields; write one object a line")


def _read_parquet(path: Path) -> Iterator[tuple[str, Row | RowProblem]]:
    require("pyarrow", "train")
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = 0
    try:
        with pq.ParquetFile(path) as file:
            for batch in file.iter_batches(batch_size=1024):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path}:{number}", row
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read as Parquet: {error}") from error
