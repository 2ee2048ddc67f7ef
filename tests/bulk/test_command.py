"""``aligner correct --input ... --output ...``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aligner_integrations.cli.app import app
from tests.bulk.conftest import Write
from tests.bulk.rows import WRITES, read


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(app, ["correct", *map(str, arguments)])
    return result.exit_code, result.output


def test_the_command_corrects_a_file(
    tiny_model_dir: Callable[..., Path], write: Write, tmp_path: Path
) -> None:
    model = tiny_model_dir(prompt="aligner-smol", writes=WRITES)
    out = tmp_path / "out.jsonl"
    code, shown = run("-m", model, "-i", write(), "-o", out, "--batch-size", 4)
    assert code == 1  # rows have failed
    assert "3 changed, 3 failed" in shown
    assert "20/20" in shown  # the bar
    assert "out.jsonl.failed.jsonl" in shown.replace("\n", "")
    path, table = write([{"prompt": "q", "response": "So."}], "b.jsonl"), tmp_path / "b.csv"
    options = ["--no-progress", "--correction-field", "better"]
    code, shown = run("-m", model, "-i", path, "-o", table, *options)
    assert code == 0
    assert "1 rows in" in shown
    assert table.read_text().startswith("prompt,response,better,aligner_changed")


def test_the_bundled_model_corrects_a_file(write: Write, tmp_path: Path) -> None:
    rows = [
        {"question": "How do I cook rice?", "answer": "Cook it for 15 minutes. You idiot."},
        {"question": "What is the capital of France?", "answer": "Paris."},
        {"question": "What is 2 + 2?", "answer": "4."},
    ]
    code, _ = run("-i", write(rows), "-o", out := tmp_path / "out.jsonl", "--no-progress")
    assert code == 0
    assert [row["correction"] for row in read(out)] == ["Cook it for 15 minutes.", "Paris.", "4."]


@pytest.mark.parametrize(
    "arguments",
    [["-q", "q"], ["-i", "in.jsonl"], ["-q", "q", "-a", "a", "-i", "x", "-o", "y"], []],
)
def test_half_of_what_is_needed(arguments: list[str]) -> None:
    code, shown = run(*arguments)
    assert code == 2
    assert "--input" in shown
