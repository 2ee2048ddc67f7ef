"""Lines that are done: the journal of corrected rows and the side file of failed ones."""

from __future__ import annotations

import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from aligner_integrations.bulk.rows import SourceRow
from aligner_integrations.bulk.state import Progress, State, sync_directory
from aligner_integrations.errors import DataError
from aligner_integrations.training.data.triples import encode_row

logger = logging.getLogger(__name__)

_SECONDS = 1.0
"""Between two checkpoints. A kill costs the rows that were done since the last one."""


class Journal:
    """Two files that grow together, and a state that says how much of them counts.

    A checkpoint brings both files to the disk and then replaces the state in one step. Opening cuts
    off what was written after the last one, so each row is there once however a run ended.

    Args:
        path: The file of corrected rows.
        failures: The side file.
        state_path: Where the state is kept.
        state: The state as it was loaded, or a new one.

    Raises:
        DataError: The files are shorter than they were.
    """

    def __init__(self, path: Path, failures: Path, state_path: Path, state: State) -> None:
        self.state = state
        self._state_path = state_path
        self._lines = _open(path, state.progress.size)
        try:
            self._failures = _open(failures, state.progress.failed_size)
        except BaseException:
            self._lines.close()
            raise
        now = state.progress
        self.rows, self.changed, self.failed = now.rows, now.changed, now.failed
        self._saved = time.monotonic()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the files, without a checkpoint."""
        self._lines.close()
        self._failures.close()

    def append(self, line: bytes, *, changed: bool) -> None:
        """Add a corrected row."""
        self._lines.write(line)
        self.rows += 1
        self.changed += changed

    def append_failure(self, row: SourceRow, reason: str) -> None:
        """Add a row that failed."""
        self._failures.write(encode_failure(row, reason))
        self.rows += 1
        self.failed += 1

    def is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        return time.monotonic() - self._saved >= _SECONDS

    def checkpoint(self) -> None:
        """Make what was added last, whatever happens from now on."""
        sizes = []
        for file in (self._lines, self._failures):
            file.flush()
            os.fsync(file.fileno())
            sizes.append(file.tell())
        progress = Progress(self.rows, self.changed, self.failed, *sizes)
        self.state = self.state.at(self.state.phase, progress)
        self.state.save(self._state_path)
        self._saved = time.monotonic()


def encode_failure(row: SourceRow, reason: str) -> bytes:
    """A failed row as a line of the side file."""
    line = {"row": row.number, "place": row.place, "reason": reason}
    if row.fields or not row.raw:
        return encode_row(line | {"input": dict(row.fields)})
    return encode_row(line | {"input": row.raw.decode("utf-8", "backslashreplace")})


def read_failed(path: Path) -> Iterator[int]:
    """The numbers of the rows in a side file, which are in order."""
    if path.exists():
        with path.open("rb") as file:
            for line in file:
                yield int(json.loads(line)["row"])


def read_lines(path: Path) -> Iterator[bytes]:
    """The lines of a journal."""
    with path.open("rb") as file:
        yield from file


def _open(path: Path, size: int) -> IO[bytes]:
    """A file to add to behind its first ``size`` bytes, which are all that stays of it."""
    file = path.open("ab")
    there = file.tell()
    if there < size:
        file.close()
        raise DataError(
            f"{path}: has {there} bytes, but had {size} when the last run ended; it was changed "
            "since. Bring it back, or start anew with --no-resume"
        )
    if there > size:
        logger.info("%s: %d bytes of an interrupted run were cut off", path, there - size)
        file.truncate(size)
        file.seek(size)
    sync_directory(path.parent)
    return file
