"""Files that training and evaluation read: data stays data."""

from __future__ import annotations

import json
import sqlite3
from pathlib import Path

import pytest

from aligner_integrations.configs import read_yaml
from aligner_integrations.correction import Correction
from aligner_integrations.errors import AlignerError, ConfigurationError, DataError
from aligner_integrations.evaluation.config import EvaluationConfig
from aligner_integrations.evaluation.store import Store
from aligner_integrations.evaluation.upstreams import hide_secrets
from aligner_integrations.rendering import render_html
from aligner_integrations.training.config import TrainingConfig


@pytest.mark.parametrize(
    "text",
    [
        "a: !!python/object/apply:os.mkdir [{ran}]",
        "a: !!python/object/new:os.mkdir [{ran}]",
        "a: !!python/name:os.mkdir",
        "a: !!python/module:os",
        "!!python/object:tests.tiny.X {}",
    ],
)
def test_yaml_makes_no_objects(tmp_path: Path, text: str) -> None:
    path, ran = tmp_path / "c.yaml", tmp_path / "ran"
    path.write_text(text.replace("{ran}", str(ran)))
    for read in (read_yaml, EvaluationConfig.from_yaml, TrainingConfig.from_yaml):
        with pytest.raises(ConfigurationError, match="is no YAML"):
            read(path)
    assert not ran.exists()


@pytest.mark.parametrize("value", ["{", "[" * 100_000, "\x80\x04K\x01."])
def test_a_store_holds_json_and_nothing_else(tmp_path: Path, value: str) -> None:
    """What somebody wrote into its file is read as JSON, or is an error that names it."""
    path = tmp_path / "s.sqlite"
    with Store(path) as store:
        store.put("p'; DROP TABLE results; --", "k", [1])
        assert store.find("p'; DROP TABLE results; --", ["k"]) == {"k": [1]}
    database = sqlite3.connect(path)
    with database:
        database.execute("INSERT INTO results VALUES ('p', 'k', ?)", [value])
    database.close()
    with Store(path) as store, pytest.raises(DataError, match=r"s\.sqlite: .*'k'.* no JSON"):
        store.find("p", ["k"])


def test_corrections_are_escaped_in_notebooks() -> None:
    script = "<script>alert(1)</script><img src=x onerror=alert(1)>\"'&"
    for answer, text in ((script, "fine"), ("fine", script), (script, script)):
        shown = render_html(Correction(question=script, answer=answer, text=text))
        assert "<script" not in shown
        assert "<img" not in shown
        assert "&lt;" in shown


def test_keys_are_left_out_of_what_an_evaluation_keeps() -> None:
    options = {"api_key": "K1", "openai_api_key": "K2", "default_headers": {"x": "K3"}, "a": 1}
    nested = {"model_kwargs": [{"azure_ad_token": "t", "password": "K4"}], "auth": "K5"}
    kept = json.dumps(hide_secrets({**options, **nested}))
    assert not [key for key in ("K1", "K2", "K3", "K4", "K5") if key in kept]
    assert json.loads(kept)["a"] == 1


@pytest.mark.parametrize("name", ["../escape", "/etc/passwd", "a\x00b"])
def test_errors_of_configs_are_ours(tmp_path: Path, name: str) -> None:
    path = tmp_path / "c.yaml"
    path.write_text(json.dumps({name: 1}))
    with pytest.raises(AlignerError):
        EvaluationConfig.from_yaml(path)
