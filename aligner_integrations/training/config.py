"""What a training run is told: one YAML file, or the dataclasses that it becomes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from aligner_integrations.configs import (
    Config,
    build_config,
    check_choices,
    check_least,
    read_yaml,
)
from aligner_integrations.errors import ConfigurationError

__all__ = [
    "BatchConfig",
    "Config",
    "DataConfig",
    "EvalConfig",
    "LoraConfig",
    "LossConfig",
    "Method",
    "Precision",
    "StageConfig",
    "TrainingConfig",
    "build_config",
    "check_choices",
    "check_data",
    "check_least",
    "read_yaml",
]

Method = Literal["lora", "qlora", "full"]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Where the triples are.

    Args:
        train: Files of (question, answer, correction); see `aligner_integrations.training.data`.
        eval: Files that are held out; without them there is no early stop.
        layout: The layout of the rows; by default found by their fields.
        max_length: Most tokens of prompt and correction together. Longer ones are left out and
            counted, never cut.
    """

    train: list[str]
    eval: list[str] = field(default_factory=list)
    layout: str = "auto"
    max_length: int = 2048


@dataclass(frozen=True, slots=True)
class LoraConfig:
    """Size of the low-rank adapter.

    Args:
        r: Its rank.
        alpha: Its scale; ``alpha / r`` multiplies what it adds.
        dropout: Dropout before it.
        target_modules: Layers that get one; ``"all-linear"`` for all but the output layer.
    """

    r: int = 32
    alpha: int = 64
    dropout: float = 0.05
    target_modules: str | list[str] = "all-linear"


@dataclass(frozen=True, slots=True)
class StageConfig:
    """One of the two stages.

    Args:
        epochs: How often the examples are seen; 0 leaves the stage out.
        learning_rate: The highest; it falls to 0 with a cosine.
        warmup_ratio: Part of the steps in which it rises.
        max_steps: Steps at most; -1 for as many as the epochs have.
        max_examples: Examples at most, drawn with the seed; None for all.
    """

    epochs: float = 1.0
    learning_rate: float = 2e-5
    warmup_ratio: float = 0.03
    max_steps: int = -1
    max_examples: int | None = None


@dataclass(frozen=True, slots=True)
class LossConfig:
    """Weights of the correction's tokens in the loss; a copied token weighs 1.

    Copied tokens are most of all tokens, so what the aligner is there for has little say in a plain
    mean. See `aligner_integrations.training.weights`; docs/training.md says what weights gain.

    Args:
        changed: Weight of tokens that are not in the answer.
        departure: Weight of the first token with which the correction departs from the answer: the
            decision to replace, to insert, to leave out or to end.
    """

    changed: float = 4.0
    departure: float = 4.0


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """How many examples share a step.

    Args:
        size: On each device at a time.
        tokens: Most tokens on each device at a time, padding included, in place of ``size``:
            batches of many short examples or few long ones, which saves padding and memory.
        accumulate: Passes before each step.
        group_by_length: Batches of examples that are about as long, which saves padding.
    """

    size: int = 8
    tokens: int | None = None
    accumulate: int = 1
    group_by_length: bool = True


@dataclass(frozen=True, slots=True)
class EvalConfig:
    """Looking at the model while it trains.

    Args:
        every: Steps between evaluations and checkpoints.
        examples: Held-out examples that are corrected each time; 0 for the loss alone.
        patience: Evaluations without a better loss after which training stops; None never.
        keep: Checkpoints that are kept.
    """

    every: int = 200
    examples: int = 32
    patience: int | None = None
    keep: int = 2


@dataclass(frozen=True, slots=True)
class TrainingConfig(Config):
    """A training run.

    Args:
        base: The model to begin with: bundled name, directory or hub id.
        output: Directory for the aligner; `Aligner.from_pretrained` loads it.
        data: The triples.
        prompt: Prompt format: a preset's name or a `PromptFormat`'s dict.
        method: ``"lora"``, ``"qlora"`` (4-bit base, needs the extra ``[qlora]``) or ``"full"``.
        lora: Size of the adapter.
        warmup: Stage 1, identity: the correction is the answer itself.
        residual: Stage 2, residual correction.
        loss: Weights of tokens.
        batch: Sizes of batches.
        evaluation: Evaluation and checkpoints.
        precision: ``"bfloat16"``, ``"float32"``, or ``"auto"`` for what the device is good at.
        gradient_checkpointing: Compute activations twice and keep fewer.
        seed: Of everything that is drawn.
        report_to: Where to log: ``"tensorboard"``, ``"wandb"``.
        push_to: Model hub id to push the result to.
        device: ``"cpu"`` keeps a run off a GPU that is there.

    Raises:
        ConfigurationError: A value cannot work.

    Example:
        >>> config = TrainingConfig("smollm2-135m-instruct", "out", DataConfig(["train.jsonl"]))
        >>> config.residual.epochs
        3.0
    """

    base: str
    output: str
    data: DataConfig
    prompt: str | dict[str, Any] = "aligner-smol"
    method: Method = "lora"
    lora: LoraConfig = field(default_factory=LoraConfig)
    warmup: StageConfig = field(default_factory=StageConfig)
    residual: StageConfig = field(default_factory=lambda: StageConfig(epochs=3.0))
    loss: LossConfig = field(default_factory=LossConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    evaluation: EvalConfig = field(default_factory=EvalConfig)
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    seed: int = 0
    report_to: list[str] = field(default_factory=list)
    push_to: str | None = None
    device: str | None = None

    def __post_init__(self) -> None:
        check_run(self, "evaluation", method=Method, precision=Precision)
        check_least(
            {
                "loss.changed": (self.loss.changed, 0),
                "loss.departure": (self.loss.departure, 0),
                "warmup.epochs": (self.warmup.epochs, 0),
                "residual.epochs": (self.residual.epochs, 0),
            }
        )
        check_data(self.data, "evaluation.patience", self.evaluation.patience)
        if self.batch.tokens is not None and self.batch.tokens < self.data.max_length:
            raise ConfigurationError(
                f"batch.tokens={self.batch.tokens} is less than data.max_length="
                f"{self.data.max_length}, so the longest examples would not fit; raise it, or "
                "lower data.max_length"
            )


def check_run(config: Any, watching: str, **kinds: Any) -> None:
    """Raise `ConfigurationError` where what the configs of all trainings hold can't do.

    Args:
        config: The config.
        watching: Its field that says when it is evaluated and saved.
        **kinds: Fields with choices; see `check_choices`.
    """
    check_choices(config, **kinds)
    watched = getattr(config, watching)
    check_least(
        {
            "batch.size": (config.batch.size, 1),
            "batch.accumulate": (config.batch.accumulate, 1),
            f"{watching}.every": (watched.every, 1),
            f"{watching}.keep": (watched.keep, 1),
            "lora.r": (config.lora.r, 1),
        }
    )


def check_data(data: DataConfig, name: str, patience: int | None) -> None:
    """Raise `ConfigurationError` where the files that are named can't do."""
    check_least({"data.max_length": (data.max_length, 16)})
    if not data.train:
        raise ConfigurationError("data.train is empty; name at least one file of triples")
    if patience is not None and not data.eval:
        raise ConfigurationError(
            f"{name}={patience} needs held-out data; name files as data.eval, or leave patience out"
        )
