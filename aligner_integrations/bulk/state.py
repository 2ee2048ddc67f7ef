"""The state of a bulk run, in one small file: what it is, and how far it has come."""

from __future__ import annotations

import hashlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import IO, Any, Literal

from aligner_integrations.errors import DataError

Phase = Literal["correct", "retry", "swap", "finish", "done"]
"""``correct``: rows are added to the journal. ``retry``: to a second one, in which failed rows are
tried again. ``swap``: that one is whole, and takes the place of the first. ``finish``: the output
is written from the journal."""

_VERSION = 1
_BLOCK = 1 << 20


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a journal has come.

    Attributes:
        rows: Rows of the input that are done.
        changed: Those whose correction differs from the answer.
        failed: Those in the side file.
        size: Bytes of the journal that hold them; what lies beyond is cut off.
        failed_size: The same for the side file.
    """

    rows: int = 0
    changed: int = 0
    failed: int = 0
    size: int = 0
    failed_size: int = 0


@dataclass(frozen=True, slots=True)
class State:
    """The state of a bulk run.

    Attributes:
        job: What makes its rows what they are: input, model, options.
        phase: What it is at.
        progress: How far the journal of this phase has come.
    """

    job: Mapping[str, Any]
    phase: Phase = "correct"
    progress: Progress = field(default_factory=Progress)

    def at(self, phase: Phase, progress: Progress | None = None) -> State:
        """The same run at another phase."""
        return replace(self, phase=phase, progress=progress or self.progress)

    def save(self, path: Path) -> None:
        """Write it; a reader sees the state before or this one, whatever happens meanwhile."""
        data = {"version": _VERSION, **asdict(self)}
        with replacing(path) as file:
            file.write(json.dumps(data, indent=1, sort_keys=True).encode())

    @classmethod
    def load(cls, path: Path) -> State | None:
        """The state that is there, if there is one.

        Raises:
            DataError: The file holds something else.
        """
        try:
            data = json.loads(path.read_bytes())
            if data["version"] != _VERSION:
                raise ValueError(f"version {data['version']} is not {_VERSION}")
            return cls(data["job"], data["phase"], Progress(**data["progress"]))
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise DataError(
                f"{path}: can't be read as the state of a bulk run: {error!r:.200}; name another "
                "output, or start anew with --no-resume"
            ) from error

    def check_same(self, job: Mapping[str, Any], path: Path) -> None:
        """Raise `DataError`, with the differences, unless a run is the one that was begun."""
        found = [
            f"{name} was {before!r:.100} and is {now!r:.100}"
            for name, before, now in _find_differences(self.job, job)
        ]
        if found:
            raise DataError(
                f"{path}: an earlier run with this output differs: {'; '.join(found)}. Run with "
                "what it had, name another output, or start anew with --no-resume"
            )


def describe_input(path: Path) -> dict[str, Any]:
    """What tells an input from another: its size, when it was changed, its first and last block."""
    digest, about = hashlib.blake2b(digest_size=16), path.stat()
    with path.open("rb") as file:
        digest.update(file.read(_BLOCK))
        file.seek(max(0, about.st_size - _BLOCK))
        digest.update(file.read(_BLOCK))
    modified = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(about.st_mtime))
    nanoseconds = about.st_mtime_ns % 1_000_000_000
    return {
        "size": about.st_size,
        "modified": f"{modified}.{nanoseconds:09d}Z",
        "content": digest.hexdigest(),
    }


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """A file to write that takes the place of ``path`` when the block ends without an error.

    Its name is always the same, so that a kill leaves one at most; who writes must hold the lock.
    """
    part = path.with_name(f".{path.name}.part")
    try:
        with part.open("wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise
    sync_directory(path.parent)


def sync_directory(path: Path) -> None:
    """Make new names in a directory outlast a power cut, where the system can."""
    if os.name != "posix":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _find_differences(before: Any, now: Any, name: str = "") -> Iterator[tuple[str, Any, Any]]:
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in sorted({*before, *now}):
            yield from _find_differences(
                before.get(key), now.get(key), f"{name}.{key}" if name else key
            )
    elif before != now:
        yield name, before, now
