"""Killed with signal 9 at any moment, and run again: as if nothing had been."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aligner_integrations import Aligner
from aligner_integrations.bulk import correct_file
from tests.bulk.conftest import Write
from tests.bulk.rows import WRITES, make_rows, read


@pytest.mark.skipif(sys.platform == "win32", reason="there is no fork and no signal 9")
@pytest.mark.parametrize(
    ("name", "broken"), [("out.jsonl", ""), ("out.parquet", ""), ("out.jsonl", "9")]
)
def test_each_row_once_however_often_it_is_killed(
    writer: Aligner,
    tiny_model_dir: Callable[..., Path],
    write: Write,
    tmp_path: Path,
    name: str,
    broken: str,
) -> None:
    rows = make_rows(300)
    rows[20::50] = [json.dumps({"question": "?", "answer": None})] * len(rows[20::50])
    path, out, whole = write(rows), tmp_path / name, tmp_path / f"whole-{name}"
    model = tiny_model_dir(prompt="aligner-smol", writes=WRITES)
    expected = correct_file(writer, path, whole)
    done = subprocess.run(  # noqa: S603 - our own script
        [
            *(sys.executable, "-m", "tests.bulk.killing"),
            *(str(model), str(path), str(out), "7", broken),
        ],
        capture_output=True,
        text=True,
        check=False,
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 0, done.stderr
    seen = json.loads(done.stdout)
    assert len(set(seen)) >= 5, "the kills came too early or too late to show anything"
    assert out.read_bytes() == whole.read_bytes()
    failures = [Path(f"{path}.failed.jsonl") for path in (out, whole)]
    assert failures[0].read_bytes() == failures[1].read_bytes()
    numbers = [line["row"] for line in read(failures[0])]
    assert numbers == sorted(set(numbers))
    assert len(numbers) + len(_read_ids(out)) == expected.rows == 300
    assert _read_ids(out) == sorted(set(_read_ids(out)))


def _read_ids(path: Path) -> list[Any]:
    if path.suffix == ".jsonl":
        return [row["id"] for row in read(path)]
    import pyarrow.parquet as pq

    return list(pq.read_table(path)["id"].to_pylist())
