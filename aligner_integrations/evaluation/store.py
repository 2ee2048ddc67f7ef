"""What an evaluation has found out already, kept by what it depends on."""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

from aligner_integrations.errors import DataError

logger = logging.getLogger(__name__)
_Item = TypeVar("_Item")
_AT_ONCE = 500
"""Keys of one query; SQLite takes 999 in its oldest builds."""


@dataclass(frozen=True, slots=True)
class Failure:
    """Why something could not be found out. It is not kept, so that the next run tries again.

    Attributes:
        reason: In one line.
        value: What there is all the same; None for nothing.
    """

    reason: str
    value: Any = None

    @classmethod
    def from_error(cls, error: BaseException) -> Failure:
        """The error's name and the first line of what it says."""
        said = str(error).strip().splitlines()
        return cls(f"{type(error).__name__}: {said[0]}" if said else type(error).__name__)


class Store:
    """Results by key, in a SQLite file; use it as a context manager.

    A result is on its way to the disk when `put` returns: a kill of the process can't lose it.
    Several processes may use one file.

    Args:
        path: The file; it need not exist.

    Raises:
        DataError: The file is no store, or can't be read or written.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "results.sqlite"
        >>> with Store(path) as store:
        ...     store.put("answers", "k1", {"text": "Boil them."})
        >>> with Store(path) as store:
        ...     store.find("answers", ["k1", "k2"])
        {'k1': {'text': 'Boil them.'}}
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def __enter__(self) -> Store:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self._explain():
            # Each statement is its own transaction.
            self._database = sqlite3.connect(self.path, timeout=60, isolation_level=None)
            try:
                # With a log ahead, a result costs no wait for the disk.
                self._database.execute("PRAGMA journal_mode=WAL")
                self._database.execute("PRAGMA synchronous=NORMAL")
                self._database.execute(
                    "CREATE TABLE IF NOT EXISTS results (phase TEXT, key TEXT, value TEXT, "
                    "PRIMARY KEY (phase, key)) WITHOUT ROWID"
                )
            except BaseException:
                self._database.close()
                raise
        return self

    def __exit__(self, *exception: object) -> None:
        self._database.close()

    def find(self, phase: str, keys: Iterable[str]) -> dict[str, Any]:
        """The results that are there, by key."""
        found: dict[str, Any] = {}
        coming = iter(keys)
        with self._explain():
            while portion := list(islice(coming, _AT_ONCE)):
                marks = ",".join("?" * len(portion))
                rows = self._database.execute(
                    f"SELECT key, value FROM results WHERE phase=? AND key IN ({marks})",  # noqa: S608 - question marks
                    [phase, *portion],
                )
                found.update((key, self._read(key, value)) for key, value in rows)
        return found

    def _read(self, key: str, value: str) -> Any:
        try:
            return json.loads(value)
        except (ValueError, TypeError, RecursionError):
            raise DataError(
                f"{self.path}: what is kept as {key!r} is no JSON, so something else wrote it; "
                "name another output"
            ) from None

    def put(self, phase: str, key: str, value: Any) -> None:
        """Keep a result, plain data."""
        with self._explain():
            self._database.execute(
                "INSERT OR REPLACE INTO results VALUES (?, ?, ?)", [phase, key, json.dumps(value)]
            )

    def clear(self) -> None:
        """Forget everything."""
        with self._explain():
            self._database.execute("DELETE FROM results")

    @contextlib.contextmanager
    def _explain(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            raise DataError(
                f"{self.path}: can't be used to keep results: {error}; if it is no store of an "
                "evaluation, name another output, and if the disk is full, make room: what is "
                "there stays"
            ) from error


Work = Callable[[Sequence[_Item]], Iterable[tuple[int, Any]]]
"""From items to ``(index, result or Failure)``, in any order."""


def complete(
    store: Store,
    phase: str,
    wanted: Mapping[str, _Item],
    work: Work[_Item],
    *,
    description: str = "",
    progress: bool = False,
    patience: int | None = None,
) -> dict[str, Any]:
    """Results for all keys: those that are kept, and the others by working for them.

    Args:
        store: Where results are kept, each as soon as it is there.
        phase: What kind of result.
        wanted: By key, what a result is wanted for.
        work: Finds results out. An error that it raises is the failure of all that is left.
        description: What the bar says.
        progress: Show a bar on standard error.
        patience: After so many failures in a row, the rest fails without being tried.

    Returns:
        A result or a `Failure` for each key, in the order of ``wanted``.

    Raises:
        DataError: A result can't be kept.
    """
    from tqdm import tqdm

    done = store.find(phase, wanted)
    todo = [key for key in wanted if key not in done]
    if not todo:
        return {key: done[key] for key in wanted}
    failed = in_a_row = 0
    reason = "nothing came back for it"
    results: Any = iter(work([wanted[key] for key in todo]))
    with tqdm(
        total=len(wanted),
        initial=len(wanted) - len(todo),
        desc=description,
        disable=not progress,
    ) as bar:
        try:
            for index, result in _guard(results):
                done[todo[index]] = result
                bar.update()
                if not isinstance(result, Failure):
                    store.put(phase, todo[index], result)
                    in_a_row = 0
                    continue
                failed += 1
                in_a_row += 1
                bar.set_postfix(failed=failed, refresh=False)
                if patience is not None and in_a_row >= patience:
                    reason = f"not tried: {in_a_row} in a row failed before, {result.reason}"
                    break
        except _WorkError as stop:
            reason = stop.failure.reason
        finally:
            if hasattr(results, "close"):  # a generator: cancels what has not begun
                results.close()
    for key in todo:
        done.setdefault(key, Failure(reason))
    failures = [done[key] for key in todo if isinstance(done[key], Failure)]
    if failures:
        logger.warning(
            "%s: %d of %d failed, the last: %s; run again to retry them",
            description or phase,
            len(failures),
            len(todo),
            failures[-1].reason,
        )
    return {key: done[key] for key in wanted}


class _WorkError(Exception):
    """An error of the work itself, not of keeping its results."""

    def __init__(self, failure: Failure) -> None:
        super().__init__(failure.reason)
        self.failure = failure


def _guard(results: Iterator[tuple[int, Any]]) -> Iterator[tuple[int, Any]]:
    while True:
        try:
            result = next(results)
        except StopIteration:
            return
        except Exception as error:  # whatever a model or a provider raises
            logger.debug("work stopped", exc_info=True)
            raise _WorkError(Failure.from_error(error)) from error
        yield result
