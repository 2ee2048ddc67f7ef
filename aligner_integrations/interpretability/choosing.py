"""Which layers to steer at, and with which method's vectors: by what they do, not what they tell.

A layer in which the classes can be told apart need not be one that decides. So candidates are tried
out: how much likelier does the model copy a bad answer when their vectors are taken away? Breaking
the model can lower that probability but hardly raise it, so this can't be won by brute force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aligner_integrations.decoding.steering import Steering
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.interpretability.continuing import read_chunks
from aligner_integrations.interpretability.directions import Direction, Method
from aligner_integrations.interpretability.pairs import Case
from aligner_integrations.models.load import LoadedModel

COPIED_TOKENS = 10
"""Beginning of the answer whose probability is looked at."""

TRIED = (-0.25, -0.5, -1.0, -2.0)
"""Coefficients at which candidates are tried."""

_UNCALIBRATED = ((-1.0, -1.0), (0.0, 0.0), (1.0, 1.0))


@dataclass(frozen=True, slots=True)
class Candidate:
    """Vectors of one method at some neighbouring layers.

    Attributes:
        method: Whose vectors.
        layers: Indices of decoder layers, in order.
        gains: For each of `TRIED` by how much the log-probability of copying the first tokens of
            bad answers goes up.
    """

    method: Method
    layers: list[int]
    gains: list[float]

    @property
    def gain(self) -> float:
        """The largest gain."""
        return max(self.gains)

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        gains = dict(zip(map(str, TRIED), (round(gain, 3) for gain in self.gains), strict=True))
        return {"method": self.method, "layers": self.layers, "gains": gains}


def make_steering(
    directions: Sequence[Direction],
    layers: Sequence[int],
    loaded: LoadedModel,
    method: Method = "pca",
) -> Steering:
    """Vectors at some layers, not calibrated: strength and coefficient are the same.

    Args:
        directions: For the states that go into the first layer, and for each layer's output.
        layers: Indices of decoder layers.
        loaded: The model; vectors go to its devices.
        method: How the directions were found.

    Raises:
        ConfigurationError: There is no such layer.
    """
    count = len(directions) - 1
    for layer in layers:
        if not 0 <= layer < count:
            raise ConfigurationError(f"layer {layer} must be one of 0 to {count - 1}")
    vectors = {layer: torch.from_numpy(directions[layer + 1].vector) for layer in layers}
    return Steering(vectors, _UNCALIBRATED, num_layers=count, method=method).fit(loaded.model)


def list_windows(count: int) -> list[list[int]]:
    """Neighbouring layers to try: all, overlapping halves, fifths.

    Example:
        >>> [f"{window[0]}-{window[-1]}" for window in list_windows(5)]
        ['0-4', '0-1', '1-2', '2-3', '3-4', '0-0', '1-1', '2-2', '3-3', '4-4']
    """
    windows: list[list[int]] = []
    for parts in (1, 2, 5):
        width = max(1, count // parts)
        starts = [*range(0, count - width, max(1, width // 2)), count - width]
        windows += [w for s in starts if (w := list(range(s, s + width))) not in windows]
    return windows


def measure_copying(
    loaded: LoadedModel,
    cases: Sequence[Case],
    trials: Sequence[tuple[Steering, float]],
    *,
    tokens: int = COPIED_TOKENS,
    progress: bool = False,
) -> NDArray[np.float64]:
    """How likely the model begins to copy answers.

    Args:
        loaded: The model.
        cases: The answers.
        trials: Vectors and coefficients.
        tokens: How many tokens of each answer.
        progress: Show a bar.

    Returns:
        Natural log-probabilities of those tokens together, shape (trials, cases).
    """
    from tqdm import tqdm

    found = np.empty((len(trials), len(cases)))
    bar = tqdm(total=found.size, desc="layers", unit="pass", disable=not progress, leave=False)
    with bar:
        for chunk in read_chunks(loaded, cases):
            outputs = [prompt.answer_ids[:tokens] for prompt in chunk.prompts]
            for row, (steering, coefficient) in enumerate(trials):
                scores = chunk.score(outputs, steering, coefficient)
                found[row, chunk.indices] = [float(score.sum()) for score in scores]
                bar.update(len(outputs))
    return found


def try_candidates(
    loaded: LoadedModel,
    directions: Mapping[Method, Sequence[Direction]],
    cases: Sequence[Case],
    windows: Sequence[Sequence[int]],
    *,
    progress: bool = False,
) -> list[Candidate]:
    """Try vectors out on bad answers; the best candidate comes first.

    Args:
        loaded: The model.
        directions: Each method's.
        cases: Bad answers.
        windows: Layers to steer at together.
        progress: Show a bar.
    """
    chosen = [(method, list(window)) for method in directions for window in windows]
    trials = []
    for method, window in chosen:
        steering = make_steering(directions[method], window, loaded, method)
        trials += [(steering, coefficient) for coefficient in TRIED]
    found = measure_copying(loaded, cases, [(trials[0][0], 0.0), *trials], progress=progress).mean(
        axis=1
    )
    gains = (found[1:] - found[0]).reshape(len(chosen), len(TRIED))
    candidates = [
        Candidate(method, window, own.tolist())
        for (method, window), own in zip(chosen, gains, strict=True)
    ]
    return sorted(candidates, key=lambda candidate: -candidate.gain)
