"""Training for real, on a tiny model: it learns, goes on where it stopped, and breaks cleanly."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from aligner_integrations import Aligner
from aligner_integrations.errors import DataError, TrainingError
from aligner_integrations.training import run as runs
from aligner_integrations.training.base import load_base
from aligner_integrations.training.config import TrainingConfig
from aligner_integrations.training.run import train
from aligner_integrations.training.trainer import AlignerTrainer, find_checkpoint

pytestmark = [
    pytest.mark.filterwarnings("ignore::FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*"),
]

FOODS = "eggs rice beans corn peas leeks kale chard okra beets yams figs plums pears limes dates"
ROWS = [
    {
        "question": f"How do I cook {food}?",
        "answer": f"Boil the {food}. You are a fool. Then eat.",
        "correction": f"Boil the {food}. Then eat.",
    }
    for food in FOODS.split()
]


@pytest.fixture
def write(tmp_path: Path) -> Callable[..., str]:
    def write(rows: list[dict[str, Any]], name: str = "train.jsonl") -> str:
        path = tmp_path / name
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return str(path)

    return write


@pytest.fixture
def make_config(
    tmp_path: Path, tiny_model_dir: Callable[..., Path], write: Callable[..., str]
) -> Callable[..., TrainingConfig]:
    size = {"hidden_size": 128, "intermediate_size": 256, "head_dim": 32}
    base = tiny_model_dir("llama", prompt="aligner-smol", initializer_range=0.05, **size)

    def make(output: str = "out", **more: Any) -> TrainingConfig:
        return TrainingConfig.from_dict(
            {
                "base": str(base),
                "output": str(tmp_path / output),
                "data": {"train": [write(ROWS)]},
                "method": "full",
                "precision": "float32",
                "device": "cpu",
                "warmup": {"epochs": 0},
                "batch": {"size": 16},
                "loss": {"departure": 1},
                "evaluation": {"every": 4, "examples": 0},
                **more,
            }
        )

    return make


def test_a_tiny_model_learns_sixteen_triples(make_config: Callable[..., TrainingConfig]) -> None:
    config = make_config(
        residual={"epochs": 200, "learning_rate": 1e-3},
        evaluation={"every": 1000, "examples": 0},
    )
    aligner = Aligner.from_pretrained(str(train(config)), device="cpu")
    corrections = aligner.correct_batch([(row["question"], row["answer"]) for row in ROWS])
    assert [c.text for c in corrections] == [row["correction"] for row in ROWS]


def test_warm_up_alone_teaches_copying(make_config: Callable[..., TrainingConfig]) -> None:
    config = make_config(
        warmup={"epochs": 200, "learning_rate": 1e-3},
        residual={"epochs": 0},
        evaluation={"every": 1000, "examples": 0},
    )
    aligner = Aligner.from_pretrained(str(train(config)), device="cpu")
    pairs = [(row["question"], row["correction"]) for row in ROWS]
    assert [c.text for c in aligner.correct_batch(pairs)] == [answer for _, answer in pairs]


@pytest.mark.parametrize(
    ("method", "batch"),
    [
        ("full", {"size": 4}),
        ("lora", {"size": 4}),
        ("qlora", {"size": 4}),
        ("full", {"tokens": 360}),
    ],
    ids=["full", "lora", "qlora", "by tokens"],
)
def test_resumed_equals_uninterrupted(
    make_config: Callable[..., TrainingConfig],
    monkeypatch: pytest.MonkeyPatch,
    write: Callable[..., str],
    method: str,
    batch: dict[str, int],
) -> None:
    more: dict[str, Any] = {
        "method": method,
        "warmup": {"epochs": 2, "learning_rate": 1e-3},
        "residual": {"epochs": 3, "learning_rate": 1e-3},
        "batch": {**batch, "accumulate": 2},
        "data": {"train": [write(ROWS)], "max_length": 200},
        "lora": {"r": 4, "dropout": 0.1},
        "evaluation": {"every": 2, "examples": 0},
    }
    whole = train(make_config("whole", **more))
    steps = 0
    step = AlignerTrainer.training_step

    def stop_at(limit: int) -> None:
        def counted(self: Any, *args: Any, **kwargs: Any) -> Any:
            nonlocal steps
            steps += 1
            if steps == limit:
                raise KeyboardInterrupt
            return step(self, *args, **kwargs)

        monkeypatch.setattr(AlignerTrainer, "training_step", counted)

    for limit in (6, 13):  # within each of the two stages
        stop_at(limit)
        with pytest.raises(KeyboardInterrupt):
            train(make_config("parts", **more))
    monkeypatch.setattr(AlignerTrainer, "training_step", step)
    parts = train(make_config("parts", **more))
    name = "model.safetensors" if method == "full" else "adapter_model.safetensors"
    weights = load_file(whole / name), load_file(parts / name)
    assert weights[0].keys() == weights[1].keys()
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    reports = [
        json.loads((path / "training.json").read_text())["stages"] for path in (whole, parts)
    ]
    for stage in ("warmup", "residual"):
        assert reports[1][stage]["loss"] == pytest.approx(reports[0][stage]["loss"], rel=1e-3)


def test_a_base_of_four_bits_learns(
    make_config: Callable[..., TrainingConfig], write: Callable[..., str]
) -> None:
    """QLoRA: only the adapter is trained, and it goes onto the base with all its bits."""
    from bitsandbytes.nn import Linear4bit

    config = make_config(
        method="qlora",
        lora={"r": 16, "alpha": 32, "dropout": 0},
        data={"train": [write(ROWS)], "eval": [write(ROWS, "eval.jsonl")]},
        residual={"epochs": 12, "learning_rate": 1e-2},
        evaluation={"every": 4, "examples": 0},
    )
    layers = [one for one in load_base(config).model.modules() if isinstance(one, Linear4bit)]
    assert len(layers) == 2 * 7  # of each of two blocks: attention's four, and three
    assert not any(layer.weight.requires_grad for layer in layers)
    output = train(config)
    states = output.rglob("trainer_state.json")
    history = json.loads(max(states, key=lambda path: path.stat().st_mtime).read_text())
    losses = [entry["eval_loss"] for entry in history["log_history"] if "eval_loss" in entry]
    assert losses[-1] < 0.75 * losses[0]
    assert Aligner.from_pretrained(str(output), device="cpu").correct("q", "a", on_error="original")


def test_a_broken_line_is_named(make_config: Callable[..., TrainingConfig], tmp_path: Path) -> None:
    path = tmp_path / "broken.jsonl"
    path.write_text(json.dumps(ROWS[0]) + '\n{"question": "Q"}\n')
    with pytest.raises(DataError, match=r"broken\.jsonl:2"):
        train(make_config(data={"train": [str(path)]}))


def test_a_full_disk_leaves_the_last_checkpoint(
    make_config: Callable[..., TrainingConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(residual={"epochs": 12, "learning_rate": 1e-3})
    saved: list[Path] = []
    save = AlignerTrainer._save_optimizer_and_scheduler

    def fill(self: Any, output_dir: str) -> None:
        saved.append(Path(output_dir))
        if len(saved) == 2:
            raise OSError(28, "No space left on device")
        save(self, output_dir)

    monkeypatch.setattr(AlignerTrainer, "_save_optimizer_and_scheduler", fill)
    with pytest.raises(TrainingError, match=r"could not write at step 8.*No space left"):
        train(config)
    assert find_checkpoint(Path(config.output) / "residual") == saved[0]
    assert not saved[1].exists()
    monkeypatch.undo()
    assert (train(config) / "model.safetensors").is_file()


def test_out_of_memory_leaves_the_last_checkpoint(
    make_config: Callable[..., TrainingConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(residual={"epochs": 12, "learning_rate": 1e-3})
    step = AlignerTrainer.training_step

    def run_out(self: Any, *args: Any, **kwargs: Any) -> Any:
        if self.state.global_step == 6:
            raise torch.OutOfMemoryError("out")
        return step(self, *args, **kwargs)

    monkeypatch.setattr(AlignerTrainer, "training_step", run_out)
    with pytest.raises(TrainingError, match=r"out of memory at step 6; lower batch\.size"):
        train(config)
    checkpoint = find_checkpoint(Path(config.output) / "residual")
    assert checkpoint is not None
    assert checkpoint.name == "checkpoint-4"


def test_a_half_written_checkpoint_is_passed_over(
    make_config: Callable[..., TrainingConfig],
) -> None:
    config = make_config(residual={"epochs": 8, "learning_rate": 1e-3})
    train(config)
    directory = Path(config.output) / "residual"
    last = find_checkpoint(directory)
    assert last is not None
    half = directory / "checkpoint-99"
    shutil.copytree(last, half)
    (half / "trainer_state.json").write_text("{")
    assert find_checkpoint(directory) == last
    assert find_checkpoint(directory / "nowhere") is None


def test_what_is_left_behind(
    make_config: Callable[..., TrainingConfig], write: Callable[..., str]
) -> None:
    held_out = write([*ROWS[:2], {**ROWS[2], "answer": ROWS[2]["correction"]}], "eval.jsonl")
    config = make_config(
        data={"train": [write(ROWS)], "eval": [held_out]},
        residual={"epochs": 8, "learning_rate": 1e-3},
        evaluation={"every": 4, "examples": 3, "patience": 5},
        method="lora",
        report_to=["tensorboard"],
    )
    output = train(config)
    report = json.loads((output / "training.json").read_text())
    assert TrainingConfig.from_dict(report["config"]) == config
    assert report["stages"]["residual"]["steps"] == 8
    assert set(report["outcome"]) == {"copied", "changed", "exact", "failed"}
    card = (output / "README.md").read_text()
    assert "16 triples for training, of which 0 keep the answer as it is; 3 held out" in card
    assert "| residual | 16 | 8 |" in card
    aligner = Aligner.from_pretrained(str(output), device="cpu")
    assert aligner.engine.prompt is not None
    assert aligner.engine.prompt.name == "aligner-smol"
    assert read_logged(output / "residual") >= {"eval/loss", "eval/copied", "eval/exact"}


def read_logged(directory: Path) -> set[str]:
    """Names of the figures that TensorBoard shows."""
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    (events,) = directory.rglob("events.out.*")
    accumulator = EventAccumulator(str(events))
    accumulator.Reload()
    return set(accumulator.Tags()["scalars"])


def test_weights_and_biases_gets_the_same(
    make_config: Callable[..., TrainingConfig],
    write: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    wandb = pytest.importorskip("wandb", reason="needs wandb, which a user of it installs")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path))
    held_out = write([ROWS[0], {**ROWS[1], "answer": ROWS[1]["correction"]}], "eval.jsonl")
    train(
        make_config(
            data={"train": [write(ROWS)], "eval": [held_out]},
            residual={"epochs": 2},
            evaluation={"every": 1, "examples": 2},
            report_to=["wandb"],
        )
    )
    wandb.finish()
    (kept,) = tmp_path.rglob("*.wandb")
    logged = kept.read_bytes()
    for name in (b"train/loss", b"eval/loss", b"eval/copied", b"eval/changed", b"eval/exact"):
        assert name in logged


def test_bfloat16_trains(make_config: Callable[..., TrainingConfig]) -> None:
    residual = {"epochs": 12, "learning_rate": 1e-3}
    output = train(make_config(precision="bfloat16", residual=residual))
    report = json.loads((output / "training.json").read_text())
    assert report["stages"]["residual"]["loss"] < 4.5
    assert {value.dtype for value in load_file(output / "model.safetensors").values()} == {
        torch.float32
    }


def test_push_uploads_the_aligner_without_checkpoints(
    make_config: Callable[..., TrainingConfig], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    calls: list[tuple[str, dict[str, Any]]] = []

    class Api:
        def create_repo(self, name: str, **kwargs: Any) -> None:
            calls.append((name, kwargs))

        def upload_folder(self, **kwargs: Any) -> None:
            folder, ignored = Path(kwargs["folder_path"]), kwargs["ignore_patterns"]
            sent = huggingface_hub.utils.filter_repo_objects(
                [str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file()],
                ignore_patterns=ignored,
            )
            calls.append((kwargs["repo_id"], {"sent": sorted(sent)}))

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    train(make_config(push_to="me/mine", residual={"epochs": 4, "learning_rate": 1e-3}))
    (name, made), (_, pushed) = calls
    assert (name, made["private"]) == ("me/mine", True)
    assert {"README.md", "aligner_config.json", "model.safetensors"} <= set(pushed["sent"])
    assert not any(file.startswith("residual/") for file in pushed["sent"])


@pytest.mark.timeout(300)
@pytest.mark.parametrize(
    ("alone", "shared"),
    [
        ({"size": 8, "group_by_length": False}, {"size": 4, "group_by_length": False}),
        ({"tokens": 360, "accumulate": 2}, {"tokens": 360}),
    ],
    ids=["by size", "by tokens"],
)
def test_two_processes_do_what_one_does(
    make_config: Callable[..., TrainingConfig],
    tmp_path: Path,
    write: Callable[..., str],
    alone: dict[str, Any],
    shared: dict[str, Any],
) -> None:
    more: dict[str, Any] = {
        "residual": {"epochs": 3, "learning_rate": 1e-3},
        "data": {"train": [write(ROWS)], "max_length": 200},
    }
    one = train(make_config("one", batch=alone, **more))
    two = make_config("two", batch=shared, **more)
    (tmp_path / "two.yaml").write_text(json.dumps(two.to_dict()))
    line = ["torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    line += ["-m", "aligner_integrations.cli", "train", str(tmp_path / "two.yaml")]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(  # noqa: S603 - our own command
        [sys.executable, "-m", *line], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (
        json.loads((tmp_path / "two" / "training.json").read_text())["stages"]["residual"]["steps"]
        == json.loads((one / "training.json").read_text())["stages"]["residual"]["steps"]
    )
    weights = load_file(one / "model.safetensors"), load_file(tmp_path / "two/model.safetensors")
    for key, value in weights[0].items():
        torch.testing.assert_close(weights[1][key], value, atol=1e-4, rtol=0)


def test_drawing_is_seeded() -> None:
    from aligner_integrations.training.data import Triple

    triples = [Triple(str(i), "a", "b") for i in range(50)]
    assert runs._draw(triples, 5, 1) == runs._draw(triples, 5, 1)
    assert runs._draw(triples, 5, 1) != runs._draw(triples, 5, 2)
    assert runs._draw(triples, 99, 1) == triples
