"""Corrections that a model writes while it is trained: does it copy, and does it correct?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import isnan
from typing import TYPE_CHECKING, Any

import torch

from aligner_integrations.aligner import Aligner
from aligner_integrations.correction import Correction
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.models.load import LoadedModel, find_context_length
from aligner_integrations.training.base import TrainedModel

if TYPE_CHECKING:
    from aligner_integrations.training.data import Triple


@dataclass(frozen=True, slots=True)
class Outcome:
    """How corrections compare with those that were wanted.

    Attributes:
        copied: Share of answers to be kept that came out equal to the character.
        changed: Share of answers to be corrected that came out changed.
        exact: Share of answers to be corrected that came out exactly as wanted.
        failed: How many could not be corrected, mostly because they did not end.
    """

    copied: float
    changed: float
    exact: float
    failed: int

    def to_metrics(self) -> dict[str, float]:
        """Names and values for a log; a share of no answers is left out."""
        metrics = {
            "eval_copied": self.copied,
            "eval_changed": self.changed,
            "eval_exact": self.exact,
            "eval_failed": float(self.failed),
        }
        return {name: value for name, value in metrics.items() if not isnan(value)}


def compare(triples: Sequence[Triple], results: Sequence[Correction | Exception]) -> Outcome:
    """Count what came out."""
    kept: list[bool] = []
    changed: list[bool] = []
    exact: list[bool] = []
    for triple, result in zip(triples, results, strict=True):
        text = result.text if isinstance(result, Correction) else None
        if triple.answer == triple.correction:
            kept.append(text == triple.answer)
        else:
            changed.append(text is not None and text != triple.answer)
            exact.append(text == triple.correction)
    failed = sum(not isinstance(result, Correction) for result in results)
    return Outcome(_share(kept), _share(changed), _share(exact), failed)


def correct_now(trained: TrainedModel, triples: Sequence[Triple]) -> list[Any]:
    """Let a model in training correct answers, greedily, as it is now."""
    model = trained.model
    was_training = model.training
    model.eval()
    loaded = LoadedModel("in training", model, trained.encoder, find_context_length(model))
    aligner = Aligner(LocalEngine(loaded, speculate=False), options={"pass_through": ()})
    try:
        with torch.no_grad():
            pairs = [(triple.question, triple.answer) for triple in triples]
            return aligner.correct_batch(pairs, return_exceptions=True)
    finally:
        model.train(was_training)


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else float("nan")
