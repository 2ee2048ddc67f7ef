"""Parquet and CSV: what goes in comes out with its types."""

from __future__ import annotations

import csv
import datetime
import decimal
import gzip
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aligner_integrations import Aligner
from aligner_integrations.bulk import correct_file
from aligner_integrations.bulk.sources import open_source
from aligner_integrations.errors import DataError
from tests.bulk.conftest import Write
from tests.bulk.rows import WRITES, read


def make_table() -> Any:
    """Columns of the types that JSON has no form for."""
    count = 5
    return pa.table(
        {
            "id": pa.array([1, None, 2**62, 4, 5], pa.int64()),
            "question": pa.array(["q"] * count),
            "answer": pa.array(["So.", "[1]", None, "", "Well."], pa.large_string()),
            "when": pa.array([datetime.datetime(2024, 1, 2, 3)] * count, pa.timestamp("us", "UTC")),
            "price": pa.array([decimal.Decimal("1.10"), *[None] * 4], pa.decimal128(9, 2)),
            "bytes": pa.array([b"\xff", None, b"", b"a", b"b"]),
            "kind": pa.array(["a", "b", "a", None, "a"]).dictionary_encode(),
            "nested": pa.array([[{"x": [1, None]}], [], None, [None], [{"x": None}]]),
            "small": pa.array([1.5, float("nan"), None, 0, 1], pa.float32()),
        }
    ).replace_schema_metadata({"own": "kept", "huggingface": "{}"})


def test_parquet_keeps_its_columns(writer: Aligner, tmp_path: Path) -> None:
    path, out, table = tmp_path / "in.parquet", tmp_path / "out.parquet", make_table()
    pq.write_table(table, path, row_group_size=2)
    report = correct_file(writer, path, out)
    assert (report.rows, report.changed, report.failed) == (5, 2, 1)
    written = pq.read_table(out)
    kept = table.take([0, 1, 3, 4])
    for name in table.column_names:
        assert written.schema.field(name) == table.schema.field(name)
        assert str(written[name].to_pylist()) == str(kept[name].to_pylist())
    assert written["correction"].to_pylist() == [WRITES, "[1]", "", WRITES]
    assert [row["skipped"] for row in written["aligner"].to_pylist()] == [
        None,
        "json",
        "blank",
        None,
    ]
    assert written.schema.metadata == {b"own": b"kept"}
    assert report.failures is not None
    (failed,) = read(report.failures)
    assert failed["row"] == 3
    assert failed["input"]["id"] == 2**62
    assert Path(f"{out}.partial.jsonl").exists()  # for --retry-failed


def test_parquet_to_json(writer: Aligner, tmp_path: Path) -> None:
    path, out = tmp_path / "in.parquet", tmp_path / "out.jsonl"
    pq.write_table(make_table(), path)
    correct_file(writer, path, out)
    row = read(out)[0]
    assert row["when"] == "2024-01-02T03:00:00+00:00"
    assert (row["price"], row["bytes"], row["nested"]) == ("1.10", "/w==", [{"x": [1, None]}])


def test_parquet_is_read_from_any_row(tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    pq.write_table(pa.table({"id": range(1000)}), path, row_group_size=300)
    for skip in (0, 1, 299, 300, 301, 777, 999, 1000):
        rows = list(open_source(path).read(skip))
        assert [row.number for row in rows] == list(range(skip + 1, 1001))
        assert all(row.fields["id"] == row.number - 1 for row in rows)
    assert open_source(path).count() == 1000


def test_json_to_parquet_finds_the_types(writer: Aligner, write: Write, tmp_path: Path) -> None:
    rows: list[Any] = [
        {"question": "q", "answer": "[]", "n": None, "deep": {"a": 1}} for _ in range(1500)
    ]
    rows[1200] |= {"n": 2, "late": ["x", None]}
    rows[1300] |= {"n": 0.5, "deep": {"b": [True]}}
    rows[1400]["bad"] = "\ud800"
    out = tmp_path / "out.parquet"
    report = correct_file(writer, write(rows), out)
    assert report.failed == 1
    table = pq.read_table(out)
    assert table.num_rows == 1499
    assert table.schema.field("n").type == pa.float64()
    assert table["n"][1200].as_py() == 2.0
    assert table["late"][1200].as_py() == ["x", None]
    assert table["deep"][1300].as_py() == {"a": None, "b": [True]}
    assert "bad" not in table.column_names


def test_what_parquet_cannot_hold_is_said_before_the_work(
    writer: Aligner, write: Write, tmp_path: Path
) -> None:
    rows = [{"question": "q", "answer": "a", "n": 1}, {"question": "q", "answer": "a", "n": "one"}]
    with pytest.raises(DataError, match=r"values of several types.* write \.jsonl"):
        correct_file(writer, write(rows), tmp_path / "a.parquet")
    empty = [{"question": "q", "answer": "a", "n": {}}]
    with pytest.raises(DataError, match="Parquet can't hold its fields"):
        correct_file(writer, write(empty, "b.jsonl"), tmp_path / "b.parquet")
    clash = [{"question": "q", "answer": "a"}] * 150
    clash.append({"question": "q", "answer": "a", "aligner": "mine"})
    with pytest.raises(DataError, match="has a field 'aligner'"):
        correct_file(writer, write(clash, "c.jsonl"), tmp_path / "c.parquet")


def test_csv_round_trip(writer: Aligner, tmp_path: Path) -> None:
    values = ['a "quoted", text', "two\r\nlines\nand more", " spaces ", "", "0012", "Ü", "=1+1"]
    path, out = tmp_path / "in.csv", tmp_path / "out.csv"
    with path.open("w", newline="", encoding="utf-8-sig") as file:
        table = csv.writer(file)
        table.writerow(["question", "answer", "odd, name"])
        table.writerows(["q", f"[{i}]" if i else "So.", text] for i, text in enumerate(values))
    with path.open("a", newline="") as file:
        file.write("q,[7]\r\n\r\nq,[8],x,too,many\r\n")
    with path.open("ab") as binary:
        binary.write(b"q,[9],\xff\r\n")
    report = correct_file(writer, path, out)
    with out.open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["odd, name"] for row in rows] == [*values, ""]
    assert [row["correction"] for row in rows] == [WRITES, *(f"[{i}]" for i in range(1, 8))]
    assert rows[0]["aligner_changed"] == "true"
    assert rows[1]["aligner_skipped"] == "json"
    assert (report.rows, report.failed) == (10, 2)
    assert report.failures is not None
    failed = read(report.failures)
    assert [line["row"] for line in failed] == [9, 10]
    assert [line["reason"].partition(":")[0] for line in failed] == ["too many fields", "not UTF-8"]
    assert open_source(path).count() == 10
    assert failed[0]["place"] == f"{path}:13"  # a line break in a field counts


def test_csv_to_parquet_and_tsv(writer: Aligner, tmp_path: Path) -> None:
    path = tmp_path / "in.tsv"
    path.write_text("question\tanswer\tn\nq\t[1]\t07\n")
    correct_file(writer, path, tmp_path / "out.parquet")
    assert pq.read_table(tmp_path / "out.parquet")["n"].to_pylist() == ["07"]
    correct_file(writer, path, tmp_path / "out.tsv")
    assert (
        (tmp_path / "out.tsv").read_text().startswith("question\tanswer\tn\tcorrection\taligner_")
    )
    assert not Path(f"{tmp_path / 'out.tsv'}.partial.jsonl").exists()


def test_json_to_csv_writes_nested_values_as_json(
    writer: Aligner, write: Write, tmp_path: Path
) -> None:
    rows = [{"question": "q", "answer": "[]", "n": 1, "x": None}]
    rows.append({"question": "q", "answer": "[]", "tags": ["a", 1], "x": True})
    correct_file(writer, write(rows), out := tmp_path / "out.csv")
    with out.open(newline="") as file:
        first, second = csv.DictReader(file)
    assert (first["n"], first["x"], first["tags"]) == ("1", "", "")
    assert (second["n"], second["x"], second["tags"]) == ("", "true", '["a", 1]')


def test_gzip_and_a_mark_at_the_beginning(writer: Aligner, tmp_path: Path) -> None:
    path = tmp_path / "in.jsonl.gz"
    with gzip.open(path, "wb") as file:
        file.write(b'\xef\xbb\xbf{"question": "q", "answer": "[1]"}\r\n\n{"question": "q"}')
    report = correct_file(writer, path, tmp_path / "out.jsonl")
    assert (report.rows, report.failed) == (2, 1)
    path.write_bytes(path.read_bytes()[:-12])
    with pytest.raises(DataError, match="can't be read as JSON Lines"):
        correct_file(writer, path, tmp_path / "b.jsonl")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.csv", "", "has no header"),
        ("b.csv", "question,answer,question\n", "two columns are called 'question'"),
        ("c.parquet", "no", "can't be read as Parquet"),
    ],
)
def test_broken_files(writer: Aligner, tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=message):
        correct_file(writer, tmp_path / name, tmp_path / "out.jsonl")
