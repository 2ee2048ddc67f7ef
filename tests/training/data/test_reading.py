"""Reading and writing files and data sets; a broken one names file and line."""

from __future__ import annotations

import gzip
import json
import stat
import sys
from pathlib import Path
from typing import Any

import datasets
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligner_integrations.errors import DataError, MissingExtraError
from aligner_integrations.training.data import Triple, read_triples, write_triples
from tests.training.data.conftest import Write

ROW = {"question": "Eggs?", "answer": "No.", "correction": "Boil them."}
texts = st.text(st.characters(exclude_categories=["Cs"]), min_size=1).filter(str.strip)
triples = st.builds(
    Triple,
    texts,
    texts,
    texts,
    st.text(st.characters(exclude_categories=["Cs"])),
    st.dictionaries(st.sampled_from(["source", "licence"]), texts),
)


@pytest.mark.parametrize("name", ["data.jsonl", "data.parquet"])
@given(st.lists(triples, min_size=1, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=40)
def test_round_trip(tmp_path: Path, name: str, wanted: list[Triple]) -> None:
    path = tmp_path / name
    assert write_triples(wanted, path) == len(wanted)
    got = list(read_triples(path))
    for triple, original in zip(got, wanted, strict=True):
        assert (triple.question, triple.answer, triple.correction, triple.kind) == (
            original.question,
            original.answer,
            original.correction,
            original.kind,
        )
        assert {k: v for k, v in triple.meta.items() if v is not None} == original.meta
    assert [triple.place for triple in got] == [f"{path}:{n + 1}" for n in range(len(got))]


def test_lines_are_counted_as_an_editor_does(write: Write) -> None:
    separator = {**ROW, "answer": "a\u2028b\u0085c\x0bd"}
    path = write([b"\xef\xbb\xbf" + json.dumps(ROW).encode(), b"", separator, b"  ", ROW])
    path.write_bytes(path.read_bytes().replace(b"\\u2028", "\u2028".encode())[:-1])
    got = list(read_triples(path))
    assert [triple.place.rpartition(":")[2] for triple in got] == ["1", "3", "5"]
    assert got[1].answer == separator["answer"]


def test_windows_line_ends(write: Write) -> None:
    path = write([json.dumps(ROW).encode() + b"\r"] * 2)
    assert [triple.correction for triple in read_triples(path)] == ["Boil them."] * 2


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (b'{"question": "Eg', 'invalid JSON: \'{"question": "Eg\': Unterminated string starting'),
        (b"\xff\xfe", "not UTF-8: byte 1 of the line is b'\\xff'; convert the file to UTF-8"),
        (b"[1, 2]", "not an object: [1, 2] has no fields; write one object a line"),
        (b"[" * 100_000, "invalid JSON: '[[[["),
        (b'{"a": ' + b"9" * 5000 + b"}", "invalid JSON: "),
        (b"{}", "missing field: no 'question' among no fields"),
    ],
)
def test_broken_lines_name_file_and_line(write: Write, line: bytes, message: str) -> None:
    path = write([ROW, ROW, line, ROW])
    with pytest.raises(DataError) as caught:
        list(read_triples(path))
    assert str(caught.value).startswith(f"{path}:3: {message}")
    assert len(str(caught.value)) < 500


def test_rows_before_a_broken_one_come_first(write: Write) -> None:
    stream = read_triples(write([ROW] * 200 + [b"{"]))
    assert sum(1 for _, triple in zip(range(200), stream, strict=False)) == 200
    with pytest.raises(DataError, match=r"data\.jsonl:201: invalid JSON"):
        next(stream)


def test_broken_first_line_does_not_hide_the_layout(write: Write) -> None:
    path = write([b"{", ROW])
    assert len(list(read_triples(path, on_error="skip"))) == 1


def test_skipping_is_logged(write: Write, caplog: pytest.LogCaptureFixture) -> None:
    path = write([ROW, {**ROW, "answer": ""}, {**ROW, "answer": ""}])
    with caplog.at_level("INFO"):
        assert len(list(read_triples(path, on_error="skip"))) == 1
    assert f"{path}: 2 rows left out: empty" in caplog.text


@pytest.mark.parametrize("content", [[], [b"", b"  "]])
def test_empty_file(write: Write, content: list[bytes]) -> None:
    with pytest.raises(DataError, match=r"data\.jsonl: holds no rows"):
        list(read_triples(write(content)))


def test_sources_that_are_none(tmp_path: Path) -> None:
    for source, message in [
        (tmp_path / "no.jsonl", "no such file"),
        (tmp_path, "is a folder that datasets did not save"),
        ({"train": [ROW]}, "dict with 'train' holds several splits"),
        (5, "5 is no file"),
        (["text"], "list:1: not an object"),
    ]:
        with pytest.raises(DataError, match=message):
            list(read_triples(source))
    (tmp_path / "bad.parquet").write_bytes(b"not parquet")
    with pytest.raises(DataError, match=r"bad\.parquet: can't be read as Parquet"):
        list(read_triples(tmp_path / "bad.parquet"))
    (tmp_path / "bad.jsonl.gz").write_bytes(b"not gzip")
    with pytest.raises(DataError, match=r"bad\.jsonl\.gz: can't be read"):
        list(read_triples(tmp_path / "bad.jsonl.gz"))


def test_huge_line(write: Write) -> None:
    huge = "Ei 🥚 " * 1_000_000
    [first, second] = read_triples(write([{**ROW, "answer": huge}, ROW]))
    assert first.answer == huge
    assert second.place.endswith(":2")


def test_gzip(tmp_path: Path) -> None:
    path = tmp_path / "data.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(ROW).encode()))
    assert [triple.place for triple in read_triples(path)] == [f"{path}:1"]


def test_datasets(tmp_path: Path) -> None:
    data = datasets.Dataset.from_list([ROW, {**ROW, "answer": "Ja 🥚"}], split="train")
    got = list(read_triples(data))
    assert [triple.place for triple in got] == ["Dataset[train]:1", "Dataset[train]:2"]
    assert [t.answer for t in read_triples(data.to_iterable_dataset())] == ["No.", "Ja 🥚"]
    data.save_to_disk(tmp_path / "saved")
    assert list(read_triples(tmp_path / "saved")) == got
    whole = datasets.DatasetDict({"train": data, "test": data})
    with pytest.raises(DataError, match="DatasetDict with 'train', 'test' holds several splits"):
        list(read_triples(whole))
    whole.save_to_disk(tmp_path / "whole")
    with pytest.raises(DataError, match="whole: holds the splits 'train', 'test'"):
        list(read_triples(tmp_path / "whole"))


def test_datasets_of_messages(tmp_path: Path) -> None:
    say = [{"role": "user", "content": "Eggs?"}]
    row = {
        "prompt": "Eggs?",
        "chosen": [*say, {"role": "assistant", "content": "Boil them."}],
        "rejected": [*say, {"role": "assistant", "content": "No."}],
    }
    data = datasets.Dataset.from_list([row])
    data.to_parquet(tmp_path / "data.parquet")
    for source in (data, tmp_path / "data.parquet"):
        assert [triple.answer for triple in read_triples(source)] == ["No."]


def test_a_failed_write_leaves_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "data.jsonl"
    good = Triple("Eggs?", "No.", "Boil them.")
    write_triples([good], path)

    def broken() -> Any:
        yield good
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_triples(broken(), path)
    assert list(read_triples(path)) == [good]
    assert [child.name for child in path.parent.iterdir()] == ["data.jsonl"]


def test_written_files_are_readable_by_others(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    write_triples([Triple("a", "b", "c")], tmp_path / "data.jsonl")
    modes = [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ("plain", "data.jsonl")]
    assert modes[0] == modes[1]


def test_mixed_types_do_not_fit_parquet(tmp_path: Path) -> None:
    rows = [Triple("a", "b", "c", meta={"x": 1}), Triple("a", "b", "c", meta={"x": "one"})]
    with pytest.raises(DataError, match=r"a field has values of several types .* write \.jsonl"):
        write_triples(rows, tmp_path / "data.parquet")


def test_missing_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    (tmp_path / "x.parquet").touch()
    with pytest.raises(MissingExtraError, match=r"aligner-integrations\[train\]"):
        list(read_triples(tmp_path / "x.parquet"))


def test_importing_is_light() -> None:
    import subprocess

    script = "import sys, aligner_integrations.training.data\nprint(*sys.modules)"
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    heavy = {"torch", "transformers", "datasets", "pyarrow", "datasketch", "langchain_core"}
    assert not heavy & set(done.stdout.split())
