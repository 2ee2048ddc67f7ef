"""How well a layer's direction tells "correct" from "copy" on pairs that it was not found with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aligner_integrations.errors import DataError
from aligner_integrations.interpretability.directions import Array, Method, find_direction

FOLDS = 5
SHUFFLES = 10
_LEAST_PAIRS = 10


@dataclass(frozen=True, slots=True)
class Accuracy:
    """Held-out figures, one for each layer.

    Attributes:
        method: How the directions were found.
        position: Where the states were read.
        pairs: How many pairs they come from.
        values: Share of cases on their own class's side of the line, a tie counting half.
        low: Lower ends of 95% Wilson intervals. A pair counts as one observation, since its cases
            share their question.
        high: Upper ends.
        auc: Area under the ROC curve of the places on the line.
        shuffled: Mean of `values` when the labels within pairs are drawn at random.
        shuffled_high: The largest of these; None without shuffles.
    """

    method: Method
    position: str
    pairs: int
    values: list[float]
    low: list[float]
    high: list[float]
    auc: list[float]
    shuffled: list[float] | None = None
    shuffled_high: list[float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {name: _round(getattr(self, name)) for name in self.__slots__}


def split_pairs(count: int, folds: int = FOLDS) -> list[NDArray[np.bool_]]:
    """Which pairs each fold holds out: a mask of shape (pairs,) for each.

    Pairs come in an order that was drawn already, and share no question.

    Raises:
        DataError: There are too few pairs.
    """
    if count < _LEAST_PAIRS:
        raise DataError(
            f"{count} pairs are too few to hold any out: a scan needs at least {_LEAST_PAIRS}; "
            "give it more triples"
        )
    # Runs of neighbours, so that kinds of pairs that take turns are in each fold alike.
    return [np.arange(count) * folds // count == fold for fold in range(folds)]


def measure_accuracy(
    correct: Array,
    copy: Array,
    method: Method,
    *,
    position: str = "",
    only: Sequence[bool] | None = None,
    shuffles: int = 0,
    seed: int = 0,
) -> Accuracy:
    """Cross-validate directions, layer by layer.

    Args:
        correct: States of the class "correct", shape (pairs, layers, hidden size).
        copy: States of the class "copy", of the same pairs.
        method: See `find_direction`.
        position: Where the states were read.
        only: Which pairs are counted; directions are found with all. None for all.
        shuffles: How many times the whole is done with labels drawn at random: the control that
            shows what so many dimensions find in nothing.
        seed: Of the shuffles and of `find_direction`.
    """
    counted = np.ones(len(correct), bool) if only is None else np.asarray(only, bool)
    places = _place(correct, copy, method, seed)
    hits = _count_hits(places)[counted]
    low, high = _intervals(hits)
    draw = np.random.default_rng(seed)
    shuffled = []
    for _ in range(shuffles):
        swap = draw.random(len(correct)) < 0.5
        one = np.where(swap[:, None, None], copy, correct)
        other = np.where(swap[:, None, None], correct, copy)
        shuffled.append(_count_hits(_place(one, other, method, seed))[counted].mean(axis=0))
    return Accuracy(
        method,
        position,
        int(counted.sum()),
        hits.mean(axis=0).tolist(),
        low,
        high,
        _areas(places[:, counted]),
        np.mean(shuffled, axis=0).tolist() if shuffled else None,
        np.max(shuffled, axis=0).tolist() if shuffled else None,
    )


def _place(correct: Array, copy: Array, method: Method, seed: int) -> NDArray[np.float64]:
    """Places on the lines of pairs held out, shape (2, pairs, layers); "correct" first."""
    pairs, layers = correct.shape[:2]
    places = np.empty((2, pairs, layers))
    for held in split_pairs(pairs):
        for layer in range(layers):
            found = find_direction(correct[~held, layer], copy[~held, layer], method, seed)
            places[0, held, layer] = found.project(correct[held, layer])
            places[1, held, layer] = found.project(copy[held, layer])
    return places


def _count_hits(places: NDArray[np.float64]) -> NDArray[np.float64]:
    """What share of each pair's two cases is on its own side, shape (pairs, layers)."""
    sides = np.sign(np.stack([places[0], -places[1]]))
    hits: NDArray[np.float64] = ((sides + 1) / 2).mean(axis=0)
    return hits


def _intervals(hits: NDArray[np.float64]) -> tuple[list[float], list[float]]:
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(hits.sum(axis=0), len(hits), method="wilson")
    means = hits.mean(axis=0)  # which rounding may leave a hair outside
    return np.clip(low, 0, means).tolist(), np.clip(high, means, 1).tolist()


def _areas(places: NDArray[np.float64]) -> list[float]:
    from sklearn.metrics import roc_auc_score

    pairs, layers = places.shape[1:]
    labels = np.repeat([1, 0], pairs)
    return [
        float(roc_auc_score(labels, places[:, :, layer].ravel())) if pairs else float("nan")
        for layer in range(layers)
    ]


def measure_length_accuracy(correct: Sequence[int], copy: Sequence[int]) -> float:
    """How well the answers' lengths alone tell the classes apart: AUC, 0.5 to 1.

    A control: directions should do better than this.
    """
    from sklearn.metrics import roc_auc_score

    labels = np.repeat([1, 0], [len(correct), len(copy)])
    area = float(roc_auc_score(labels, [*correct, *copy]))
    return max(area, 1 - area)


def _round(value: Any) -> Any:
    if isinstance(value, list):
        return [round(number, 4) for number in value]
    return value
