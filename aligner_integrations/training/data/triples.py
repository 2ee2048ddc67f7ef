"""A training example as a value, and writing examples to a file."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from aligner_integrations.errors import DataError
from aligner_integrations.imports import require

FIRST_TURN = "first_turn"
"""In ``meta`` of an example from a dialogue: the first thing that the user said."""


@dataclass(frozen=True, slots=True)
class Triple:
    """A question, an answer, and what an aligner should make of it.

    Attributes:
        question: What was asked; several turns of a dialogue are rendered into one text.
        answer: What the upstream model said.
        correction: What the aligner should write; the answer itself if it is good.
        kind: What the example is for; statistics are shown by kind.
        meta: The row's other fields.
        place: ``file:line`` that it came from, for messages; "" if it was made here.

    Example:
        >>> Triple("Eggs?", "Boil them, fool.", "Boil them.").is_identity
        False
    """

    question: str
    answer: str
    correction: str
    kind: str = ""
    meta: Mapping[str, Any] = field(default_factory=dict, hash=False)
    place: str = field(default="", compare=False)

    @property
    def is_identity(self) -> bool:
        """Whether there is nothing to correct."""
        return self.answer == self.correction

    @property
    def topic(self) -> str:
        """What its dialogue began with; rows of one dialogue share it."""
        first = self.meta.get(FIRST_TURN)
        return first if isinstance(first, str) and first.strip() else self.question

    def to_row(self) -> dict[str, Any]:
        """Plain data, ready for JSON; the layout ``triples`` reads it back."""
        row: dict[str, Any] = {
            "question": self.question,
            "answer": self.answer,
            "correction": self.correction,
        }
        if self.kind:
            row["kind"] = self.kind
        return row | {name: value for name, value in self.meta.items() if name not in row}


def write_triples(triples: Iterable[Triple], path: str | Path) -> int:
    """Write examples to ``path``: Parquet if its name ends so, otherwise JSON Lines.

    The file appears when it is whole; what was there before stays until then.

    Returns:
        How many were written.

    Raises:
        DataError: The examples don't fit a Parquet table.
        MissingExtraError: Parquet, and pyarrow is not installed.
    """
    target = Path(path)
    if target.suffix == ".parquet":
        return _write_parquet([triple.to_row() for triple in triples], target)
    count = 0
    with replacing(target) as file:
        for count, triple in enumerate(triples, start=1):  # noqa: B007 - counted
            file.write(encode_row(triple.to_row()))
    return count


def encode_row(row: Mapping[str, Any]) -> bytes:
    """A row as a line of JSON Lines."""
    try:
        return json.dumps(row, ensure_ascii=False, default=str).encode("utf-8") + b"\n"
    except UnicodeEncodeError:  # half a character, which only an escape can hold
        return json.dumps(row, default=str).encode("ascii") + b"\n"


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of ``path`` when the block ends without an error."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
    try:
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        # mkstemp's files are for the owner alone; a data set is as readable as any new file.
        mask = os.umask(0)
        os.umask(mask)
        Path(name).chmod(0o666 & ~mask)
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise


def _write_parquet(rows: list[dict[str, Any]], path: Path) -> int:
    require("pyarrow", "train")
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        # Columns from all rows: pyarrow by itself takes those of the first row only.
        names = list(dict.fromkeys(name for row in rows for name in row))
        table = pa.table({name: [row.get(name) for row in rows] for name in names})
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"{path}: a field has values of several types ({error}); write .jsonl instead"
        ) from error
    with replacing(path) as file:
        pq.write_table(table, file)
    return len(rows)
