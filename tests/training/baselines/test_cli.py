"""``aligner baseline`` and ``aligner bootstrap`` from a shell's point of view."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from aligner_integrations.cli.app import app
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.training.baselines.config import BaselineConfig

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*"),
]
runner = CliRunner()


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_sft_and_dpo(make_config: Callable[..., BaselineConfig], tmp_path: Path, kind: str) -> None:
    config = tmp_path / "baselines.yaml"
    config.write_text(json.dumps(make_config().to_dict()))
    result = runner.invoke(app, ["baseline", kind, str(config)], catch_exceptions=False)
    assert result.stdout.strip().splitlines()[-1] == str(tmp_path / "out" / kind)
    assert (tmp_path / "out" / kind / "model.safetensors").is_file()


def test_refine(tmp_path: Path, tiny_model_dir: Callable[..., Path]) -> None:
    answers, out, prompts = (tmp_path / name for name in ("a.jsonl", "b.jsonl", "prompts.yaml"))
    answers.write_text('{"question": "Eggs?", "answer": "No."}\n')
    prompts.write_text('critique: "{question} {answer} Faults?"\n')
    model = str(tiny_model_dir(writes="Cool water."))
    line = ["baseline", "refine", str(answers), "-o", str(out), "--device", "cpu", "-m", model]
    for options, said in (([], "1 rewrites written"), ([], "0 rewrites written, 1 were there")):
        result = runner.invoke(app, [*line, "--prompts", str(prompts), *options])
        assert said in result.stdout, result.output
    assert json.loads(out.read_text())["correction"] == "Cool water."
    with pytest.raises(ConfigurationError, match="either --model"):
        runner.invoke(app, [*line, "--llm", "openai:x"], catch_exceptions=False)


def test_bootstrap(tmp_path: Path, tiny_model_dir: Callable[..., Path]) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_text('{"question": "Eggs?"}\n{"question": "Rice?"}\n')
    config = tmp_path / "bootstrap.yaml"
    config.write_text(
        json.dumps(
            {
                "upstream": str(tiny_model_dir(writes="Boil them.")),
                "aligner": str(tiny_model_dir(prompt="aligner-smol", writes="Cool water.")),
                "output": str(tmp_path / "out"),
                "questions": [str(questions)],
                "sampling": {"max_new_tokens": 16},
                "method": "full",
                "device": "cpu",
                "sft": {"epochs": 20, "learning_rate": 0.1},
                "dpo": {"epochs": 0},
            }
        )
    )
    line = ["bootstrap", str(config), "--rounds", "1"]
    result = runner.invoke(app, line, catch_exceptions=False)
    assert "round 1: changed 100.0% of 2 answers" in result.stdout
    assert "round 2: changed 0.0% of 2 answers, similarity 1.000; 0 pairs" in result.stdout
    assert result.stdout.strip().endswith(str(tmp_path / "out" / "round-1" / "model"))
