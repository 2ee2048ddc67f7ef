"""Reading vectors: directions in the residual stream that point from "copy" to "correct".

Zou et al., "Representation Engineering" (arXiv 2310.01405), section 3.1: linear artificial
tomography (LAT) takes the first principal component of the differences between paired states. The
difference of the classes' means and a logistic probe are its cross-checks.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from aligner_integrations.errors import ConfigurationError

Array = NDArray[np.float32]
Method = Literal["pca", "mean", "probe"]
"""How a direction is found: LAT's PCA, the difference of means, or a logistic probe."""

METHODS: tuple[Method, ...] = get_args(Method)


@dataclass(frozen=True, slots=True)
class Direction:
    """A line through one layer's states, from the class "copy" to the class "correct".

    Attributes:
        unit: Its direction, length 1, shape (hidden size,).
        midpoint: Where on it the two classes' means meet half-way.
        distance: Length of the difference of the classes' means, all dimensions.
        gap: How far apart the classes' means are along it; 0 or more.
    """

    unit: Array
    midpoint: float
    distance: float
    gap: float

    @property
    def vector(self) -> Array:
        """What is added to states to steer: ``unit`` with the length of one class distance."""
        return (self.unit * self.distance).astype(np.float32)

    def project(self, states: Array) -> NDArray[np.float64]:
        """Place of states on the line: 1 at the mean of "correct", -1 at that of "copy".

        Args:
            states: Shape (..., hidden size).
        """
        half = self.gap / 2 or 1.0
        return (states.astype(np.float64) @ self.unit.astype(np.float64) - self.midpoint) / half


def find_direction(correct: Array, copy: Array, method: Method = "pca", seed: int = 0) -> Direction:
    """The direction that tells two classes apart in one layer.

    Args:
        correct: States of the class "correct", shape (pairs, hidden size).
        copy: States of the class "copy", of the same pairs in the same order.
        method: ``"pca"``: first principal component of the pairs' differences, whose signs are
            drawn at random before, as LAT has it. ``"mean"``: difference of the means.
            ``"probe"``: normal of a logistic regression (scikit-learn, C = 0.01, states scaled to
            a variance of 1).
        seed: Of those signs.

    Raises:
        ConfigurationError: ``method`` is unknown.

    Example:
        >>> import numpy as np
        >>> correct = np.array([[3.0, 1.0], [3.0, 0.0], [4.0, 1.0]], np.float32)
        >>> found = find_direction(correct, correct - np.float32([2, 0]), "mean")
        >>> found.unit.tolist(), found.distance
        ([1.0, 0.0], 2.0)
    """
    if method not in METHODS:
        raise ConfigurationError(
            f"method={method!r} must be one of {', '.join(map(repr, METHODS))}"
        )
    means = correct.mean(axis=0, dtype=np.float64), copy.mean(axis=0, dtype=np.float64)
    difference = means[0] - means[1]
    distance = float(np.linalg.norm(difference))
    axis = {"pca": _find_component, "mean": _subtract_means, "probe": _fit_probe}[method](
        correct, copy, seed
    )
    length = float(np.linalg.norm(axis))
    unit = axis / length if length > 0 else axis
    if unit @ difference < 0:  # a principal component has no sign of its own
        unit = -unit
    middle = (means[0] + means[1]) / 2
    return Direction(
        unit.astype(np.float32), float(unit @ middle), distance, float(unit @ difference)
    )


def _find_component(correct: Array, copy: Array, seed: int) -> NDArray[np.float64]:
    from sklearn.decomposition import PCA

    differences = correct.astype(np.float64) - copy
    if len(differences) < 2 or not np.ptp(differences, axis=0).any():
        return _subtract_means(correct, copy, seed)
    signs = np.random.default_rng(seed).permutation(np.arange(len(differences)) % 2) * 2 - 1
    found = PCA(n_components=1, svd_solver="full").fit(differences * signs[:, None])
    component: NDArray[np.float64] = found.components_[0]
    return component


def _subtract_means(correct: Array, copy: Array, _: int) -> NDArray[np.float64]:
    difference: NDArray[np.float64] = (correct.astype(np.float64) - copy).mean(axis=0)
    return difference


def _fit_probe(correct: Array, copy: Array, _: int) -> NDArray[np.float64]:
    from sklearn.exceptions import ConvergenceWarning
    from sklearn.linear_model import LogisticRegression

    states = np.concatenate([correct, copy]).astype(np.float64)
    states -= states.mean(axis=0)
    # One scale for all dimensions: with one for each, dimensions that hardly vary would make up
    # most of the normal.
    scale = float(np.sqrt(np.square(states).mean())) or 1.0
    labels = np.repeat([1, 0], [len(correct), len(copy)])
    with warnings.catch_warnings():  # states that can be told apart easily have no optimum
        warnings.simplefilter("ignore", ConvergenceWarning)
        # Far more dimensions than states: strong regularisation.
        probe = LogisticRegression(C=0.01, max_iter=200).fit(states / scale, labels)
    normal: NDArray[np.float64] = probe.coef_[0]
    return normal


def find_directions(
    correct: Array, copy: Array, method: Method = "pca", seed: int = 0
) -> list[Direction]:
    """`find_direction` for each layer.

    Args:
        correct: Shape (pairs, layers, hidden size).
        copy: Likewise.
        method: See `find_direction`.
        seed: Likewise.
    """
    return [
        find_direction(correct[:, layer], copy[:, layer], method, seed)
        for layer in range(correct.shape[1])
    ]


def compare_directions(one: Sequence[Direction], other: Sequence[Direction]) -> list[float]:
    """Cosine of two methods' directions, layer by layer."""
    return [float(a.unit @ b.unit) for a, b in zip(one, other, strict=True)]
