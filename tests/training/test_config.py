"""Configs: what can be said, and what is said of what can't."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.training.config import StageConfig, TrainingConfig

ROOT = Path(__file__).parents[2]
ADAPTER = "aligner_integrations/models/smol/adapter_config.json"
LEAST: dict[str, Any] = {"base": "b", "output": "o", "data": {"train": ["t.jsonl"]}}


def test_yaml(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        "base: b\noutput: o\ndata: {train: [t.jsonl], eval: [e.jsonl], max_length: 512}\n"
        "residual: {epochs: 2, learning_rate: 2e-4}\nevaluation: {patience: 3}\n"
        "prompt: {name: mine, template: '{question} {answer}'}\nlora: {target_modules: [q_proj]}\n"
    )
    config = TrainingConfig.from_yaml(path)
    assert config.residual == StageConfig(epochs=2.0, learning_rate=2e-4)
    assert config.data.max_length == 512
    assert config.lora.target_modules == ["q_proj"]
    assert TrainingConfig.from_dict(config.to_dict()) == config


def test_defaults_are_the_papers() -> None:
    config = TrainingConfig.from_dict(LEAST)
    assert (config.residual.epochs, config.residual.learning_rate) == (3.0, 2e-5)
    assert config.data.max_length == 2048


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bse": "x"}, "config: unknown key 'bse'; known are base"),
        ({"data": {"train": ["t"], "evl": []}}, "config: data: unknown key 'evl'"),
        ({"data": {}}, "config: data: 'train' is missing"),
        ({"data": {"train": []}}, "data.train is empty"),
        ({"data": {"train": "t.jsonl"}}, "data: train: 't.jsonl' must be a list of strings"),
        ({"data": [1]}, "data: expected keys and values"),
        ({"method": "magic"}, "method='magic' must be one of 'lora', 'qlora', 'full'"),
        ({"precision": "int8"}, "precision='int8' must be one of"),
        ({"seed": "x"}, "seed: 'x' must be of type int"),
        ({"seed": True}, "seed: True must be of type int"),
        ({"gradient_checkpointing": 1}, "gradient_checkpointing: 1 must be of type bool"),
        ({"residual": {"learning_rate": "fast"}}, "learning_rate: 'fast' is no number"),
        ({"batch": {"size": 0}}, r"batch\.size=0 must be at least 1"),
        ({"loss": {"departure": -1}}, r"loss\.departure=-1\.0 must be at least 0"),
        ({"evaluation": {"patience": 2}}, "needs held-out data"),
    ],
)
def test_wrong_values(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        TrainingConfig.from_dict({**LEAST, **change})


@pytest.mark.parametrize("text", ["a: [", "- 1", "", "\udc80"])
def test_files_that_are_no_config(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(ConfigurationError, match=r"config\.yaml"):
        TrainingConfig.from_yaml(path)
    with pytest.raises(ConfigurationError, match=r"missing\.yaml can't be read"):
        TrainingConfig.from_yaml(tmp_path / "missing.yaml")


@pytest.mark.parametrize("name", ["aligner-smol", "aligner-smol-cpu"])
def test_recipes_can_be_read(name: str) -> None:
    config = TrainingConfig.from_yaml(ROOT / "configs" / f"{name}.yaml")
    shipped = json.loads((ROOT / ADAPTER).read_text())
    assert (config.lora.r, config.lora.alpha) == (shipped["r"], shipped["lora_alpha"])
    assert config.lora.dropout == shipped["lora_dropout"]
    assert (config.loss.changed, config.loss.departure) == (1, 4)  # as it was trained
