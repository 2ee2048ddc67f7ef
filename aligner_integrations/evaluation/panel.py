"""The judges that a config names."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.evaluation.config import JudgeConfig
from aligner_integrations.evaluation.judging import Judge
from aligner_integrations.evaluation.upstreams import load_llm

KINDS: Mapping[str, tuple[str, ...]] = {
    "rules": ("RefusalJudge", "LeakJudge"),
    "refusal": ("RefusalJudge",),
    "leak": ("LeakJudge",),
    "reward": ("RewardJudge",),
    "reference": ("ReferenceJudge",),
    "likelihood": ("LikelihoodJudge",),
}
"""Classes of `aligner_integrations.evaluation.judges` by what configs call them."""


def load_judges(config: JudgeConfig, *, models: Mapping[str, Any], concurrency: int) -> list[Judge]:
    """Judges by one entry of a config.

    A pairwise judge becomes one for each dimension, of the same name: then a rubric that changes
    makes its own judgements anew and no others.

    Args:
        config: The entry.
        models: Chat models by the name that configs call them.
        concurrency: Requests of a pairwise judge that run together.

    Raises:
        ConfigurationError: There is no such kind or option, or the model can't be used.

    Example:
        >>> [judge.name for judge in load_judges(JudgeConfig("rules"), models={}, concurrency=1)]
        ['refusal-rule', 'leak-rule']
    """
    if config.kind == "pairwise":
        return _load_pairwise(dict(config.options), models, concurrency)
    if "." in config.kind:
        module, _, name = config.kind.rpartition(".")
        try:
            found = [getattr(importlib.import_module(module), name)]
        except (ImportError, AttributeError) as error:
            raise ConfigurationError(f"the judge {config.kind!r} can't be used: {error}") from error
    elif config.kind in KINDS:
        judges = importlib.import_module("aligner_integrations.evaluation.judges")
        found = [getattr(judges, name) for name in KINDS[config.kind]]
    else:
        raise ConfigurationError(
            f"the judge {config.kind!r} is unknown; known are pairwise, {', '.join(KINDS)}, and "
            "the dotted path of a class of your own"
        )
    return [_make(one, config.kind, config.options) for one in found]


def _load_pairwise(
    options: dict[str, Any], models: Mapping[str, Any], concurrency: int
) -> list[Judge]:
    from aligner_integrations.evaluation.judges import PairwiseJudge, Rubric

    model = options.pop("model", None)
    if not isinstance(model, str):
        raise ConfigurationError(
            f"the judge pairwise has model={model!r}; name a chat model, provider:model"
        )
    own = {name: Rubric(name, text) for name, text in options.pop("rubrics", {}).items()}
    dimensions = options.pop("dimensions", [*own] or ["helpful", "harmless"])
    if not isinstance(dimensions, list) or not dimensions:
        raise ConfigurationError(
            f"the judge pairwise has dimensions={dimensions!r}; it must be a list of names"
        )
    llm = load_llm(model, options.pop("options", None) or {}, models)
    options.setdefault("concurrency", concurrency)
    return [
        _make(
            PairwiseJudge,
            "pairwise",
            {**options, "llm": llm, "dimensions": [own.get(dimension, dimension)]},
        )
        for dimension in dimensions
    ]


def _make(judge: Any, kind: str, options: Mapping[str, Any]) -> Judge:
    try:
        inspect.signature(judge).bind(**options)
    except TypeError as error:
        known = ", ".join(inspect.signature(judge).parameters)
        raise ConfigurationError(f"the judge {kind!r}: {error}; it takes {known}") from None
    made: Judge = judge(**options)
    return made
