"""Input files, read as a stream: JSON Lines, CSV and Parquet."""

from __future__ import annotations

import csv
import gzip
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol

from aligner_integrations.bulk.rows import SourceRow
from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.imports import require
from aligner_integrations.training.data.rows import RowProblem, parse_line

_BOM = b"\xef\xbb\xbf"
_BATCH = 256
"""Rows of Parquet that are held as Python objects at a time."""
_FIELD_LIMIT = 10_000_000
"""Characters of one CSV field. Python's own limit is 131072, which long answers pass; without any,
a quote that is never closed would take in the rest of the file."""
DELIMITERS = {".csv": ",", ".tsv": "\t"}


class Source(Protocol):
    """An input file. Plain data, so that another process can read it too."""

    @property
    def path(self) -> Path:
        """Where it is."""
        ...

    def read(self, skip: int = 0) -> Iterator[SourceRow]:
        """Its rows in order, without the first ``skip``.

        Raises:
            DataError: The file can't be read on.
        """
        ...

    def count(self) -> int:
        """How many rows there are; reads the file, but takes no row apart."""
        ...


def open_source(path: Path) -> Source:
    """The source for a file, told by the end of its name.

    Raises:
        ConfigurationError: Its name ends in something else.
        DataError: There is no such file, or its columns are not told apart by their names.
        MissingExtraError: It is Parquet, and pyarrow is not installed.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    if path.suffix == ".parquet":
        return ParquetSource(path)
    if path.suffix in DELIMITERS:
        return CsvSource(path, DELIMITERS[path.suffix])
    if path.name.endswith((".jsonl", ".jsonl.gz", ".ndjson", ".ndjson.gz")):
        return JsonLinesSource(path)
    raise ConfigurationError(
        f"{path}: inputs are .jsonl, .jsonl.gz, .parquet, .csv or .tsv; convert it, or rename it "
        "if it is one of them"
    )


@dataclass(frozen=True, slots=True)
class JsonLinesSource:
    """One JSON object a line; blank lines are no rows."""

    path: Path

    def read(self, skip: int = 0) -> Iterator[SourceRow]:
        """See `Source.read`."""
        number = 0
        for at, line in enumerate(self._lines(), start=1):
            if not line.strip():
                continue
            number += 1
            if number <= skip:
                continue
            row, place, raw = parse_line(line), f"{self.path}:{at}", line.strip()
            if isinstance(row, RowProblem):
                yield SourceRow(number, place, raw=raw, problem=row)
            else:
                yield SourceRow(number, place, row, raw)

    def count(self) -> int:
        """See `Source.count`."""
        return sum(1 for line in self._lines() if line.strip())

    def _lines(self) -> Iterator[bytes]:
        opener: Any = gzip.open if self.path.suffix == ".gz" else open
        with _explaining(self.path, "JSON Lines"), opener(self.path, "rb") as file:
            # As bytes: a text file would also break lines at U+2028, and stop at a bad byte.
            yield file.readline().removeprefix(_BOM)
            yield from file


@dataclass(frozen=True, slots=True)
class CsvSource:
    """A header and rows, in UTF-8; fields may hold line breaks. All values are texts."""

    path: Path
    delimiter: str = ","

    def names(self) -> list[str]:
        """The header.

        Raises:
            DataError: There is none, or a name comes twice.
        """
        with self._open() as file, _any_size():
            names = next(csv.reader(file, delimiter=self.delimiter), [])
        if not names:
            raise DataError(f"{self.path}: has no header; write the fields' names in line 1")
        check_names(self.path, names)
        return names

    def read(self, skip: int = 0) -> Iterator[SourceRow]:
        """See `Source.read`."""
        names, number = self.names(), 0
        with self._open() as file, _any_size():
            reader = csv.reader(file, delimiter=self.delimiter)
            next(reader)
            line = reader.line_num + 1
            for values in reader:
                place, line = f"{self.path}:{line}", reader.line_num + 1
                if not values:
                    continue
                number += 1
                if number > skip:
                    yield _make_row(number, place, names, values)

    def count(self) -> int:
        """See `Source.count`."""
        with self._open() as file, _any_size():
            reader = csv.reader(file, delimiter=self.delimiter)
            next(reader, None)
            return sum(1 for values in reader if values)

    @contextmanager
    def _open(self) -> Iterator[IO[str]]:
        # Bytes that are no UTF-8 become halves of characters, which are one row's problem.
        with (
            _explaining(self.path, "CSV"),
            self.path.open(encoding="utf-8-sig", errors="surrogateescape", newline="") as file,
        ):
            yield file


@dataclass(frozen=True, slots=True)
class ParquetSource:
    """A Parquet file; its rows' numbers take the place of lines."""

    path: Path

    def __post_init__(self) -> None:
        require("pyarrow", "bulk")
        check_names(self.path, self.schema().names)

    def schema(self) -> Any:
        """The file's Arrow schema."""
        import pyarrow.parquet as pq

        with _explaining(self.path, "Parquet"):
            return pq.read_schema(self.path)

    def batches(self, skip: int = 0, size: int = _BATCH) -> Iterator[Any]:
        """Record batches, without the first ``skip`` rows."""
        import pyarrow.parquet as pq

        with _explaining(self.path, "Parquet"), pq.ParquetFile(self.path) as file:
            groups = list(range(file.metadata.num_row_groups))
            while groups and skip >= (rows := file.metadata.row_group(groups[0]).num_rows):
                skip -= rows
                groups.pop(0)
            for batch in file.iter_batches(batch_size=size, row_groups=groups):
                dropped = min(skip, batch.num_rows)
                skip -= dropped
                if dropped < batch.num_rows:
                    yield batch.slice(dropped)

    def read(self, skip: int = 0) -> Iterator[SourceRow]:
        """See `Source.read`."""
        number = skip
        for batch in self.batches(skip):
            for fields in batch.to_pylist():
                number += 1
                yield SourceRow(number, f"{self.path}:{number}", fields)

    def count(self) -> int:
        """See `Source.count`."""
        import pyarrow.parquet as pq

        with _explaining(self.path, "Parquet"):
            return int(pq.read_metadata(self.path).num_rows)


def check_names(path: Path, names: list[str]) -> None:
    """Raise `DataError` if two columns have the same name."""
    twice = next((name for at, name in enumerate(names) if name in names[:at]), None)
    if twice is not None:
        raise DataError(f"{path}: two columns are called {twice!r}; rename one of them")


def _make_row(number: int, place: str, names: list[str], values: list[str]) -> SourceRow:
    fields = dict(zip(names, values + [""] * (len(names) - len(values)), strict=False))
    if len(values) > len(names):
        problem = RowProblem(
            "too many fields",
            f"{len(values)} where the header names {len(names)}; quote texts with delimiters",
        )
        return SourceRow(number, place, fields | {"": values[len(names) :]}, problem=problem)
    try:
        "".join(values).encode()
    except UnicodeEncodeError:
        problem = RowProblem("not UTF-8", "convert the file to UTF-8")
        return SourceRow(number, place, fields, problem=problem)
    return SourceRow(number, place, fields)


@contextmanager
def _any_size() -> Iterator[None]:
    limit = csv.field_size_limit(_FIELD_LIMIT)
    try:
        yield
    finally:
        csv.field_size_limit(limit)


@contextmanager
def _explaining(path: Path, kind: str) -> Iterator[None]:
    """What goes wrong while a file is read, as a `DataError`."""
    errors: tuple[type[Exception], ...] = (OSError, EOFError, zlib.error, csv.Error)
    if kind == "Parquet":
        import pyarrow as pa

        errors = (OSError, pa.ArrowException, UnicodeDecodeError)
    try:
        yield
    except errors as error:
        raise DataError(f"{path}: can't be read as {kind}: {error}") from error
