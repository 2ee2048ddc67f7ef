"""Keeping results, and finding out only what is missing."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from aligner_integrations.errors import DataError
from aligner_integrations.evaluation.store import Failure, Store, complete


class Upper:
    """Work whose items are counted; some fail."""

    def __init__(self, *fail: str, stop: str | None = None) -> None:
        self.fail = fail
        self.stop = stop
        self.seen: list[str] = []
        self.closed = False

    def __call__(self, items: Sequence[str]) -> Iterator[tuple[int, Any]]:
        try:
            # Backwards: results need not come in order.
            for index in reversed(range(len(items))):
                item = items[index]
                if item == self.stop:
                    raise OSError("the network is gone\nsecond line")
                self.seen.append(item)
                yield index, Failure(f"no {item}") if item in self.fail else item.upper()
        finally:
            self.closed = True


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store(tmp_path / "new" / "results.sqlite") as opened:
        yield opened


WANTED = {"k1": "a", "k2": "b", "k3": "c"}


def test_results_come_in_order_and_are_found_out_once(store: Store) -> None:
    first = Upper()
    done = complete(store, "p", WANTED, first)
    assert list(done.items()) == [("k1", "A"), ("k2", "B"), ("k3", "C")]
    again = Upper()
    assert complete(store, "p", {**WANTED, "k4": "d"}, again) == done | {"k4": "D"}
    assert again.seen == ["d"]
    other = Upper()
    complete(store, "another phase", WANTED, other)
    assert len(other.seen) == 3


def test_failures_are_tried_again(store: Store, caplog: pytest.LogCaptureFixture) -> None:
    done = complete(store, "p", WANTED, Upper("b"), description="letters")
    assert done == {"k1": "A", "k2": Failure("no b"), "k3": "C"}
    assert "letters: 1 of 3 failed, the last: no b; run again to retry" in caplog.text
    again = Upper()
    assert complete(store, "p", WANTED, again)["k2"] == "B"
    assert again.seen == ["b"]


def test_many_failures_in_a_row_end_the_work(store: Store) -> None:
    work = Upper("c", "b")
    done = complete(store, "p", WANTED, work, patience=2)
    assert work.seen == ["c", "b"]
    assert work.closed
    assert done["k1"].reason == "not tried: 2 in a row failed before, no b"
    # One that is good in between, and the row is broken.
    assert complete(store, "q", WANTED, Upper("a", "c"), patience=2)["k2"] == "B"


def test_an_error_of_the_work_fails_what_is_left(store: Store) -> None:
    done = complete(store, "p", WANTED, Upper(stop="b"))
    assert done["k3"] == "C"
    reason = "OSError: the network is gone"
    assert done["k1"] == done["k2"] == Failure(reason)
    assert store.find("p", WANTED) == {"k3": "C"}


def test_work_that_forgets_something(store: Store) -> None:
    done = complete(store, "p", WANTED, lambda items: [(0, "A")])
    assert done["k2"] == Failure("nothing came back for it")


def test_an_interrupt_keeps_what_is_there(store: Store) -> None:
    def work(items: Sequence[str]) -> Iterator[tuple[int, str]]:
        yield 0, "A"
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        complete(store, "p", WANTED, work)
    assert store.find("p", WANTED) == {"k1": "A"}


def test_any_text_is_kept(store: Store) -> None:
    text = "half \ud83d, nul \0, line \u2028 end, 😀"
    store.put("p", "k", {"text": text})
    assert store.find("p", ["k"]) == {"k": {"text": text}}


def test_thousands_of_keys(store: Store) -> None:
    for number in range(1200):
        store.put("p", str(number), number)
    assert store.find("p", map(str, range(2000))) == {str(n): n for n in range(1200)}
    store.clear()
    assert store.find("p", ["1"]) == {}


def test_files_that_are_no_store(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("not a database, but long enough to be taken for one " * 40)
    with pytest.raises(DataError, match=r"notes\.txt: can't be used to keep results: file is not"):
        Store(path).__enter__()
    with pytest.raises(DataError, match="unable to open"):
        Store(tmp_path).__enter__()


def test_a_full_disk_is_named(store: Store) -> None:
    pages = store._database.execute("PRAGMA page_count").fetchone()[0]
    store._database.execute(f"PRAGMA max_page_count={pages}")
    with pytest.raises(DataError, match="full; if it is no store"):
        complete(store, "p", {"k": "a"}, lambda items: [(0, "A" * 100_000)])
    store._database.execute("PRAGMA max_page_count=4294967294")
    assert store.find("p", ["k"]) == {}


def test_two_processes_share_a_store(tmp_path: Path) -> None:
    path = tmp_path / "results.sqlite"
    with Store(path) as one, Store(path) as other:
        one.put("p", "k", 1)
        other.put("p", "k", 2)
        assert one.find("p", ["k"]) == {"k": 2}
    assert sqlite3.connect(path).execute("SELECT count(*) FROM results").fetchone() == (1,)


def test_failures_from_errors() -> None:
    assert Failure.from_error(ValueError("a\nb")).reason == "ValueError: a"
    assert Failure.from_error(TimeoutError()).reason == "TimeoutError"


def test_progress_counts_what_was_there(
    store: Store, capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.ERROR)
    complete(store, "p", {"k1": "a"}, Upper())
    complete(store, "p", WANTED, Upper("b"), description="letters", progress=True)
    shown = capsys.readouterr().err
    assert "letters:" in shown
    assert "3/3" in shown
    assert "failed=1" in shown
