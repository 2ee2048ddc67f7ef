"""Directions are found, and nothing is found in nothing."""

from __future__ import annotations

import numpy as np
import pytest

from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.interpretability.accuracy import (
    measure_accuracy,
    measure_length_accuracy,
    split_pairs,
)
from aligner_integrations.interpretability.directions import (
    METHODS,
    Array,
    Method,
    find_direction,
)

PAIRS, SIZE = 60, 48


def plant(shift: float, seed: int = 0, *, layers: int = 3) -> tuple[Array, Array, Array]:
    """States whose classes differ along one direction, in the last layer only.

    What a pair's question is about moves both of its states.
    """
    draw = np.random.default_rng(seed)
    direction = draw.standard_normal(SIZE)
    direction /= np.linalg.norm(direction)
    topic = 3 * draw.standard_normal((PAIRS, 1, SIZE))
    sides = topic + 0.15 * draw.standard_normal((2, PAIRS, layers, SIZE))
    sides[0, :, -1] += shift / 2 * direction
    sides[1, :, -1] -= shift / 2 * direction
    correct, copy = sides.astype(np.float32)
    return correct, copy, direction.astype(np.float32)


@pytest.mark.parametrize("method", METHODS)
def test_planted_direction(method: Method) -> None:
    correct, copy, direction = plant(2.0)
    found = find_direction(correct[:, -1], copy[:, -1], method)
    if method != "probe":  # topics hide the boundary from a probe that ignores pairs
        assert found.unit @ direction > 0.95
    assert found.unit @ direction > 0.3
    assert np.linalg.norm(found.unit) == pytest.approx(1)
    assert np.linalg.norm(found.vector) == pytest.approx(found.distance)
    assert found.distance == pytest.approx(2.0, abs=0.3)
    assert found.project(correct[:, -1]).mean() == pytest.approx(1, abs=1e-3)
    assert found.project(copy[:, -1]).mean() == pytest.approx(-1, abs=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_planted_direction_without_topics(method: Method) -> None:
    draw = np.random.default_rng(3)
    direction = np.zeros(SIZE)
    direction[[3, 7]] = (0.6, 0.8)
    sides = 0.1 * draw.standard_normal((2, 400, SIZE))
    sides += np.array([1.0, -1.0])[:, None, None] * direction
    correct, copy = sides.astype(np.float32)
    assert find_direction(correct, copy, method).unit @ direction > 0.95


def test_seed_makes_no_odds_for_the_sign() -> None:
    correct, copy, direction = plant(2.0)
    for seed in range(5):
        assert find_direction(correct[:, -1], copy[:, -1], "pca", seed).unit @ direction > 0.95
    one, same = (find_direction(correct[:, 0], copy[:, 0], "pca", 4).unit for _ in range(2))
    assert (one == same).all()


def test_states_that_do_not_differ() -> None:
    same = np.ones((12, 4), np.float32)
    for method in METHODS:
        found = find_direction(same, same, method)
        assert np.isfinite(found.unit).all()
        assert found.distance == 0
        assert (found.project(same) == 0).all()


def test_unknown_method() -> None:
    with pytest.raises(ConfigurationError, match="method='sparse' must be one of 'pca', 'mean'"):
        find_direction(np.ones((2, 2)), np.ones((2, 2)), "sparse")  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["pca", "mean"])
def test_accuracy_by_layer(method: Method) -> None:
    correct, copy, _ = plant(14.0)
    found = measure_accuracy(correct, copy, method, shuffles=10)
    assert found.pairs == PAIRS
    assert found.values[-1] > 0.9
    assert found.auc[-1] > 0.95
    assert found.low[-1] < found.values[-1] <= found.high[-1] <= 1
    assert found.shuffled is not None
    for layer in (0, 1):  # nothing is planted there
        assert found.low[layer] < 0.5 < found.high[layer]
    assert all(abs(value - 0.5) < 0.07 for value in found.shuffled)


def test_shuffled_labels_are_chance_where_all_can_be_told() -> None:
    correct, copy, _ = plant(30.0)
    found = measure_accuracy(correct, copy, "probe", shuffles=10)
    assert found.values[-1] == 1.0
    assert found.shuffled is not None
    assert abs(found.shuffled[-1] - 0.5) < 0.07


def test_only_some_pairs_count() -> None:
    correct, copy, _ = plant(30.0)
    only = [index % 3 == 0 for index in range(PAIRS)]
    correct[[not one for one in only]], copy[[not one for one in only]] = 0, 0
    found = measure_accuracy(correct, copy, "mean", only=only)
    assert found.pairs == PAIRS // 3
    assert found.values[-1] == 1.0
    # All others are ties, and count half.
    assert measure_accuracy(correct, copy, "mean").values[-1] == pytest.approx(2 / 3)


def test_folds() -> None:
    folds = split_pairs(23)
    assert np.stack(folds).sum(axis=0).tolist() == [1] * 23
    assert {int(fold.sum()) for fold in folds} == {4, 5}
    with pytest.raises(DataError, match="9 pairs are too few to hold any out"):
        split_pairs(9)


def test_lengths_alone() -> None:
    assert measure_length_accuracy([5, 6, 7], [1, 2, 3]) == 1
    assert measure_length_accuracy([1, 2, 3], [5, 6, 7]) == 1
    assert measure_length_accuracy([1, 2, 3], [1, 2, 3]) == 0.5
