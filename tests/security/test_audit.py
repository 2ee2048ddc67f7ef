"""The dependency audit fails on a known vulnerability, and on nothing else."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CLEAN = {"name": "a", "version": "1", "vulns": []}
BROKEN = {"name": "b", "version": "2", "vulns": [{"id": "CVE-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


@pytest.mark.parametrize(
    ("packages", "code", "line"),
    [
        ([CLEAN, UNKNOWN], 0, "1 of 2 packages, 0 known problems"),
        ([CLEAN, BROKEN], 1, "b 2: CVE-1, fixed in 3"),
        ([UNKNOWN], 0, "skipped: the index has no advisories"),
        (None, 0, "skipped: no route to host"),
    ],
)
def test_audit(tmp_path: Path, packages: list[object] | None, code: int, line: str) -> None:
    """pip-audit's own exit status is 1 both for findings and for a network that is away."""
    said = json.dumps({"dependencies": packages}) if packages is not None else ""
    stand_in = tmp_path / "pip-audit"
    stand_in.write_text(
        f"#!{sys.executable}\nimport sys\n"
        f"sys.stdout.write({said!r})\nsys.stderr.write('error\\nno route to host')\nsys.exit(1)\n"
    )
    stand_in.chmod(0o755)
    python = tmp_path / "python"
    python.symlink_to(sys.executable)  # pip-audit is looked for beside it
    done = subprocess.run(  # noqa: S603 - our own script
        [python, ROOT / ".ci" / "audit.py"],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PATH": str(tmp_path)},
    )
    assert line in done.stdout, done.stderr
    assert done.returncode == code
