"""The same on Ray's actors."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from aligner_integrations import Aligner
from aligner_integrations.bulk import correct_file
from tests.bulk.conftest import Write
from tests.bulk.rows import WRITES, make_rows, read

pytest.importorskip("ray", reason="needs the extra [ray]")

LOCAL = """
import ray
ray.init(address="local", num_cpus=2, include_dashboard=False, _node_ip_address="127.0.0.1")
from aligner_integrations.bulk import cluster
cluster._PORTION = 16
from aligner_integrations.cli import main
main()
"""


def test_two_workers_write_what_one_process_writes(
    writer: Aligner, tiny_model_dir: Callable[..., Path], write: Write, tmp_path: Path
) -> None:
    """A local Ray in a process of its own: more portions than actors, and the same bytes."""
    path, out, whole = write(make_rows(120)), tmp_path / "out.jsonl", tmp_path / "whole.jsonl"
    model = str(tiny_model_dir(prompt="aligner-smol", writes=WRITES))
    expected = correct_file(writer, path, whole)
    done = subprocess.run(  # noqa: S603 - our own command
        [
            *(sys.executable, "-c", LOCAL, "correct", "--no-progress", "--engine", "ray"),
            *("-m", model, "-i", str(path), "-o", str(out), "--workers", "2", "--device", "cpu"),
        ],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"},
        cwd=Path(__file__).parents[2],
    )
    assert done.returncode == 1, done.stderr  # three rows fail
    assert "120 rows in " in done.stdout
    assert out.read_bytes() == whole.read_bytes()
    failures = [Path(f"{path}.failed.jsonl") for path in (out, whole)]
    assert failures[0].read_bytes() == failures[1].read_bytes()
    assert len(read(failures[0])) == expected.failed == 3
