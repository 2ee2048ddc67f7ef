"""Rows of all kinds, and reading what came of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

WRITES = "Cool water, 😀 kindly."


def make_rows(count: int = 20) -> list[Any]:
    """Every seventh is corrected, the others pass through; three fail."""
    rows: list[Any] = [
        {"id": i, "question": f"How {i}?", "answer": f'{{"n": {i}}}' if i % 7 else f"So {i}."}
        for i in range(count)
    ]
    rows[3]["answer"] = None
    rows[5]["answer"] = "word " * 700  # longer than the context
    rows[6] = "no JSON"
    return rows


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON Lines file."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]
