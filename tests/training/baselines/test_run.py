"""SFT and DPO for real, on a tiny model."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from aligner_integrations.errors import ConfigurationError, DataError, TrainingError
from aligner_integrations.training.baselines.config import BaselineConfig, SamplingConfig
from aligner_integrations.training.baselines.run import train_baseline
from aligner_integrations.training.baselines.trainers import CorrectionTrainer, PreferenceTrainer
from aligner_integrations.training.baselines.upstream import (
    Upstream,
    load_upstream,
    make_prompt,
)
from aligner_integrations.training.trainer import find_checkpoint
from tests.training.baselines.conftest import ROWS

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*"),
]
GREEDY = SamplingConfig(temperature=0, max_new_tokens=64)


def score(upstream: Upstream, question: str, text: str) -> float:
    """Log-probability of an answer."""
    tokenizer = upstream.tokenizer
    prompt = tokenizer.apply_chat_template(
        make_prompt(question, None), tokenize=False, add_generation_prompt=True
    )
    ids = [tokenizer(one, add_special_tokens=False)["input_ids"] for one in (prompt, text)]
    with torch.no_grad():
        logits = upstream.model(torch.tensor([ids[0] + ids[1]])).logits[0].log_softmax(-1)
    places = range(len(ids[0]) - 1, len(ids[0]) + len(ids[1]) - 1)
    return sum(float(logits[p, t]) for p, t in zip(places, ids[1], strict=True))


def find_margin(directory: Path) -> float:
    upstream = load_upstream(str(directory), device="cpu")
    return sum(
        score(upstream, row["question"], row["correction"])
        - score(upstream, row["question"], row["answer"])
        for row in ROWS
    ) / len(ROWS)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_sft_learns_corrections_as_answers(
    make_config: Callable[..., BaselineConfig], method: str
) -> None:
    epochs, rate = (120, 1e-3) if method == "full" else (200, 5e-3)
    config = make_config(method=method, sft={"epochs": epochs, "learning_rate": rate})
    output = train_baseline("sft", config)
    upstream = load_upstream(str(output), device="cpu")
    answers = upstream.answer([row["question"] for row in ROWS], GREEDY)
    assert [answer.text for answer in answers] == [row["correction"] for row in ROWS]
    assert not any(answer.cut for answer in answers)
    assert not list(output.glob("adapter*"))
    report = json.loads((output / "training.json").read_text())
    assert (report["kind"], report["examples"], report["steps"]) == ("sft", 8, epochs)


@pytest.mark.parametrize("method", ["full", "lora"])
def test_dpo_raises_the_margin(
    make_config: Callable[..., BaselineConfig], base: Path, method: str
) -> None:
    config = make_config(
        method=method, dpo={"epochs": 20, "learning_rate": 1e-3, "sft_weight": 0.5}
    )
    output = train_baseline("dpo", config)
    assert find_margin(output) > find_margin(base) + 5
    metrics = json.loads((output / "training.json").read_text())["metrics"]
    assert metrics["rewards/margins"] > 0.5
    assert metrics["rewards/accuracies"] == 1


@pytest.mark.parametrize("kind", ["sft", "dpo"])
def test_resumed_equals_uninterrupted(
    make_config: Callable[..., BaselineConfig], monkeypatch: pytest.MonkeyPatch, kind: Any
) -> None:
    stage = {"epochs": 3, "learning_rate": 1e-3}
    more: dict[str, Any] = {
        kind: stage,
        "method": "lora",
        "lora": {"r": 4, "dropout": 0.1},
        "batch": {"size": 2},
        "checkpoints": {"every": 4},
    }
    whole = train_baseline(kind, make_config("whole", **more))
    trainer = CorrectionTrainer if kind == "sft" else PreferenceTrainer
    step = trainer.training_step

    def stop(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 6:
            raise KeyboardInterrupt
        return step(self, *args, **kwargs)

    monkeypatch.setattr(trainer, "training_step", stop)
    with pytest.raises(KeyboardInterrupt):
        train_baseline(kind, make_config("parts", **more))
    monkeypatch.undo()
    parts = train_baseline(kind, make_config("parts", **more))
    weights = [load_file(path / "model.safetensors") for path in (whole, parts)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    with pytest.raises(ConfigurationError, match=r"holds a run with sft=|holds a run with dpo="):
        train_baseline(kind, make_config("parts", **{**more, kind: {**stage, "epochs": 9}}))
    monkeypatch.setattr(trainer, "train", None)  # a finished run is not repeated
    assert train_baseline(kind, make_config("parts", **more)) == parts


def test_early_stop_and_start_anew(make_config: Callable[..., BaselineConfig]) -> None:
    path = make_config().data.train[0]
    more: dict[str, Any] = {
        "data": {"train": [path], "eval": [path]},
        "checkpoints": {"every": 1, "patience": 2},
    }
    config = make_config(sft={"epochs": 30, "learning_rate": 0.5}, **more)
    report = json.loads((train_baseline("sft", config) / "training.json").read_text())
    assert report["steps"] < 30
    assert report["metrics"]["eval_loss"] > 0
    other = make_config(sft={"epochs": 1, "learning_rate": 1e-3}, **more)
    output = train_baseline("sft", other, resume=False)
    assert json.loads((output / "training.json").read_text())["steps"] == 1


@pytest.mark.parametrize(
    ("error", "message"),
    [
        (torch.OutOfMemoryError("out"), r"out of memory at step 2; lower batch\.size"),
        (SafetensorError("I/O error: No space left on device"), "could not write at step 2"),
        (OSError(28, "No space left on device"), r"could not write at step 2.*No space left"),
    ],
)
def test_failures_leave_the_last_checkpoint(
    make_config: Callable[..., BaselineConfig],
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    message: str,
) -> None:
    config = make_config(sft={"epochs": 4}, checkpoints={"every": 1})
    save = CorrectionTrainer._save_optimizer_and_scheduler

    def fail(self: Any, output_dir: str) -> None:
        if self.state.global_step == 2:
            raise error
        save(self, output_dir)

    monkeypatch.setattr(CorrectionTrainer, "_save_optimizer_and_scheduler", fail)
    with pytest.raises(TrainingError, match=message):
        train_baseline("sft", config)
    checkpoints = Path(config.output) / "sft" / "checkpoints"
    assert [path.name for path in checkpoints.glob("checkpoint-*")] == ["checkpoint-1"]
    assert find_checkpoint(checkpoints) is not None


def test_errors_are_our_own(
    make_config: Callable[..., BaselineConfig],
    tmp_path: Path,
    tiny_model_dir: Callable[..., Path],
) -> None:
    with pytest.raises(ConfigurationError, match="method='qlora' must be one of 'lora', 'full'"):
        make_config(method="qlora")
    with pytest.raises(ConfigurationError, match=r"dpo\.beta=0"):
        make_config(dpo={"beta": 0})
    with pytest.raises(ConfigurationError, match="unknown key 'warmup'"):
        make_config(warmup={})
    with pytest.raises(ConfigurationError, match=r"patience=3 needs held-out data"):
        make_config(checkpoints={"patience": 3})
    with pytest.raises(ConfigurationError, match=r"sft\.epochs=0"):
        train_baseline("sft", make_config(sft={"epochs": 0}))
    broken = tmp_path / "broken.jsonl"
    broken.write_text(json.dumps(ROWS[0]) + '\n{"question": "Q"}\n')
    with pytest.raises(DataError, match=r"broken\.jsonl:2"):
        train_baseline("sft", make_config(data={"train": [str(broken)]}))
    plain = tiny_model_dir("llama", tokenizer="llama-2", vocab_size=460)
    with pytest.raises(ConfigurationError, match="has no chat template"):
        train_baseline("sft", make_config("plain", base=str(plain)))
    same = tmp_path / "same.jsonl"
    rows = [{**row, "answer": row["correction"]} for row in ROWS]
    rows[0] |= {"question": "<|im_end|> Eggs?", "answer": "Other."}
    rows[1] |= {"question": "Eggs " * 300, "answer": "Other."}
    same.write_text("".join(json.dumps(row) + "\n" for row in rows))
    data = {"train": [str(same)], "max_length": 128}
    with pytest.raises(ConfigurationError, match=r"1 longer than 128 .*, 1 spell .*, 6 unchang"):
        train_baseline("dpo", make_config("same", data=data))
    bad = {"r": 2, "target_modules": ["lm_head"]}
    with pytest.raises(ConfigurationError, match="trl can't train"):
        train_baseline("sft", make_config("head", method="lora", lora=bad))
