"""``aligner correct --strength``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aligner_integrations.cli.app import app
from aligner_integrations.errors import SteeringError
from tests.steered import EAGER, KEEPING, WRITES, save_steered

LINE = ["correct", "-q", "Q", "-a", "A"]


def test_correct(tmp_path: Path) -> None:
    line = [*LINE, "-m", str(save_steered(tmp_path / "model"))]
    for strength, text in ((-1, KEEPING), (0, WRITES), (1, EAGER)):
        result = CliRunner().invoke(app, [*line, "--strength", str(strength)])
        assert result.stdout.strip() == text, result.exception
    shown = CliRunner().invoke(app, [*line, "--strength=0.75", "--json"]).stdout
    assert json.loads(shown[shown.index("{") :])["strength"] == 0.75


@pytest.mark.parametrize("strength", ["1.01", "-2", "much"])
def test_a_strength_out_of_range_is_refused(strength: str) -> None:
    result = CliRunner().invoke(app, [*LINE, f"--strength={strength}"])
    assert result.exit_code == 2
    assert "--strength" in result.output


def test_a_model_without_files_says_so(tmp_path: Path) -> None:
    directory = str(save_steered(tmp_path / "model", steering=False))
    result = CliRunner().invoke(app, [*LINE, "-m", directory, "--strength=1"])
    assert isinstance(result.exception, SteeringError)
    assert f"aligner scan {directory} --data TRIPLES --save" in str(result.exception)
