"""What the training of a baseline, and bootstrapping, are told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.training.config import (
    BatchConfig,
    Config,
    DataConfig,
    LoraConfig,
    Precision,
    StageConfig,
    check_data,
    check_least,
    check_run,
)

Kind = Literal["sft", "dpo"]
Method = Literal["lora", "full"]
STAGES: tuple[Kind, ...] = ("sft", "dpo")


@dataclass(frozen=True, slots=True)
class DpoConfig(StageConfig):
    """DPO.

    Args:
        epochs: How often the pairs are seen; 0 leaves the stage out.
        learning_rate: The highest; it falls to 0 with a cosine.
        warmup_ratio: Part of the steps in which it rises.
        max_steps: Steps at most; -1 for as many as the epochs have.
        max_examples: Pairs at most, drawn with the seed; None for all.
        beta: How closely the model stays by the one it began as; lower strays further.
        sft_weight: Weight of a plain likelihood of the chosen answer beside the preference, which
            keeps its own probability from sinking.
    """

    learning_rate: float = 1e-6
    beta: float = 0.1
    sft_weight: float = 0.0


@dataclass(frozen=True, slots=True)
class CheckpointConfig:
    """Looking at the model while it trains.

    Args:
        every: Steps between evaluations and checkpoints.
        patience: Evaluations without a better loss after which training stops; None never.
        keep: Checkpoints that are kept.
    """

    every: int = 200
    patience: int | None = None
    keep: int = 2


@dataclass(frozen=True, slots=True)
class StudentConfig(Config):
    """How an upstream model is trained; `BaselineConfig` and `BootstrapConfig` add what on.

    Args:
        method: ``"lora"`` (merged into the weights at the end) or ``"full"``.
        lora: Size of the adapter.
        sft: Fine-tuning on corrections.
        dpo: Preference of corrections over answers.
        batch: Sizes of batches.
        checkpoints: Evaluation and checkpoints.
        system: A system message before each question.
        precision: ``"bfloat16"``, ``"float32"``, or ``"auto"`` for what the device is good at.
        gradient_checkpointing: Compute activations twice and keep fewer.
        seed: Of everything that is drawn.
        report_to: Where to log: ``"tensorboard"``, ``"wandb"``.
        device: ``"cpu"`` keeps a run off a GPU that is there.
    """

    method: Method = "lora"
    lora: LoraConfig = field(default_factory=LoraConfig)
    sft: StageConfig = field(default_factory=StageConfig)
    dpo: DpoConfig = field(default_factory=DpoConfig)
    batch: BatchConfig = field(default_factory=BatchConfig)
    checkpoints: CheckpointConfig = field(default_factory=CheckpointConfig)
    system: str | None = None
    precision: Precision = "auto"
    gradient_checkpointing: bool = False
    seed: int = 0
    report_to: list[str] = field(default_factory=list)
    device: str | None = None

    def __post_init__(self) -> None:
        check_run(self, "checkpoints", method=Method, precision=Precision)
        check_least(
            {
                "sft.epochs": (self.sft.epochs, 0),
                "dpo.epochs": (self.dpo.epochs, 0),
                "dpo.beta": (self.dpo.beta, 1e-6),
                "dpo.sft_weight": (self.dpo.sft_weight, 0),
            }
        )
        if self.batch.tokens is not None:
            raise ConfigurationError(
                f"batch.tokens={self.batch.tokens} is for aligners only; trl's trainers cut "
                "batches by batch.size"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class BaselineConfig(StudentConfig):
    """Baselines from the triples of an aligner: ``sft`` and ``dpo`` share one config.

    Args:
        base: The model to begin with: bundled name, directory or hub id.
        output: Directory; each baseline gets its own in it, ``sft`` and ``dpo``.
        data: The triples.

    Raises:
        ConfigurationError: A value cannot work.

    Example:
        >>> config = BaselineConfig(
        ...     base="smollm2-135m-instruct", output="out", data=DataConfig(["train.jsonl"])
        ... )
        >>> config.sft.learning_rate, config.dpo.learning_rate
        (2e-05, 1e-06)
    """

    base: str
    output: str
    data: DataConfig

    def __post_init__(self) -> None:
        StudentConfig.__post_init__(self)
        check_data(self.data, "checkpoints.patience", self.checkpoints.patience)


@dataclass(frozen=True, slots=True)
class SamplingConfig:
    """How answers are sampled.

    Args:
        max_new_tokens: Most tokens of an answer; longer ones are cut, and cut ones not used.
        temperature: 0 takes the likeliest token always.
        top_p: Least probability that the tokens drawn from have together.
        batch: Questions that are answered together.
    """

    max_new_tokens: int = 512
    temperature: float = 0.7
    top_p: float = 1.0
    batch: int = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class BootstrapConfig(StudentConfig):
    """A bootstrapping.

    Args:
        upstream: The model to begin with: bundled name, directory or hub id; a chat model.
        output: Directory; each round has its own in it.
        questions: Files of questions.
        eval_questions: Files of questions that are answered and corrected, and never trained on.
        aligner: Who corrects: bundled name, directory or hub id.
        aligner_prompt: Its prompt format, where it does not say its own.
        rounds: How many.
        sampling: How the upstream answers.
        max_length: Most tokens of question and answer in training; longer pairs are left out.

    Raises:
        ConfigurationError: A value cannot work.

    Example:
        >>> config = BootstrapConfig(
        ...     upstream="smollm2-135m-instruct", output="out", questions=["questions.jsonl"]
        ... )
        >>> config.rounds, config.aligner
        (3, 'aligner-smol')
    """

    upstream: str
    output: str
    questions: list[str]
    eval_questions: list[str] = field(default_factory=list)
    aligner: str = "aligner-smol"
    aligner_prompt: str | None = None
    rounds: int = 3
    sampling: SamplingConfig = field(default_factory=SamplingConfig)
    max_length: int = 2048

    def __post_init__(self) -> None:
        StudentConfig.__post_init__(self)
        check_least(
            {
                "rounds": (self.rounds, 1),
                "max_length": (self.max_length, 16),
                "sampling.batch": (self.sampling.batch, 1),
                "sampling.max_new_tokens": (self.sampling.max_new_tokens, 1),
                "sampling.temperature": (self.sampling.temperature, 0),
            }
        )
        if not self.questions:
            raise ConfigurationError("questions is empty; name at least one file of questions")
        if not self.stages:
            raise ConfigurationError("sft.epochs and dpo.epochs are both 0; one must be more")
        if self.checkpoints.patience is not None:
            raise ConfigurationError(
                "checkpoints.patience needs held-out pairs, which a round has none of; leave it out"
            )

    @property
    def stages(self) -> list[Kind]:
        """The stages that a round trains."""
        return [kind for kind in STAGES if getattr(self, kind).epochs]
