"""Files of rows, and a quick aligner."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

from tests.bulk.rows import make_rows

Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write rows, or lines as they are, to a JSON Lines file."""

    def write(rows: Iterable[Any] | None = None, name: str = "in.jsonl") -> Path:
        lines = [
            row if isinstance(row, str) else json.dumps(row)
            for row in (make_rows() if rows is None else rows)
        ]
        path = tmp_path / name
        path.write_text("".join(f"{line}\n" for line in lines), encoding="utf-8")
        return path

    return write


@pytest.fixture
def writer_source(tiny_model_dir: Callable[..., Path]) -> dict[str, Any]:
    """Arguments of an aligner that always writes the same."""
    directory = tiny_model_dir(prompt="aligner-smol", writes="Cool water, 😀 kindly.")
    return {"model": str(directory), "device": "cpu"}
