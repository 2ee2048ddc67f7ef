"""What a training run is told: one YAML file, or the dataclasses that it becomes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields, is_dataclass
from pathlib import Path
from typing import Any, Literal, cast, get_args, get_type_hints

from typing_extensions import Self

from aligner_integrations.errors import ConfigurationError

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
    mean. See `aligner_integrations.training.weights`.

    Args:
        changed: Weight of tokens that are not in the answer.
        departure: Weight of the first token with which the correction departs from the answer: the
            decision to replace, to insert, to leave out or to end.
    """

    changed: float = 1.0
    departure: float = 4.0


@dataclass(frozen=True, slots=True)
class BatchConfig:
    """How many examples share a step.

    Args:
        size: On each device at a time.
        accumulate: Passes before each step.
        group_by_length: Batches of examples that are about as long, which saves padding.
    """

    size: int = 8
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


class Config:
    """Reading a config from plain data or a file, and writing it down."""

    __slots__ = ()

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `from_dict` reads it."""
        return asdict(cast("Any", self))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "config") -> Self:
        """Read plain data.

        Raises:
            ConfigurationError: A key is unknown or missing, or a value has the wrong type.
        """
        config: Self = build_config(cls, data, where)
        return config

    @classmethod
    def from_yaml(cls, path: str | Path) -> Self:
        """Read a YAML file; paths in it are relative to the current directory.

        Raises:
            ConfigurationError: The file is missing, no YAML, or says something that cannot work.
        """
        return cls.from_dict(read_yaml(path), str(path))


@dataclass(frozen=True, slots=True)
class TrainingConfig(Config):
    """A training run.

    Args:
        base: The model to begin with: bundled name, directory or hub id.
        output: Directory for the aligner; `Aligner.from_pretrained` loads it.
        data: The triples.
        prompt: Prompt format: a preset's name or a `PromptFormat`'s dict.
        method: ``"lora"``, ``"qlora"`` (4-bit base, on a GPU) or ``"full"``.
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
        check_choices(self, method=Method, precision=Precision)
        check_least(
            {
                "batch.size": (self.batch.size, 1),
                "batch.accumulate": (self.batch.accumulate, 1),
                "evaluation.every": (self.evaluation.every, 1),
                "evaluation.keep": (self.evaluation.keep, 1),
                "lora.r": (self.lora.r, 1),
                "loss.changed": (self.loss.changed, 0),
                "loss.departure": (self.loss.departure, 0),
                "warmup.epochs": (self.warmup.epochs, 0),
                "residual.epochs": (self.residual.epochs, 0),
            }
        )
        check_data(self.data, "evaluation.patience", self.evaluation.patience)


def check_choices(config: Any, **kinds: Any) -> None:
    """Raise `ConfigurationError` for a field that is none of its Literal's values."""
    for name, kind in kinds.items():
        if getattr(config, name) not in get_args(kind):
            raise ConfigurationError(
                f"{name}={getattr(config, name)!r} must be one of "
                + ", ".join(map(repr, get_args(kind)))
            )


def check_least(values: Mapping[str, tuple[float, float]]) -> None:
    """Raise `ConfigurationError` for a value below its least."""
    for name, (value, least) in values.items():
        if value < least:
            raise ConfigurationError(f"{name}={value!r} must be at least {least}")


def check_data(data: DataConfig, name: str, patience: int | None) -> None:
    """Raise `ConfigurationError` where the files that are named can't do."""
    check_least({"data.max_length": (data.max_length, 16)})
    if not data.train:
        raise ConfigurationError("data.train is empty; name at least one file of triples")
    if patience is not None and not data.eval:
        raise ConfigurationError(
            f"{name}={patience} needs held-out data; name files as data.eval, or leave patience out"
        )


def read_yaml(path: str | Path) -> Any:
    """What a YAML file holds.

    Raises:
        ConfigurationError: The file is missing, or no YAML.
    """
    import yaml  # type: ignore[import-untyped]

    try:
        return yaml.safe_load(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path} can't be read: {error.strerror}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"{path} is no YAML: {error}") from None


def build_config(cls: Any, data: Any, where: str) -> Any:
    """A config's dataclass from plain data, with dataclasses in it.

    Raises:
        ConfigurationError: A key is unknown or missing, or a value has the wrong type.
    """
    if not isinstance(data, Mapping):
        raise ConfigurationError(f"{where}: expected keys and values, not {data!r:.80}")
    known = {item.name: item for item in fields(cls)}
    if unknown := [key for key in data if key not in known]:
        raise ConfigurationError(
            f"{where}: unknown key {unknown[0]!r}; known are {', '.join(known)}"
        )
    kinds = get_type_hints(cls)
    values = {}
    for key, item in known.items():
        if key in data:
            values[key] = _read(kinds[key], data[key], f"{where}: {key}")
        elif item.default is MISSING and item.default_factory is MISSING:
            raise ConfigurationError(f"{where}: {key!r} is missing")
    return cls(**values)


def _read(kind: Any, value: Any, where: str) -> Any:
    if is_dataclass(kind):
        return build_config(kind, value, where)
    options = [kind] if not get_args(kind) or kind in (Method, Precision) else get_args(kind)
    if kind is float or float in options:
        if isinstance(value, str):  # YAML reads 2e-5 as a str
            try:
                value = float(value)
            except ValueError:
                raise ConfigurationError(f"{where}: {value!r} is no number") from None
        elif isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
    wanted = {
        bool: bool,
        int: int,
        float: float,
        str: str,
    }.get(kind)
    if wanted is not None and (
        not isinstance(value, wanted) or (wanted is not bool and isinstance(value, bool))
    ):
        raise ConfigurationError(f"{where}: {value!r:.80} must be of type {wanted.__name__}")
    if kind == list[str] and not (
        isinstance(value, list) and all(isinstance(one, str) for one in value)
    ):
        raise ConfigurationError(f"{where}: {value!r:.80} must be a list of strings")
    return value
