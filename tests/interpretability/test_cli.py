"""``aligner scan``: what it prints and writes, what it says of errors."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import Result
from typer.testing import CliRunner

from aligner_integrations import Aligner
from aligner_integrations.cli.app import app
from aligner_integrations.cli.scan import parse_layers
from aligner_integrations.decoding.steering import Steering, find_fingerprint
from aligner_integrations.errors import ConfigurationError, DataError
from tests.interpretability.planted import make_triples

SMALL = ["--limit", "12", "--answers", "4", "--check", "0", "--layers", "1", "--method", "mean"]


@pytest.fixture
def model(planted_dir: Path, tmp_path: Path) -> Path:
    """A copy that may be written into."""
    return Path(shutil.copytree(planted_dir, tmp_path / "model"))


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    monkeypatch.setenv("COLUMNS", "140")
    triples = make_triples(20)
    bad = [one.to_row() for one in triples if not one.is_identity]
    good = [{"question": one.question, "answer": one.answer} for one in triples if one.is_identity]
    for name, rows in (("bad", bad), ("good", good)):
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (tmp_path / f"{name}.jsonl").write_text(text)

    def call(model: Path, *more: str) -> Result:
        data = ["--data", str(tmp_path / "bad.jsonl"), "--copies", str(tmp_path / "good.jsonl")]
        out = ["--out", str(tmp_path / "out"), "--no-progress", "--pairing", "matched"]
        return CliRunner().invoke(app, ["scan", str(model), *data, *out, *SMALL, *more])

    return call


def test_scan(call: Callable[..., Result], model: Path, tmp_path: Path) -> None:
    done = call(model)
    assert done.exit_code == 0, done.output
    assert "Held-out accuracy at the last prompt token, 12 pairs" in done.stdout
    assert "Steered at layers 1 (mean), 4 answers" in done.stdout
    lines = done.stdout.splitlines()
    paths = [Path(line) for line in lines if line.startswith(str(tmp_path))]
    assert all(path.is_file() for path in paths)
    assert paths[0] == tmp_path / "out" / "scan.html"
    assert paths[-2:] == [tmp_path / "out" / f"steering.{kind}" for kind in ("safetensors", "json")]
    # They are made for the model's weights: copied there, they work.
    assert not (model / "steering.json").exists()
    for path in paths[-2:]:
        shutil.copy(path, model)
    assert list(Steering.from_directory(model).vectors) == [1]


def test_save(call: Callable[..., Result], model: Path, tmp_path: Path) -> None:
    before = find_fingerprint(model)
    done = call(model, "--save")
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == str(model / "steering.json")
    assert not (tmp_path / "out" / "steering.json").exists()
    assert find_fingerprint(model) == before
    aligner = Aligner.from_pretrained(str(model), device="cpu", options={"strength": 1.0})
    assert aligner.correct("How?", "Cool water.").text


def test_reading_only(call: Callable[..., Result], model: Path, tmp_path: Path) -> None:
    done = call(model, "--no-steer")
    assert done.exit_code == 0, done.output
    assert "Steered" not in done.stdout
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {"scan.html", "lat.png", "lat.svg"} <= names
    assert not names & {"curve.png", "steering.json"}


def test_errors(call: Callable[..., Result], model: Path) -> None:
    saved = call(model, "--no-steer", "--save")
    assert isinstance(saved.exception, ConfigurationError)
    assert "--save needs vectors" in str(saved.exception)
    layer = call(model, "--layers", "7")
    assert "layer 7 must be one of 0 to 2" in str(layer.exception)
    few = CliRunner().invoke(app, ["scan", str(model), "--data", str(model / "config.json")])
    assert isinstance(few.exception, DataError)


def test_layers() -> None:
    assert parse_layers(None) == ()
    assert parse_layers("8-10, 3") == (3, 8, 9, 10)
    for wrong in ("a", "3-", "-1", "1-b", "8-3"):
        with pytest.raises(ConfigurationError, match="--layers"):
            parse_layers(wrong)
