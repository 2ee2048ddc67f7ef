"""A tiny upstream model, and rows of triples to train it on."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aligner_integrations.training.baselines.config import BaselineConfig

FOODS = "eggs rice beans corn peas leeks kale chard"
ROWS = [
    {
        "question": f"How do I cook {food}?",
        "answer": f"Boil the {food}. You are a fool.",
        "correction": f"Boil the {food}. Then eat.",
    }
    for food in FOODS.split()
]


@pytest.fixture
def base(tiny_model_dir: Callable[..., Path]) -> Path:
    size = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
    return tiny_model_dir("llama", initializer_range=0.05, **size)


@pytest.fixture
def make_config(tmp_path: Path, base: Path) -> Callable[..., BaselineConfig]:
    path = tmp_path / "train.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))

    def make(output: str = "out", **more: Any) -> BaselineConfig:
        return BaselineConfig.from_dict(
            {
                "base": str(base),
                "output": str(tmp_path / output),
                "data": {"train": [str(path)]},
                "method": "full",
                "precision": "float32",
                "device": "cpu",
                "batch": {"size": 8},
                "checkpoints": {"every": 1000},
                **more,
            }
        )

    return make
