"""Strength against coefficient: how much more a steered aligner corrects, and whether it breaks.

Ji et al. 2024 (arXiv 2402.02416), Figure 4c: the average Levenshtein ratio of answers and
corrections against the coefficient of the vector.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from rapidfuzz.distance import Indel

from aligner_integrations.decoding.steering import Steering
from aligner_integrations.interpretability.continuing import Chunk, Written, read_chunks
from aligner_integrations.interpretability.pairs import Case
from aligner_integrations.models.load import LoadedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Output:
    """What one case came to with one coefficient.

    Attributes:
        is_bad: Whether its answer was to be corrected.
        similarity: Levenshtein ratio of the answer and what was written: 1 if equal. The ratio of
            the package "Levenshtein": insertions and deletions, by the lengths of both texts.
        changed: Whether they differ in any character.
        surprise: Mean negative log-probability of what was written under the same aligner
            unsteered, behind the same prompt; nats a token.
        ended: Whether the model ended it within half as much again as the answer and 64 tokens.
    """

    is_bad: bool
    similarity: float
    changed: bool
    surprise: float
    ended: bool


@dataclass(frozen=True, slots=True)
class Point:
    """All cases with one coefficient."""

    coefficient: float
    outputs: list[Output]

    @property
    def similarity(self) -> float:
        """Mean Levenshtein ratio."""
        return float(np.mean([one.similarity for one in self.outputs]))

    @property
    def perplexity(self) -> float:
        """The exponential of the mean surprise: 1 is what the unsteered aligner is sure of."""
        return float(np.exp(np.mean([one.surprise for one in self.outputs])))

    @property
    def unended(self) -> float:
        """Share of outputs that did not end."""
        return float(np.mean([not one.ended for one in self.outputs]))

    def change_rate(self, bad: bool | None = None) -> float:
        """Share of answers that came out changed: of all, of the bad or of the good ones."""
        counted = [one.changed for one in self.outputs if bad is None or one.is_bad == bad]
        return float(np.mean(counted)) if counted else float("nan")

    def is_fluent(self, most_perplexity: float, most_unended: float) -> bool:
        """Whether the outputs still read like the aligner's."""
        return self.perplexity <= most_perplexity and self.unended <= most_unended

    def to_dict(self) -> dict[str, Any]:
        """Plain data, rounded."""
        return {
            "coefficient": round(self.coefficient, 5),
            "n": len(self.outputs),
            "similarity": round(self.similarity, 4),
            "changed": round(self.change_rate(), 4),
            "changed_bad": round(self.change_rate(bad=True), 4),
            "changed_good": round(self.change_rate(bad=False), 4),
            "perplexity": round(self.perplexity, 4),
            "unended": round(self.unended, 4),
        }


@dataclass(frozen=True, slots=True)
class Regression:
    """A straight line through the mean Levenshtein ratios.

    Attributes:
        slope: Change of the ratio with a coefficient of 1.
        intercept: The ratio at 0 by the line.
        r2: Share of the variance that it explains.
        points: Through how many coefficients.
    """

    slope: float
    intercept: float
    r2: float
    points: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data, rounded."""
        return {name: round(float(getattr(self, name)), 4) for name in self.__slots__}


def measure_curve(
    loaded: LoadedModel,
    cases: Sequence[Case],
    steering: Steering,
    coefficients: Sequence[float],
    *,
    progress: bool = False,
) -> list[Point]:
    """Let the model write every correction with every coefficient, greedily.

    Args:
        loaded: The model.
        cases: Bad and good answers.
        steering: The vectors; see `make_steering`.
        coefficients: In any order.
        progress: Show a bar.

    Returns:
        A point for each coefficient, rising.
    """
    from tqdm import tqdm

    rising = sorted(set(coefficients))
    outputs: dict[float, list[Output]] = {coefficient: [] for coefficient in rising}
    bar = tqdm(
        total=len(cases) * len(rising),
        desc="steered",
        unit="answer",
        disable=not progress,
        leave=False,
    )
    with bar:
        for chunk in read_chunks(loaded, cases):
            for coefficient in rising:
                outputs[coefficient] += _look(chunk, chunk.write(steering, coefficient))
                bar.update(len(chunk.cases))
    return [Point(coefficient, outputs[coefficient]) for coefficient in rising]


def _look(chunk: Chunk, written: Sequence[Written]) -> list[Output]:
    scores = chunk.score([chunk.ending(one) for one in written])
    return [
        Output(
            case.corrects,
            float(Indel.normalized_similarity(case.answer, one.text)),
            one.text != case.answer,
            float(-score.mean()) if len(score) else 0.0,
            one.ended,
        )
        for case, one, score in zip(chunk.cases, written, scores, strict=True)
    ]


def find_span(
    loaded: LoadedModel,
    cases: Sequence[Case],
    steering: Steering,
    *,
    most_perplexity: float,
    most_unended: float,
    progress: bool = False,
) -> tuple[float, float]:
    """How far coefficients can go either way before the model breaks or nothing moves any more.

    Args:
        loaded: The model.
        cases: A few bad and good answers; their KV caches are held all at once.
        steering: The vectors.
        most_perplexity: Of outputs that are not broken.
        most_unended: Likewise their share that does not end.
        progress: Show a bar.

    Returns:
        The first coefficient below and above 0, in steps of a factor 1.5, at which that is so.
    """
    from tqdm import tqdm

    chunks = list(read_chunks(loaded, cases))
    ends = []
    with tqdm(desc="span", unit="coefficient", disable=not progress, leave=False) as bar:
        for sign in (-1, 1):
            size, before = 0.2, None
            while size < 8:
                written = [(chunk, chunk.write(steering, sign * size)) for chunk in chunks]
                point = Point(sign * size, [o for pair in written for o in _look(*pair)])
                bar.update()
                rate = point.change_rate()
                if not point.is_fluent(most_perplexity, most_unended):
                    break
                if rate in (0.0, 1.0) and before == rate:
                    break
                size, before = size * 1.5, rate
            ends.append(sign * size)
    return ends[0], ends[1]


def fit_line(points: Sequence[Point]) -> Regression | None:
    """Least squares of the mean Levenshtein ratio on the coefficient; None for under 3 points.

    R² is of the means, as in the paper's figure; that of single answers is far lower.
    """
    from scipy.stats import linregress

    if len(points) < 3:
        return None
    values = [point.similarity for point in points]
    if np.ptp(values) == 0:
        return Regression(0.0, values[0], 0.0, len(points))
    found = linregress([point.coefficient for point in points], values)
    return Regression(
        float(found.slope), float(found.intercept), float(found.rvalue) ** 2, len(points)
    )
