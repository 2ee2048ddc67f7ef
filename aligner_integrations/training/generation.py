"""Corrections that a model writes while it is trained: does it copy, and does it correct?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from transformers import TrainerCallback

from aligner_integrations.aligner import Aligner
from aligner_integrations.correction import Correction
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.models.load import LoadedModel, find_context_length
from aligner_integrations.training.base import TrainedModel

if TYPE_CHECKING:
    from aligner_integrations.training.data import Triple

logger = logging.getLogger(__name__)


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
        """Names and values for a log."""
        return {
            "eval_copied": self.copied,
            "eval_changed": self.changed,
            "eval_exact": self.exact,
            "eval_failed": float(self.failed),
        }


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


class GenerationCallback(TrainerCallback):  # type: ignore[misc]
    """Corrects held-out answers at each evaluation and logs what came out."""

    def __init__(self, trained: TrainedModel, triples: Sequence[Triple]) -> None:
        self._trained = trained
        self._triples = triples

    def on_evaluate(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Called by Trainer behind each evaluation."""
        if not state.is_world_process_zero:
            return
        outcome = compare(self._triples, correct_now(self._trained, self._triples))
        metrics = outcome.to_metrics()
        state.log_history.append({**metrics, "step": state.global_step})
        logger.info("step %d: %s", state.global_step, metrics)


def _share(values: Sequence[bool]) -> float:
    return sum(values) / len(values) if values else float("nan")
