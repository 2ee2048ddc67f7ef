"""Parquet as output: the input's columns with their types, and two more."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from aligner_integrations.bulk.encoding import encode_outcome
from aligner_integrations.bulk.journal import read_failed, read_lines
from aligner_integrations.bulk.rows import Columns, Outcome, SourceRow
from aligner_integrations.bulk.sources import CsvSource, ParquetSource, Source
from aligner_integrations.bulk.targets import check_text, join
from aligner_integrations.errors import DataError
from aligner_integrations.imports import require
from aligner_integrations.training.data.rows import RowProblem

_CHUNK = 1024
"""Rows that become Arrow columns together."""
_GROUP_ROWS, _GROUP_BYTES = 65_536, 1 << 26
"""Of a row group, at most; this is what the writing holds in memory."""


@dataclass(frozen=True, slots=True)
class ParquetTarget:
    """A Parquet table. From Parquet the columns keep their types; from JSON they are found."""

    columns: Columns

    def __post_init__(self) -> None:
        require("pyarrow", "bulk")

    def check(self, row: SourceRow) -> None:
        """See `Target.check`."""
        check_text(row)

    def encode(self, row: SourceRow, outcome: Outcome) -> bytes:
        """See `Target.encode`."""
        return encode_outcome(outcome, self.columns)

    def survey(self, source: Source) -> None:
        """See `Target.survey`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self._find_schema(source)
        for name in (self.columns.correction, self.columns.record):
            if name in schema.names:
                raise DataError(
                    f"{source.path}: has a field {name!r}, which the output needs; name another "
                    "with --correction-field or --record-field"
                )
        try:
            pq.write_table(schema.empty_table(), io.BytesIO())
        except pa.ArrowException as error:
            raise DataError(
                f"{source.path}: Parquet can't hold its fields ({error}); write .jsonl"
            ) from error

    def write(self, source: Source, journal: Path, failures: Path, file: IO[bytes]) -> None:
        """See `Target.write`."""
        import pyarrow as pa
        import pyarrow.parquet as pq

        schema = self._find_schema(source)
        result = pa.schema([(self.columns.correction, pa.string()), self._record_field()])
        whole = pa.schema([*schema, *result], _keep_metadata(schema))
        if isinstance(source, ParquetSource):
            tables = _join_batches(source, journal, failures, result)
        else:
            tables = _join_rows(source, journal, failures, whole)
        group: list[Any] = []
        with pq.ParquetWriter(file, whole) as writer:
            for table in tables:
                group.append(table)
                if (
                    sum(part.num_rows for part in group) >= _GROUP_ROWS
                    or sum(part.nbytes for part in group) >= _GROUP_BYTES
                ):
                    writer.write_table(pa.concat_tables(group).cast(whole))
                    group = []
            if group:
                writer.write_table(pa.concat_tables(group).cast(whole))

    def _record_field(self) -> Any:
        import pyarrow as pa

        text, record = pa.string(), self.columns.record
        fields = [
            ("changed", pa.bool_()),
            ("similarity", pa.float64()),
            ("model", text),
            ("policy", text),
            ("error", text),
            ("skipped", text),
            ("lost", pa.int64()),
            ("strength", pa.float64()),
        ]
        return pa.field(record, pa.struct(fields))

    def _find_schema(self, source: Source) -> Any:
        """The schema of the input; of JSON Lines, one that holds all its rows."""
        import pyarrow as pa

        if isinstance(source, ParquetSource):
            return source.schema()
        if isinstance(source, CsvSource):
            return pa.schema([(name, pa.string()) for name in source.names()])
        schema = pa.schema([])
        rows = (row for row in source.read() if self._can_hold(row))
        while chunk := list(itertools.islice(rows, _CHUNK)):
            try:
                found = pa.array([row.fields for row in chunk]).type
                schema = pa.unify_schemas(
                    [schema, pa.schema(list(found))], promote_options="permissive"
                )
            except (pa.ArrowException, OverflowError) as error:
                raise DataError(
                    f"{chunk[0].place} and the rows behind it: a field has values of several "
                    f"types, or out of range ({error}); write .jsonl"
                ) from error
        return schema

    def _can_hold(self, row: SourceRow) -> bool:
        try:
            self.check(row)
        except RowProblem:
            return False
        return row.problem is None


def _join_rows(source: Source, journal: Path, failures: Path, schema: Any) -> Iterator[Any]:
    """Tables of rows with their results, from a file that knows no types."""
    import pyarrow as pa

    pairs = join(source, journal, failures)
    while chunk := list(itertools.islice(pairs, _CHUNK)):
        rows = [{**row.fields, **json.loads(line)} for row, line in chunk]
        columns = {name: [row.get(name) for row in rows] for name in schema.names}
        yield pa.table(columns, schema)


def _join_batches(
    source: ParquetSource, journal: Path, failures: Path, result: Any
) -> Iterator[Any]:
    """Tables of rows with their results; the columns go from file to file as they are."""
    import pyarrow as pa

    failed, lines = read_failed(failures), read_lines(journal)
    gone, number = next(failed, None), 0
    for batch in source.batches(size=_CHUNK):
        kept = []
        for _ in range(batch.num_rows):
            number += 1
            kept.append(number != gone)
            if number == gone:
                gone = next(failed, None)
        results = [json.loads(line) for line in itertools.islice(lines, sum(kept))]
        if len(results) != sum(kept):
            raise DataError(
                f"{journal}: ends before {source.path}:{number}; start anew with --no-resume"
            )
        table = pa.Table.from_batches([batch]).filter(pa.array(kept))
        for field in result:
            values = pa.array([row[field.name] for row in results], field.type)
            table = table.append_column(field, values)
        yield table


def _keep_metadata(schema: Any) -> Any:
    """A schema's metadata, without what datasets puts there: it names all columns."""
    metadata = {
        key: value for key, value in (schema.metadata or {}).items() if key != b"huggingface"
    }
    return metadata or None
