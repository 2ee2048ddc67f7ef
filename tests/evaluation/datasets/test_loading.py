"""Sources, draws, names and errors of `load_samples`."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.evaluation.datasets import load_samples

ROWS = [{"question": f"Boil {n} eggs?", "answer": f"For {n} minutes."} for n in range(20)]


def as_lines(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


def make_source(tmp_path: Path, form: str) -> Any:
    from datasets import Dataset

    path = tmp_path / f"eggs.{form}"
    if form == "rows":
        return ROWS
    if form == "dataset":
        return Dataset.from_list(ROWS)
    if form == "folder":
        Dataset.from_list(ROWS).save_to_disk(str(path))
    elif form == "parquet":
        Dataset.from_list(ROWS).to_parquet(path)
    elif form == "json":
        path.write_text(json.dumps(ROWS), encoding="utf-8-sig")
    elif form == "csv":
        lines = ["question,answer", *(f"{r['question']},{r['answer']}" for r in ROWS), ""]
        path.write_text("\r\n".join(lines), encoding="utf-8-sig")
    elif form == "jsonl.gz":
        path.write_bytes(gzip.compress(as_lines(ROWS).encode()))
    else:
        path.write_text(as_lines(ROWS))
    return path


FORMS = ["rows", "dataset", "folder", "parquet", "json", "csv", "jsonl", "jsonl.gz", "lines.json"]


@pytest.mark.parametrize("form", FORMS)
def test_all_sources_say_the_same(tmp_path: Path, form: str) -> None:
    samples = load_samples(make_source(tmp_path, form), name="eggs")
    assert samples == load_samples(ROWS, name="eggs")
    assert len(samples) == 20


def test_names(tmp_path: Path) -> None:
    assert load_samples(make_source(tmp_path, "jsonl.gz"))[0].dataset == "eggs"
    assert load_samples(ROWS)[0].dataset == "plain"
    assert load_samples(ROWS, name="mine")[0].dataset == "mine"


def test_a_draw_goes_by_its_seed_and_keeps_the_order() -> None:
    everything = load_samples(ROWS)
    drawn = load_samples(ROWS, limit=5, seed=3)
    assert drawn == load_samples(ROWS, limit=5, seed=3)
    assert drawn != load_samples(ROWS, limit=5, seed=4)
    assert [sample for sample in everything if sample in drawn] == drawn
    assert len(drawn) == 5
    assert load_samples(ROWS, limit=99) == everything


def test_ids_go_by_the_text_and_are_unique() -> None:
    once = load_samples(ROWS[:2])
    again = load_samples([ROWS[1], ROWS[0], ROWS[0], ROWS[0]])
    assert [again[1].id, again[0].id] == [sample.id for sample in once]
    assert [sample.id for sample in again[2:]] == [f"{once[0].id}-2", f"{once[0].id}-3"]
    named = load_samples([{"id": "a", **ROWS[0]}, {"id": "a-2", **ROWS[0]}, {"id": "a", **ROWS[0]}])
    assert [sample.id for sample in named] == ["a", "a-2", "a-3"]


@pytest.mark.parametrize("limit", [0, -1, 2.5, True])
def test_a_limit_is_a_number_from_1(limit: Any) -> None:
    with pytest.raises(ConfigurationError, match="limit="):
        load_samples(ROWS, limit=limit)


def test_kinds_by_name() -> None:
    with pytest.raises(
        ConfigurationError, match="kind='xtest' is unknown; kinds are 'auto', 'xstest'"
    ):
        load_samples(ROWS, kind="xtest")
    copies = load_samples(ROWS, kind="copies")
    assert {sample.expected for sample in copies} == {"keep"}
    with pytest.raises(
        DataError, match=r"list:1: missing field: no 'prompt'.*BeaverTails-Evaluation"
    ):
        load_samples(ROWS, kind="beavertails-evaluation")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.jsonl", '{"question": "q"}\n{"question": ""}\n', r"a\.jsonl:2: empty"),
        ("a.jsonl", '{"question": "q"}\n{"question"\n', r"a\.jsonl:2: invalid JSON"),
        ("a.json", '[{"question": "q"}, {"question": 3}]', r"a\.json:2: wrong type"),
        ("a.json", '[{"question": "q"}, 7]', r"a\.json:2: not an object"),
        ("a.json", '[\n{"question": }]', r"a\.json:2: invalid JSON"),
        ("a.json", "7", r"a\.json: holds 7; it must be an array"),
        ("a.json", "[]", r"a\.json: holds no rows"),
        ("a.csv", 'question\n"a\nb"\n""\n', r"a\.csv:4: empty"),
        ("a.csv", "question,answer\nq,a\nq,a, b\n", r"a\.csv:3: too many fields"),
        ("a.csv", "", r"a\.csv: holds no rows"),
        ("a.csv", "colour,size\nred,3\n", r"a\.csv:2: no dataset is known with the columns colour"),
        ("a.jsonl", "7\n", r"a\.jsonl:1: not an object"),
    ],
)
def test_a_broken_row_is_named(tmp_path: Path, name: str, text: str, message: str) -> None:
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(DataError, match=message):
        load_samples(path)


def test_a_csv_field_may_be_long_and_the_limit_of_others_stays(tmp_path: Path) -> None:
    import csv

    before = csv.field_size_limit()
    path = tmp_path / "long.csv"
    path.write_text(f"question,answer\nq,{'a' * 200_000}\n")
    (sample,) = load_samples(path)
    assert len(sample.answer or "") == 200_000
    assert csv.field_size_limit() == before


def test_a_csv_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(b"question\n\xff\xfe\n")
    with pytest.raises(DataError, match=r"a\.csv: can't be read as CSV"):
        load_samples(path)


def test_splits(tmp_path: Path) -> None:
    from datasets import Dataset, DatasetDict

    both = DatasetDict({"train": Dataset.from_list(ROWS[:3]), "test": Dataset.from_list(ROWS[3:5])})
    assert len(load_samples(both, split="test")) == 2
    with pytest.raises(DataError, match=r"no split None; pass split= with one of 'train', 'test'"):
        load_samples(both)
    both.save_to_disk(str(tmp_path / "both"))
    assert len(load_samples(tmp_path / "both", split="train")) == 3
    with pytest.raises(DataError, match="no split 'dev'"):
        load_samples(tmp_path / "both", split="dev")
    path = make_source(tmp_path, "jsonl")
    with pytest.raises(DataError, match="is one file and has no split 'test'"):
        load_samples(path, split="test")


def test_the_hub_is_asked_for_ids_only(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    import datasets

    asked: list[tuple[Any, ...]] = []

    def load_dataset(*args: Any) -> Any:
        asked.append(args)
        if args[0] == "owner/gone":
            raise ConnectionError("the network is down")
        return datasets.DatasetDict({"validation": datasets.Dataset.from_list(ROWS)})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    assert len(load_samples("owner/eggs:boiled")) == 20
    assert len(load_samples("owner/eggs", split="validation")) == 20
    assert asked == [("owner/eggs", "boiled"), ("owner/eggs", None)]
    with pytest.raises(DataError, match=r"owner/gone: is no file.*the network is down; download"):
        load_samples("owner/gone")
    asked.clear()
    for missing in ("data/eggs.csv", "eggs", "a/b/c", tmp_path / "owner"):
        with pytest.raises(DataError, match="no such file, and no hub id"):
            load_samples(missing)
    assert asked == []
