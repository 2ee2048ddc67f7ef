"""What every training here tells transformers, and what it says when memory or disk run out."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

import torch

from aligner_integrations.errors import TrainingError
from aligner_integrations.training.config import BatchConfig, LoraConfig, StageConfig


class Watching(Protocol):
    """When a run is evaluated and saved."""

    @property
    def every(self) -> int: ...  # noqa: D102
    @property
    def patience(self) -> int | None: ...  # noqa: D102
    @property
    def keep(self) -> int: ...  # noqa: D102


class Run(Protocol):
    """What the configs of all trainings hold."""

    @property
    def batch(self) -> BatchConfig: ...  # noqa: D102
    @property
    def precision(self) -> str: ...  # noqa: D102
    @property
    def seed(self) -> int: ...  # noqa: D102
    @property
    def report_to(self) -> list[str]: ...  # noqa: D102
    @property
    def device(self) -> str | None: ...  # noqa: D102


def make_arguments(
    run: Run, stage: StageConfig, watching: Watching, directory: Path, *, evaluated: bool
) -> dict[str, Any]:
    """Arguments of transformers' TrainingArguments, or of what trl makes of it.

    Args:
        run: The config.
        stage: The stage of it that is trained.
        watching: When it is evaluated and saved.
        directory: Where checkpoints go.
        evaluated: Whether there is held-out data.
    """
    on_gpu = torch.cuda.is_available() and run.device != "cpu"
    several = int(os.environ.get("WORLD_SIZE", "1")) > 1
    return {
        "output_dir": str(directory),
        "num_train_epochs": stage.epochs,
        "max_steps": stage.max_steps,
        "learning_rate": stage.learning_rate,
        "lr_scheduler_type": "cosine",
        "warmup_steps": stage.warmup_ratio,
        "per_device_train_batch_size": run.batch.size,
        "per_device_eval_batch_size": run.batch.size,
        "gradient_accumulation_steps": run.batch.accumulate,
        "eval_strategy": "steps" if evaluated else "no",
        "eval_steps": watching.every,
        "save_strategy": "steps",
        "save_steps": watching.every,
        "save_total_limit": watching.keep,
        "load_best_model_at_end": evaluated and watching.patience is not None,
        "metric_for_best_model": "loss" if evaluated else None,
        "greater_is_better": False if evaluated else None,
        "bf16": run.precision == "bfloat16" or (run.precision == "auto" and on_gpu),
        "use_cpu": run.device == "cpu",
        "seed": run.seed,
        "data_seed": run.seed,
        "report_to": run.report_to or "none",
        "logging_steps": max(1, min(10, watching.every)),
        "ddp_find_unused_parameters": False,
        "ddp_backend": "gloo" if several and not on_gpu else None,
        "dataloader_pin_memory": on_gpu,
    }


def name_sampling(batch: BatchConfig) -> str:
    """The order of the examples, as transformers calls it."""
    return "group_by_length" if batch.group_by_length else "random"


def make_adapter(lora: LoraConfig) -> Any:
    """Peft's config of a low-rank adapter."""
    from peft import LoraConfig as PeftConfig

    return PeftConfig(
        r=lora.r,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=lora.target_modules,
        task_type="CAUSAL_LM",
    )


def mean_loss(history: Sequence[Mapping[str, Any]], otherwise: float) -> float:
    """Mean training loss over all steps, those before a kill included.

    Args:
        history: What Trainer logged; it is kept in checkpoints.
        otherwise: Of a run too short to have logged any, what Trainer gives; it knows the steps
            since the last start only.

    Example:
        >>> mean_loss([{"loss": 4.0, "step": 10}, {"eval_loss": 3.0}, {"loss": 1.0, "step": 20}], 0)
        2.5
    """
    total, at = 0.0, 0
    for entry in history:
        if "loss" in entry:
            total += float(entry["loss"]) * (entry["step"] - at)
            at = entry["step"]
    return total / at if at else otherwise


@contextmanager
def explained_failures(name: str, trainer: Any) -> Iterator[None]:
    """Say what to do where memory or disk run out.

    Raises:
        TrainingError: One of them did.
    """
    from safetensors import SafetensorError

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            f"{name} ran out of memory at step {trainer.state.global_step}; lower batch.size and "
            "raise batch.accumulate, set gradient_checkpointing, or lower the longest length "
            "(max_length). The last checkpoint stays, and the next run goes on from it"
        ) from error
    except (OSError, SafetensorError) as error:
        raise TrainingError(
            f"{name} could not write at step {trainer.state.global_step}: {error}. The last "
            "checkpoint stays, and the next run goes on from it"
        ) from error
