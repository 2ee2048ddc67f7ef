"""Output files: JSON Lines, which is its own journal, and tables, which are made from one."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

from aligner_integrations.bulk.encoding import encode_field, encode_outcome, encode_row
from aligner_integrations.bulk.journal import read_failed, read_lines
from aligner_integrations.bulk.rows import RECORD_NAMES, Columns, Outcome, SourceRow
from aligner_integrations.bulk.sources import DELIMITERS, CsvSource, ParquetSource, Source
from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.training.data.rows import RowProblem


class Target(Protocol):
    """A form of output. Plain data, so that another process can use it too."""

    def check(self, row: SourceRow) -> None:
        """Raise `RowProblem` if the output can't hold a row."""
        ...

    def encode(self, row: SourceRow, outcome: Outcome) -> bytes:
        """A row's line in the journal."""
        ...

    def survey(self, source: Source) -> None:
        """Raise `DataError` if the output can't hold the input: before the work, not behind it."""
        ...

    def write(self, source: Source, journal: Path, failures: Path, file: IO[bytes]) -> None:
        """Write the output from the journal, and from the input read once more."""
        ...


def choose_target(path: Path, columns: Columns) -> tuple[Target, bool]:
    """The form of an output, told by the end of its name, and whether its journal is apart.

    Raises:
        ConfigurationError: Its name ends in something else.
        MissingExtraError: It is Parquet, and pyarrow is not installed.
    """
    if path.suffix in (".jsonl", ".ndjson"):
        return JsonLinesTarget(columns), False
    if path.suffix in DELIMITERS:
        return CsvTarget(columns, DELIMITERS[path.suffix]), True
    if path.suffix == ".parquet":
        from aligner_integrations.bulk.parquet import ParquetTarget

        return ParquetTarget(columns), True
    raise ConfigurationError(
        f"{path}: outputs are .jsonl, .parquet, .csv or .tsv; name one of them"
    )


@dataclass(frozen=True, slots=True)
class JsonLinesTarget:
    """One object a line: the row with its correction."""

    columns: Columns

    def check(self, row: SourceRow) -> None:
        """See `Target.check`."""

    def encode(self, row: SourceRow, outcome: Outcome) -> bytes:
        """See `Target.encode`."""
        return encode_row(row, outcome, self.columns)

    def survey(self, source: Source) -> None:
        """See `Target.survey`."""

    def write(self, source: Source, journal: Path, failures: Path, file: IO[bytes]) -> None:
        """See `Target.write`; the journal is the output."""


@dataclass(frozen=True, slots=True)
class CsvTarget:
    """CSV in UTF-8: the input's fields, the correction, and a field for each value of the record.

    Fields that are neither texts nor null are written as JSON.
    """

    columns: Columns
    delimiter: str = ","

    def check(self, row: SourceRow) -> None:
        """See `Target.check`."""
        check_text(row)

    def encode(self, row: SourceRow, outcome: Outcome) -> bytes:
        """See `Target.encode`."""
        return encode_outcome(outcome, self.columns)

    def survey(self, source: Source) -> None:
        """See `Target.survey`."""
        taken = [self.columns.correction, *self._record_names()]
        for name in _find_names(source, self):
            if name in taken:
                raise DataError(
                    f"{source.path}: has a field {name!r}, which the output needs; name another "
                    "with --correction-field or --record-field"
                )

    def write(self, source: Source, journal: Path, failures: Path, file: IO[bytes]) -> None:
        """See `Target.write`."""
        names = _find_names(source, self)
        text = io.TextIOWrapper(file, encoding="utf-8", newline="", write_through=True)
        table = csv.writer(text, delimiter=self.delimiter)
        table.writerow([*names, self.columns.correction, *self._record_names()])
        for row, line in join(source, journal, failures):
            result = json.loads(line)
            record = result[self.columns.record]
            values = [row.fields.get(name) for name in names]
            values += [result[self.columns.correction], *(record[name] for name in RECORD_NAMES)]
            table.writerow([encode_field(value) for value in values])
        text.detach()

    def _record_names(self) -> list[str]:
        return [f"{self.columns.record}_{name}" for name in RECORD_NAMES]


def join(source: Source, journal: Path, failures: Path) -> Iterator[tuple[SourceRow, bytes]]:
    """The rows that did not fail, each with its line of the journal.

    Raises:
        DataError: There are fewer lines than rows.
    """
    failed, lines = read_failed(failures), read_lines(journal)
    gone = next(failed, None)
    for row in source.read():
        if row.number == gone:
            gone = next(failed, None)
        elif (line := next(lines, None)) is not None:
            yield row, line
        else:
            raise DataError(f"{journal}: ends before {row.place}; start anew with --no-resume")


def check_text(row: SourceRow) -> None:
    """Raise `RowProblem` if a row holds halves of characters, which only JSON can."""
    try:
        json.dumps(dict(row.fields), ensure_ascii=False, default=str).encode()
    except UnicodeEncodeError as error:
        raise RowProblem(
            "lone surrogate",
            f"{error.object[error.start]!r} is half of a character; mend it, or write .jsonl",
        ) from error


def _find_names(source: Source, target: Target) -> list[str]:
    """The fields of all rows that the output can hold, in the order in which they come up."""
    if isinstance(source, CsvSource):
        return source.names()
    if isinstance(source, ParquetSource):
        return [str(name) for name in source.schema().names]
    names: dict[str, None] = {}
    for row in source.read():
        try:
            target.check(row)
        except RowProblem:
            continue
        names.update(dict.fromkeys(row.fields))
    return list(names)
