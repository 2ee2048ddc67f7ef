"""`correct_file`: rows in order, each once, and what a second run makes of the first."""

from __future__ import annotations

import json
import os
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from tqdm import tqdm

from aligner_integrations import Aligner
from aligner_integrations.bulk import correct_file
from aligner_integrations.engines.base import Job
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.errors import ConfigurationError, CorrectionError, DataError, ServerError
from tests.bulk.conftest import Write
from tests.bulk.rows import WRITES, make_rows, read


class Broken:
    """Makes an engine fail for some questions, as a server or a full memory would."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.questions: set[str] = set()
        self.error: Exception = CorrectionError("out of memory")
        self.asked: list[str] = []
        submit = LocalEngine.submit

        def submit_some(engine: LocalEngine, jobs: Sequence[Job]) -> None:
            self.asked += [job.question for job in jobs]
            for job in jobs:
                if job.question in self.questions:
                    job.emit(self.error)
            submit(engine, [job for job in jobs if job.question not in self.questions])

        monkeypatch.setattr(LocalEngine, "submit", submit_some)


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> Broken:
    return Broken(monkeypatch)


def test_rows_keep_their_order_and_fields(writer: Aligner, write: Write, tmp_path: Path) -> None:
    report = correct_file(writer, write(), out := tmp_path / "sub" / "out.jsonl")
    rows = read(out)
    assert [row["id"] for row in rows] == [0, 1, 2, 4, *range(7, 20)]
    assert {row["id"]: row["correction"] for row in rows if row["id"] % 7 == 0} == {
        0: WRITES,
        7: WRITES,
        14: WRITES,
    }
    assert rows[1]["correction"] == rows[1]["answer"] == '{"n": 1}'
    assert rows[0]["aligner"] == {
        "changed": True,
        "similarity": rows[0]["aligner"]["similarity"],
        "model": writer.name,
        "policy": None,
        "error": None,
        "skipped": None,
        "lost": 0,
        "strength": 0.0,
    }
    assert rows[1]["aligner"]["skipped"] == "json"
    assert (report.rows, report.changed, report.failed, report.resumed) == (20, 3, 3, 0)
    assert report.failures is not None
    failed = read(report.failures)
    assert [line["row"] for line in failed] == [4, 6, 7]
    assert "no 'answer' or 'response' among the fields" in failed[0]["reason"]
    assert failed[1]["reason"].startswith("ContextOverflowError: ")
    assert failed[1]["input"]["id"] == 5
    assert failed[2]["reason"].startswith("invalid JSON: ")
    assert failed[2]["input"] == "no JSON"
    assert failed[2]["place"].endswith("in.jsonl:7")
    assert sorted(path.name for path in out.parent.iterdir()) == [
        "out.jsonl",
        "out.jsonl.failed.jsonl",
        "out.jsonl.state.json",
    ]


def test_json_stays_as_it_was_written(writer: Aligner, write: Write, tmp_path: Path) -> None:
    line = '{ "price" : 1.10, "big": 123456789012345678901, "s": "\\ud83d", "question":"", '
    line += '"answer": ""  }'
    correct_file(writer, write([line, "", "  "]), out := tmp_path / "out.jsonl")
    assert out.read_text().startswith(line.rstrip("} ") + ', "correction": "", "aligner": {')
    assert read(out)[0]["aligner"]["skipped"] == "blank"


def test_surrogates_are_one_row_that_fails(writer: Aligner, write: Write, tmp_path: Path) -> None:
    rows = [{"question": "q", "answer": "a\ud800"}, {"question": "q", "answer": "[1]"}]
    report = correct_file(writer, write(rows), tmp_path / "out.jsonl")
    assert report.failures is not None
    (failed,) = read(report.failures)
    assert failed["reason"].startswith("InvalidTextError: ")
    assert failed["input"]["answer"] == "a\ud800"


def test_a_lock_of_bars_that_nobody_gives_back(
    writer: Aligner, write: Write, tmp_path: Path
) -> None:
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with tqdm.get_lock():
            held.set()
            done.wait(60)

    holder = threading.Thread(target=hold)
    holder.start()
    try:
        assert held.wait(60)
        assert correct_file(writer, write(), tmp_path / "out.jsonl").rows == 20
        assert holder.is_alive(), "it gave the lock back before the run was done"
    finally:
        done.set()
        holder.join()


def test_other_names(writer: Aligner, write: Write, tmp_path: Path) -> None:
    rows = [{"prompt": "q", "response": "So.", "correction": "x", "aligner": 1}]
    path = write(rows)
    with pytest.raises(DataError, match=r"in\.jsonl:1: field in the way: .* --correction-field"):
        correct_file(writer, path, tmp_path / "a.jsonl")
    correct_file(
        writer, path, out := tmp_path / "b.jsonl", correction_field="mine", record_field="how"
    )
    assert read(out)[0]["mine"] == WRITES
    assert read(out)[0]["how"]["changed"]
    own = write([{"ask": "q", "say": "So."}], "own.jsonl")
    with pytest.raises(DataError, match="no 'question' or 'prompt' among the fields"):
        correct_file(writer, own, tmp_path / "c.jsonl")
    report = correct_file(
        writer, own, tmp_path / "d.jsonl", question_field="ask", answer_field="say"
    )
    assert report.changed == 1


def test_policies_put_something_in_place(writer: Aligner, write: Write, tmp_path: Path) -> None:
    report = correct_file(
        writer, write(), out := tmp_path / "out.jsonl", on_overflow="original", on_error="refuse"
    )
    assert report.failed == 2
    (row,) = (row for row in read(out) if row["id"] == 5)
    assert row["correction"] == row["answer"]
    assert row["aligner"]["policy"] == "original"


def test_a_torn_end_is_cut_off(writer: Aligner, write: Write, tmp_path: Path) -> None:
    """As after a kill: files are longer than the last checkpoint says."""
    whole, out = tmp_path / "whole.jsonl", tmp_path / "out.jsonl"
    path = write()
    correct_file(writer, path, whole)
    correct_file(writer, path, out)
    lines, failures = out.read_bytes().splitlines(keepends=True), Path(f"{out}.failed.jsonl")
    state = json.loads(Path(f"{out}.state.json").read_text())
    kept = [b"".join(lines[:4]), failures.read_bytes().splitlines(keepends=True)[0]]
    state |= {"phase": "correct"}
    state["progress"] = {
        "rows": 5,
        "changed": 1,
        "failed": 1,
        "size": len(kept[0]),
        "failed_size": len(kept[1]),
    }
    Path(f"{out}.state.json").write_text(json.dumps(state))
    for torn in (b'{"id": 7, "quest', lines[5] + b"{", b"\0" * 100):
        out.write_bytes(kept[0] + torn)
        failures.write_bytes(kept[1] + torn)
        Path(f"{out}.state.json").write_text(json.dumps(state))
        report = correct_file(writer, path, out)
        assert report.resumed == 5
        assert (report.rows, report.changed, report.failed) == (20, 3, 3)
        assert out.read_bytes() == whole.read_bytes()
        assert failures.read_bytes() == Path(f"{whole}.failed.jsonl").read_bytes()
    out.write_bytes(kept[0][:-9])
    Path(f"{out}.state.json").write_text(json.dumps(state))
    with pytest.raises(DataError, match="it was changed since"):
        correct_file(writer, path, out)


def test_a_run_that_is_done_does_nothing(
    writer: Aligner, write: Write, tmp_path: Path, broken: Broken
) -> None:
    path, out = write(), tmp_path / "out.jsonl"
    first = correct_file(writer, path, out)
    before, asked = out.stat().st_mtime_ns, len(broken.asked)
    again = correct_file(writer, path, out)
    assert out.stat().st_mtime_ns == before
    assert len(broken.asked) == asked > 0
    assert (again.rows, again.changed, again.failed) == (first.rows, first.changed, first.failed)
    assert again.resumed == 20
    out.unlink()
    with pytest.raises(DataError, match="was removed"):
        correct_file(writer, path, out)
    assert correct_file(writer, path, out, resume=False).resumed == 0


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"strength": 0.5}, "options.strength was 0.0 and is 0.5"),
        ({"on_error": "refuse"}, "options.on_error was 'raise' and is 'refuse'"),
        ({"question_field": "question"}, "options.question_field was"),
        ({"protect": ["urls"]}, "options.protect was [] and is ['urls']"),
        ({"aligner": True}, "model.model was"),
        ({"input": True}, "input.modified was"),
    ],
)
def test_other_options_are_refused(
    writer: Aligner,
    tiny_aligner: Aligner,
    write: Write,
    tmp_path: Path,
    change: dict[str, Any],
    named: str,
) -> None:
    path, out = write(), tmp_path / "out.jsonl"
    correct_file(writer, path, out)
    before = out.read_bytes()
    arguments = dict(change)
    if arguments.pop("input", False):
        os.utime(path, (1, 1))
    aligner = tiny_aligner if arguments.pop("aligner", False) else writer
    with pytest.raises(DataError) as caught:
        correct_file(aligner, path, out, **arguments)
    assert named in str(caught.value)
    assert "--no-resume" in str(caught.value)
    assert out.read_bytes() == before


def test_what_is_there_is_not_overwritten(writer: Aligner, write: Write, tmp_path: Path) -> None:
    path, out = write(), tmp_path / "out.jsonl"
    out.write_text("precious\n")
    with pytest.raises(DataError, match="is there already"):
        correct_file(writer, path, out)
    assert out.read_text() == "precious\n"
    with pytest.raises(ConfigurationError, match="is the input too"):
        correct_file(writer, path, path)
    with pytest.raises(ConfigurationError, match=r"outputs are \.jsonl, "):
        correct_file(writer, path, tmp_path / "out.txt")
    with pytest.raises(DataError, match="no such file"):
        correct_file(writer, tmp_path / "nope.jsonl", out)


def test_one_run_at_a_time(writer: Aligner, write: Write, tmp_path: Path) -> None:
    from aligner_integrations.locking import lock

    held = tmp_path / ".out.jsonl.lock"
    with held.open("ab") as file:
        lock(file, held)
        with pytest.raises(DataError, match="another run is writing"):
            correct_file(writer, write(), tmp_path / "out.jsonl")
    assert correct_file(writer, write(), tmp_path / "out.jsonl").rows == 20


@pytest.mark.parametrize("name", ["out.jsonl", "out.csv"])
def test_failed_rows_are_tried_again(
    writer: Aligner, write: Write, tmp_path: Path, broken: Broken, name: str
) -> None:
    path, out, whole = write(), tmp_path / name, tmp_path / f"whole-{name}"
    correct_file(writer, path, whole)
    broken.questions = {"How 0?", "How 14?"}
    assert correct_file(writer, path, out).failed == 5
    broken.questions, broken.asked = {"How 14?"}, []
    assert correct_file(writer, path, out, retry_failed=True).failed == 4
    assert sorted(broken.asked) == ["How 0?", "How 14?", "How 5?"]
    broken.questions = set()
    report = correct_file(writer, path, out, retry_failed=True)
    assert (report.rows, report.changed, report.failed) == (20, 3, 3)
    assert out.read_bytes() == whole.read_bytes()
    assert read(Path(f"{out}.failed.jsonl")) == read(Path(f"{whole}.failed.jsonl"))


def test_an_outage_stops_the_run(
    writer: Aligner, write: Write, tmp_path: Path, broken: Broken
) -> None:
    """Rows do not fail because the server is away, whatever the policy; JSON passes through."""
    rows = [{"question": f"{i}", "answer": "[]" if i % 2 else f"So {i}."} for i in range(80)]
    path, out = write(rows), tmp_path / "out.jsonl"
    broken.error = ServerError("the server can't be reached.")
    broken.questions = {str(i) for i in range(20, 80)}
    with pytest.raises(ServerError, match=r"16 rows on end .* can't be reached"):
        correct_file(writer, path, out, on_error="original")
    broken.questions = set()
    report = correct_file(writer, path, out, on_error="original")
    assert (report.rows, report.changed, report.failed) == (80, 40, 0)
    assert all(row["aligner"]["policy"] is None for row in read(out))


def test_wrong_options_end_the_run_before_a_row_is_lost(
    writer: Aligner, write: Write, tmp_path: Path
) -> None:
    with pytest.raises(ConfigurationError, match="steering"):
        correct_file(writer, write(make_rows()), tmp_path / "out.jsonl", strength=0.5)
    with pytest.raises(ConfigurationError, match="not a policy"):
        correct_file(writer, write(), tmp_path / "b.jsonl", on_error="ignore")  # type: ignore[arg-type]
    assert not read(tmp_path / "out.jsonl")
