"""What an evaluation is told: one YAML file, or the dataclasses that it becomes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from aligner_integrations.configs import Config, check_least
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.options import GenerationOptions
from aligner_integrations.prompts import get_prompt_format

LOCAL = "local:"
"""Before a bundled name, a directory or a hub id: a chat model that runs in this process."""
NONE, RECORDED = "none", "recorded"


@dataclass(frozen=True, slots=True)
class DatasetConfig:
    """A dataset; a text alone is its source. See `load_samples`.

    Args:
        source: File, folder or hub id.
        kind: What it is; by default found by its columns.
        name: What the report calls it.
        limit: Draw so many of it at most.
        split: Of a hub dataset.
        upstreams: Labels of the upstreams that answer it; by default all.
    """

    source: str
    kind: str = "auto"
    name: str | None = None
    limit: int | None = None
    split: str | None = None
    upstreams: list[str] | None = None

    @staticmethod
    def spell_out(value: Any) -> Any:
        """The long form of a text."""
        return {"source": value} if isinstance(value, str) else value


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """Who answers. ``recorded`` alone stands for the datasets' own answers, a text for a model.

    Args:
        name: What the report calls it.
        model: ``provider:model`` as for LangChain's ``init_chat_model``, the dotted path of a chat
            model or of a function that makes one, or ``local:`` and a bundled name, a directory or
            a hub id.
        recorded: A file of questions and answers instead.
        system: A system message before each question.
        options: Of the model: ``temperature``, ``max_tokens``, ``base_url`` and so on; of a local
            one ``max_new_tokens``, ``temperature``, ``top_p``, ``batch``, ``device``, ``dtype``.

    Raises:
        ConfigurationError: Model and file are both named.
    """

    name: str | None = None
    model: str | None = None
    recorded: str | None = None
    system: str | None = None
    options: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.model is not None and self.recorded is not None:
            raise ConfigurationError(
                f"an upstream has model={self.model!r} and recorded={self.recorded!r}; name one"
            )
        if self.model is None and (self.options or self.system):
            raise ConfigurationError(
                f"the upstream {self.label!r} is recorded, where options and system change "
                "nothing; leave them out, or name a model"
            )

    @staticmethod
    def spell_out(value: Any) -> Any:
        """The long form of a text."""
        if not isinstance(value, str):
            return value
        return {} if value == RECORDED else {"model": value}

    @property
    def label(self) -> str:
        """What the report calls it."""
        recorded = Path(self.recorded).stem if self.recorded else RECORDED
        return self.name or self.model or recorded


@dataclass(frozen=True, slots=True)
class AlignerConfig:
    """Who corrects. A text is a model, or ``none``: the answer as it is.

    Args:
        name: What the report calls it.
        model: An aligner: bundled name, directory or hub id.
        zero_shot: Instead, an instruct model that was not trained to correct: the same.
        refine: Instead, a chat model that criticises and rewrites, named as in `UpstreamConfig`.
        answer: Instead, a chat model that answers the question anew, named as in `UpstreamConfig`:
            an upstream after SFT or DPO, for comparison.
        server: Instead, the URL of a server that runs an aligner.
        prompt: Prompt format of an aligner that does not say its own.
        load: More for `Aligner.from_pretrained`: ``device``, ``dtype``, ``revision``, ``adapter``;
            with ``server``, for `Aligner.from_server`: ``model``, ``tokenizer``.
        options: Fields of `GenerationOptions`; with ``refine`` and ``answer``, options of the chat
            model.
        rounds: With ``refine``, critiques at most.
        prompts: With ``refine``, ``critique``, ``rewrite`` and ``fine``.

    Raises:
        ConfigurationError: It names none or several, or an option or a prompt format is unknown.
    """

    name: str | None = None
    model: str | None = None
    zero_shot: str | None = None
    refine: str | None = None
    answer: str | None = None
    server: str | None = None
    prompt: str | dict[str, Any] | None = None
    load: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)
    rounds: int = 1
    prompts: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        named = [kind for kind in _ALIGNERS if getattr(self, kind) is not None]
        if len(named) != 1:
            raise ConfigurationError(
                f"an aligner is one of {', '.join(_ALIGNERS)} (or the text none), and "
                f"{self.name or 'this one'!r} has {' and '.join(named) or 'none of them'}"
            )
        check_least({"rounds": (self.rounds, 1)})
        if self.refine is None and self.answer is None:
            GenerationOptions.coerce(self.options)
            if self.prompt is not None:
                get_prompt_format(self.prompt)

    @staticmethod
    def spell_out(value: Any) -> Any:
        """The long form of a text."""
        return {"model": value} if isinstance(value, str) else value

    @property
    def label(self) -> str:
        """What the report calls it."""
        if self.name or self.model:
            return str(self.name or self.model)
        kind = next(kind for kind in _ALIGNERS if getattr(self, kind) is not None)
        return f"{kind.replace('_', '-')} {getattr(self, kind)}"


_ALIGNERS = ("model", "zero_shot", "refine", "answer", "server")


@dataclass(frozen=True, slots=True)
class JudgeConfig:
    """Who judges: ``rules``, or a kind with its options, as in ``pairwise: {model: ...}``.

    Args:
        kind: What judge.
        options: What it takes.
    """

    kind: str
    options: dict[str, Any] = field(default_factory=dict)

    @staticmethod
    def spell_out(value: Any) -> Any:
        """The long form of a text or of ``kind: options``."""
        if isinstance(value, str):
            return {"kind": value}
        own = [item.name for item in fields(JudgeConfig)]
        if isinstance(value, Mapping) and len(value) == 1 and next(iter(value)) not in own:
            [(kind, options)] = value.items()
            return {"kind": kind, "options": {} if options is None else options}
        return value


def _list_all_probes() -> list[str]:
    from aligner_integrations.evaluation.guards import PROBES

    return list(PROBES)


@dataclass(frozen=True, slots=True)
class EvaluationConfig(Config):
    """An evaluation.

    Args:
        datasets: What is asked.
        output: Directory for the report and all results; a second run goes on there.
        upstreams: Who answers.
        aligners: Who corrects.
        judges: Who judges.
        probes: Names in `aligner_integrations.evaluation.guards`: more corrections that show how an
            aligner behaves. By default all.
        correct: Fields of `GenerationOptions` for all aligners that have no options of their own.
        title: Of the report.
        limits: Sentences that readers of the report must know first, such as what an aligner was
            trained on.
        seed: Of everything that is drawn.
        concurrency: Requests to a hosted model that run together.
        batch_size: Answers that a local aligner corrects together.
        patience: Failures in a row after which a model or judge is given up for this run.
        confidence: Of all intervals.

    Raises:
        ConfigurationError: A value cannot work.

    Example:
        >>> config = EvaluationConfig.from_dict(
        ...     {"datasets": ["questions.jsonl"], "output": "runs/eval", "aligners": ["none"]}
        ... )
        >>> config.upstreams[0].label, config.aligners[0].label, config.judges[0].kind
        ('recorded', 'none', 'rules')
    """

    datasets: list[DatasetConfig]
    output: str
    upstreams: list[UpstreamConfig] = field(default_factory=lambda: [UpstreamConfig()])
    aligners: list[AlignerConfig] = field(
        default_factory=lambda: [AlignerConfig(model="aligner-smol")]
    )
    judges: list[JudgeConfig] = field(default_factory=lambda: [JudgeConfig("rules")])
    probes: list[str] = field(default_factory=_list_all_probes)
    correct: dict[str, Any] = field(default_factory=dict)
    title: str = "Evaluation"
    limits: list[str] = field(default_factory=list)
    seed: int = 0
    concurrency: int = 8
    batch_size: int = 8
    patience: int = 20
    confidence: float = 0.95

    def __post_init__(self) -> None:
        check_least(
            {
                "seed": (self.seed, 0),
                "concurrency": (self.concurrency, 1),
                "batch_size": (self.batch_size, 1),
                "patience": (self.patience, 1),
            }
        )
        if not 0.5 <= self.confidence < 1:
            raise ConfigurationError(f"confidence={self.confidence} must be from 0.5 to below 1")
        for name in ("datasets", "upstreams", "aligners"):
            if not getattr(self, name):
                raise ConfigurationError(f"{name} is empty; name at least one")
        check_unique("upstreams", [one.label for one in self.upstreams])
        check_unique("aligners", [one.label for one in self.aligners])
        GenerationOptions.coerce(self.correct)
        labels = [one.label for one in self.upstreams]
        for name in (name for one in self.datasets for name in one.upstreams or ()):
            if name not in labels:
                raise ConfigurationError(
                    f"a dataset names the upstream {name!r}; the config has {', '.join(labels)}"
                )
        if unknown := [name for name in self.probes if name not in _list_all_probes()]:
            raise ConfigurationError(
                f"the probe {unknown[0]!r} is unknown; known are {', '.join(_list_all_probes())}"
            )


def check_unique(what: str, names: Sequence[str]) -> None:
    """Raise `ConfigurationError` if two have one name."""
    name, times = Counter(names).most_common(1)[0]
    if times > 1:
        raise ConfigurationError(
            f"{times} {what} are called {name!r}; give each a name: of its own"
        )
