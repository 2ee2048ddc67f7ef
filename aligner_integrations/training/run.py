"""`train`: the two stages, one after the other, and what they leave behind."""

from __future__ import annotations

import json
import logging
import os
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import set_seed

from aligner_integrations.imports import require
from aligner_integrations.training.arguments import (
    explained_failures,
    make_arguments,
    mean_loss,
    name_sampling,
)
from aligner_integrations.training.base import TrainedModel, load_base, save_aligner
from aligner_integrations.training.card import write_card
from aligner_integrations.training.config import StageConfig, TrainingConfig
from aligner_integrations.training.data import Triple, make_identity, read_triples
from aligner_integrations.training.examples import ExampleDataset, collate, encode_triples
from aligner_integrations.training.generation import compare, correct_now
from aligner_integrations.training.trainer import AlignerTrainer, find_checkpoint

logger = logging.getLogger(__name__)
STAGES = ("warmup", "residual")


def train(config: TrainingConfig, *, resume: bool = True) -> Path:
    """Train an aligner: identity warm-up, then residual correction.

    Ji et al. 2024, section 3: a model that first learns to copy answers learns what to correct in
    them faster and with fewer needless changes.

    Args:
        config: What to train, on what and how.
        resume: Go on where an earlier run with the same output stopped. The order of the data and
            all random numbers go on as well.

    Returns:
        The directory of the aligner; `Aligner.from_pretrained` loads it.

    Raises:
        MissingExtraError: The extra ``[train]`` is not installed.
        DataError: A file holds no valid triples; the message has file and line.
        ConfigurationError: The config asks for something that cannot work.
        TrainingError: The run ran out of memory or disk; the last checkpoint stays.
    """
    require("transformers", "train", "5.2")  # its trainer's arguments had other names
    output = Path(config.output)
    triples = _read(config.data.train, config)
    held_out = _read(config.data.eval, config)
    set_seed(config.seed)  # adapters begin with random numbers
    trained = load_base(config)
    history: dict[str, Any] = {}
    for name in STAGES:
        stage: StageConfig = getattr(config, name)
        if not stage.epochs or stage.max_steps == 0:
            continue
        history[name], trainer = _run_stage(
            config, stage, name, trained, triples, held_out, output / name, resume
        )
        if trainer.is_sharded:
            trained = _gather(trainer, config, output)
    if is_main_process():
        save_aligner(trained, config, output)
        shown = _draw(held_out, config.evaluation.examples, config.seed)
        outcome = compare(shown, correct_now(trained, shown)) if shown else None
        report = {"config": config.to_dict(), "stages": history}
        if outcome is not None:
            report["outcome"] = asdict(outcome)
        (output / "training.json").write_text(json.dumps(report, indent=2), encoding="utf-8")
        card = write_card(config, history, triples, held_out, outcome)
        (output / "README.md").write_text(card, encoding="utf-8")
        if config.push_to is not None:
            push(output, config.push_to)
    return output


def _run_stage(
    config: TrainingConfig,
    stage: StageConfig,
    name: str,
    trained: TrainedModel,
    triples: list[Triple],
    held_out: list[Triple],
    directory: Path,
    resume: bool,
) -> tuple[dict[str, Any], AlignerTrainer]:
    chosen = _draw(triples, stage.max_examples, config.seed)
    if name == "warmup":
        chosen, held_out = [*map(make_identity, chosen)], [*map(make_identity, held_out)]
    length = config.data.max_length
    examples = encode_triples(trained.encoder, chosen, config.loss, length)
    evaluation = (
        encode_triples(trained.encoder, held_out, config.loss, length) if held_out else None
    )
    callbacks: list[Any] = []
    if evaluation is not None and config.evaluation.patience is not None:
        from transformers import EarlyStoppingCallback

        callbacks.append(EarlyStoppingCallback(config.evaluation.patience))
    trainer = AlignerTrainer(
        tokens=config.batch.tokens,
        generate=_make_generate(trained, _draw(held_out, config.evaluation.examples, config.seed)),
        model=trained.model,
        args=_make_arguments(config, stage, directory, evaluated=evaluation is not None),
        data_collator=collate,
        train_dataset=ExampleDataset(examples),
        eval_dataset=None if evaluation is None else ExampleDataset(evaluation),
        callbacks=callbacks,
    )
    if trainer.is_sharded and held_out and config.evaluation.examples:
        logger.warning("weights are sharded, so answers are corrected at the end only")
    checkpoint = find_checkpoint(directory) if resume else None
    if checkpoint is not None:
        logger.info("%s goes on from %s", name, checkpoint)
    with explained_failures(f"stage {name!r}", trainer):
        result = trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
    loss = mean_loss(trainer.state.log_history, result.training_loss)
    done = {"examples": len(examples), "steps": result.global_step, "loss": loss}
    return done, trainer


def _make_generate(
    trained: TrainedModel, shown: list[Triple]
) -> Callable[[], dict[str, float]] | None:
    if not shown:
        return None
    return lambda: compare(shown, correct_now(trained, shown)).to_metrics()


def _gather(trainer: AlignerTrainer, config: TrainingConfig, output: Path) -> TrainedModel:
    """Write what is spread over processes, and load it whole in each of them."""
    from transformers.integrations.deepspeed import unset_hf_deepspeed_config
    from transformers.trainer import TRAINING_ARGS_NAME

    trainer.save_model(str(output))
    if is_main_process():
        (output / TRAINING_ARGS_NAME).unlink(missing_ok=True)  # a pickle, of use to nobody
    trainer.accelerator.wait_for_everyone()
    unset_hf_deepspeed_config()  # it would have the model loaded in parts
    return load_base(config, output)


def _make_arguments(
    config: TrainingConfig, stage: StageConfig, directory: Path, *, evaluated: bool
) -> Any:
    from transformers import TrainingArguments

    shared = make_arguments(config, stage, config.evaluation, directory, evaluated=evaluated)
    return TrainingArguments(
        **shared,
        train_sampling_strategy=name_sampling(config.batch),
        remove_unused_columns=False,
        label_names=["labels"],
        prediction_loss_only=True,
        disable_tqdm=False,
    )


def _read(paths: list[str], config: TrainingConfig) -> list[Triple]:
    return [triple for path in paths for triple in read_triples(path, layout=config.data.layout)]


def _draw(triples: list[Triple], most: int | None, seed: int) -> list[Triple]:
    if most is None or len(triples) <= most:
        return triples
    return random.Random(seed).sample(triples, most)  # noqa: S311 - no secret


def is_main_process() -> bool:
    """Whether this process writes the results; with several, `accelerate launch` numbers them."""
    return os.environ.get("RANK", "0") == "0"


def push(directory: Path, repository: str) -> None:
    """Upload an aligner to the model hub, without its checkpoints."""
    from huggingface_hub import HfApi

    api = HfApi()
    api.create_repo(repository, exist_ok=True, private=True)
    ignored = [f"{stage}/**" for stage in STAGES]
    api.upload_folder(repo_id=repository, folder_path=directory, ignore_patterns=ignored)
