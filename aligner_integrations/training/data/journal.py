"""A JSON Lines file that a run adds rows to, and that the next run goes on with."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aligner_integrations.errors import DataError
from aligner_integrations.locking import lock
from aligner_integrations.training.data.rows import Row, RowProblem, parse_line
from aligner_integrations.training.data.triples import encode_row, replacing

logger = logging.getLogger(__name__)


class Journal:
    """Rows with an ``id``, each written as soon as it is there.

    A run that was killed leaves at most half a line at the end, which opening takes off. Rows with
    an ``error`` are taken off as well, so that they are tried again. Use it as a context manager.

    Args:
        path: The file; it need not exist.
        **same: Fields whose values must be the same in all rows, such as the model's name: rows
            of two settings shall not be mixed unseen.

    Raises:
        DataError: The file is in use, holds something else, or comes from other settings.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "answers.jsonl"
        >>> with Journal(path, model="m") as journal:
        ...     journal.append({"id": "1", "answer": "Boil them."})
        >>> with Journal(path, model="m") as journal:
        ...     journal.done
        {'1'}
    """

    def __init__(self, path: str | Path, **same: Any) -> None:
        self.path = Path(path)
        self._same = same
        self.done: set[str] = set()

    def __enter__(self) -> Journal:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("ab")
        try:
            lock(self._file, self.path)
            self._recover()
        except BaseException:
            self._file.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        with contextlib.suppress(OSError):  # a full disk was reported by the write already
            os.fsync(self._file.fileno())
        self._file.close()

    def append(self, row: dict[str, Any]) -> None:
        """Write a row; when this returns, a kill of the process can't lose it."""
        self._file.write(encode_row(row | self._same))
        self._file.flush()
        if "error" not in row:
            self.done.add(row["id"])

    def _recover(self) -> None:
        """Read what is there; write it anew if its end is torn or rows have failed."""
        keep: list[bytes] = []
        spoilt = False
        for number, line, whole in self._lines():
            row = parse_line(line)
            if isinstance(row, RowProblem):
                if whole:
                    raise DataError(f"{self.path}:{number}: {row}")
                logger.warning("%s:%d: a torn line was taken off", self.path, number)
                spoilt = True
            elif self._check(row, number):
                keep.append(line if whole else line + b"\n")
                spoilt = spoilt or not whole
            else:
                spoilt = True
        if spoilt:
            with replacing(self.path) as file:
                file.writelines(keep)
            self._file.close()
            self._file = self.path.open("ab")
            lock(self._file, self.path)

    def _lines(self) -> Iterator[tuple[int, bytes, bool]]:
        with self.path.open("rb") as file:
            for number, line in enumerate(file, start=1):
                if line.strip():
                    yield number, line, line.endswith(b"\n")

    def _check(self, row: Row, number: int) -> bool:
        """Whether a row is done and stays."""
        identity = row.get("id")
        if not isinstance(identity, str):
            raise DataError(
                f"{self.path}:{number}: 'id' is {identity!r:.40}; the file comes from something "
                "else, name another"
            )
        if "error" in row or identity in self.done:
            return False
        for name, value in self._same.items():
            if row.get(name) != value:
                raise DataError(
                    f"{self.path}:{number}: {name!r} is {row.get(name)!r:.60}, now it is "
                    f"{value!r:.60}; go on with the same, or name another file"
                )
        self.done.add(identity)
        return True
