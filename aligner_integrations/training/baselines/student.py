"""`train_student`: an upstream model, trained by trl on corrections or on preferences."""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.imports import require
from aligner_integrations.training.arguments import (
    explained_failures,
    make_adapter,
    make_arguments,
    mean_loss,
    name_sampling,
)
from aligner_integrations.training.baselines.config import DpoConfig, Kind, StudentConfig
from aligner_integrations.training.baselines.pairs import (
    Pair,
    draw_pairs,
    hash_pairs,
    make_rows,
)
from aligner_integrations.training.baselines.upstream import (
    Upstream,
    load_upstream,
    save_upstream,
)
from aligner_integrations.training.config import StageConfig
from aligner_integrations.training.data.triples import replacing

if TYPE_CHECKING:
    from transformers import Trainer

logger = logging.getLogger(__name__)
DONE = "training.json"
"""Written last: a directory that has it holds a finished model."""
_SETTINGS = "settings.json"
_CHECKPOINTS = "checkpoints"
FREE = ("device", "report_to")
"""Settings that the run that goes on may have otherwise."""


def train_student(
    kind: Kind,
    config: StudentConfig,
    base: str,
    pairs: Sequence[Pair],
    directory: Path,
    *,
    held_out: Sequence[Pair] = (),
    max_length: int = 2048,
    resume: bool = True,
) -> Path:
    """Train a chat model on corrections (``sft``) or on corrections over answers (``dpo``).

    Args:
        kind: Which of the two.
        config: How; its ``sft`` or ``dpo`` stage counts.
        base: The model to begin with: bundled name, directory or hub id.
        pairs: What to train on.
        directory: Where the model goes, with its checkpoints below; transformers loads it.
        held_out: Pairs for the loss during training.
        max_length: Most tokens of a conversation; longer ones are left out.
        resume: Go on where an earlier run stopped; a finished one is not repeated.

    Returns:
        The directory.

    Raises:
        ConfigurationError: Nothing to train on, no chat template, or ``directory`` holds a run of
            other settings.
        ModelNotFoundError: The base is nowhere.
        TrainingError: The run ran out of memory or disk; the last checkpoint stays.
    """
    require("transformers", "train", "5.2")
    for package in ("trl", "datasets"):
        require(package, "train")
    from aligner_integrations.training.trainer import find_checkpoint

    stage: StageConfig = getattr(config, kind)
    if not stage.epochs or stage.max_steps == 0:
        raise ConfigurationError(
            f"{kind}.epochs={stage.epochs} with {kind}.max_steps={stage.max_steps} is no training; "
            "raise them"
        )
    settings = _describe(kind, config, base, pairs, held_out, max_length)
    checkpoints = directory / _CHECKPOINTS
    if not resume:
        shutil.rmtree(checkpoints, ignore_errors=True)  # another process may be faster
        for name in (DONE, _SETTINGS):
            (directory / name).unlink(missing_ok=True)
    check_settings(directory / _SETTINGS, settings)
    if (directory / DONE).is_file():
        logger.info("%s is finished", directory)
        return directory
    upstream = load_upstream(base, device="cpu", dtype=torch.float32)  # Trainer moves it
    upstream.model.config.use_cache = False

    def make(pairs: Sequence[Pair]) -> list[dict[str, Any]]:
        return make_rows(
            upstream.tokenizer, pairs, kind, max_length=max_length, system=config.system
        )

    rows = make(draw_pairs(pairs, stage.max_examples, config.seed))
    checked = make(held_out) if held_out else None
    trainer = _make_trainer(kind, config, stage, upstream, rows, checked, checkpoints)
    checkpoint = find_checkpoint(checkpoints)
    if checkpoint is not None:
        logger.info("%s goes on from %s", directory, checkpoint)
    with explained_failures(kind, trainer):
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        if trainer.is_world_process_zero():
            report = {
                **settings,
                "examples": len(rows),
                "steps": result.global_step,
                "loss": mean_loss(trainer.state.log_history, result.training_loss),
                "metrics": _collect_metrics(trainer.state.log_history),
            }
            _save(trainer, upstream, directory, report)
    return directory


def _describe(
    kind: Kind,
    config: StudentConfig,
    base: str,
    pairs: Sequence[Pair],
    held_out: Sequence[Pair],
    max_length: int,
) -> dict[str, Any]:
    shared = StudentConfig.__dataclass_fields__  # without what a subclass adds
    settings = {name: value for name, value in config.to_dict().items() if name in shared}
    other = "dpo" if kind == "sft" else "sft"
    kept = {k: v for k, v in settings.items() if k not in (*FREE, other)}
    data = {"pairs": hash_pairs(pairs), "held_out": hash_pairs(held_out)}
    return {"kind": kind, "base": base, "max_length": max_length, **data, **kept}


def check_settings(path: Path, settings: dict[str, Any]) -> None:
    """Write the settings, or compare them with those of the run that is to go on."""
    if not path.is_file():
        with replacing(path) as file:
            file.write(json.dumps(settings, indent=2).encode())
        return
    before = json.loads(path.read_text(encoding="utf-8"))
    now = json.loads(json.dumps(settings))
    if differing := [name for name in now if before.get(name) != now[name]]:
        name = differing[0]
        raise ConfigurationError(
            f"{path.parent} holds a run with {name}={before.get(name)!r:.80}, now it is "
            f"{now[name]!r:.80}; go on with the same, name another output or start it anew"
        )


def _make_trainer(
    kind: Kind,
    config: StudentConfig,
    stage: StageConfig,
    upstream: Upstream,
    rows: list[dict[str, Any]],
    checked: list[dict[str, Any]] | None,
    directory: Path,
) -> Trainer:
    from datasets import Dataset
    from transformers import EarlyStoppingCallback

    from aligner_integrations.training.baselines import trainers

    arguments = make_arguments(
        config, stage, config.checkpoints, directory, evaluated=checked is not None
    )
    arguments["gradient_checkpointing"] = config.gradient_checkpointing
    arguments["max_length"] = None  # long ones are left out before
    trainer: Any
    if kind == "sft":
        arguments["train_sampling_strategy"] = name_sampling(config.batch)
        trainer, made = trainers.CorrectionTrainer, trainers.SFTConfig
    else:
        assert isinstance(stage, DpoConfig)  # noqa: S101 - for mypy
        arguments["beta"] = stage.beta
        if stage.sft_weight:
            arguments["loss_type"] = ["sigmoid", "sft"]
            arguments["loss_weights"] = [1.0, stage.sft_weight]
        trainer, made = trainers.PreferenceTrainer, trainers.DPOConfig
    patience = config.checkpoints.patience
    watched = patience is not None and checked is not None
    try:
        return trainer(  # type: ignore[no-any-return]
            model=upstream.model,
            args=made(**arguments),
            processing_class=upstream.tokenizer,
            train_dataset=Dataset.from_list(rows),
            eval_dataset=None if checked is None else Dataset.from_list(checked),
            peft_config=make_adapter(config.lora) if config.method == "lora" else None,
            callbacks=[EarlyStoppingCallback(patience)] if watched else [],
        )
    except ValueError as error:  # several GPUs without a launcher, an adapter on the output layer
        raise ConfigurationError(f"trl can't train {upstream.name!r} so: {error}") from error


def _save(trainer: Any, upstream: Upstream, directory: Path, report: dict[str, Any]) -> None:
    """Write the model, the adapter merged into it, and then the report."""
    model = trainer.accelerator.unwrap_model(trainer.model)
    if hasattr(model, "merge_and_unload"):
        model = model.merge_and_unload()
    upstream.model = model
    save_upstream(upstream, directory)
    with replacing(directory / DONE) as file:
        file.write(json.dumps(report, indent=2).encode())


def _collect_metrics(history: list[dict[str, Any]]) -> dict[str, float]:
    """The last value of each figure that was logged."""
    metrics: dict[str, float] = {}
    for entry in history:
        metrics |= {name: value for name, value in entry.items() if isinstance(value, float)}
    return metrics
