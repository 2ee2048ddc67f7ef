"""An input is never in memory as a whole."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.bulk.rows import WRITES

SCRIPT = """
import sys
from aligner_integrations import Aligner
from aligner_integrations.benchmarking.memory import read_peak
from aligner_integrations.bulk import correct_file

def peak():
    return read_peak() >> 20

model, small, large, folder = sys.argv[1:]
aligner = Aligner.from_pretrained(model, device="cpu")
for name in ("a.jsonl", "a.parquet"):
    correct_file(aligner, small, f"{folder}/{name}")
before = peak()
report = correct_file(aligner, large, f"{folder}/b.jsonl")
print(peak() - before, report.rows)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the peak is in other units there")
def test_memory_does_not_grow_with_the_input(
    tiny_model_dir: Callable[..., Path], tmp_path: Path
) -> None:
    line = json.dumps({"question": "q", "answer": "[1]", "rest": "x" * 8000}) + "\n"
    small, large = tmp_path / "small.jsonl", tmp_path / "large.jsonl"
    small.write_text(line * 1000)
    with large.open("w") as file:
        for _ in range(20):
            file.write(line * 1000)
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [
            *(sys.executable, "-c", SCRIPT),
            str(tiny_model_dir(prompt="aligner-smol", writes=WRITES)),
            *(str(small), str(large), str(tmp_path)),
        ],
        capture_output=True,
        text=True,
        check=True,
        cwd=Path(__file__).parents[2],
    )
    grown, rows = map(int, done.stdout.split())
    assert rows == 20_000
    assert grown < 40, f"{grown} MiB more for a file of {large.stat().st_size >> 20} MiB"
