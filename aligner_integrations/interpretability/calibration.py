"""From strength to coefficient: equal steps of strength move the change rate about equally.

The change rate is the share of answers that come out changed in any character, over a calibration
set of as many bad answers as good ones. It is made monotone by isotonic regression, and strengths
are put where it takes equal steps, as far as the outputs stay fluent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from aligner_integrations.interpretability.curve import Point

MOST_UNENDED = 0.02
"""Share of outputs that may fail to end before a coefficient counts as breaking the model. Each of
them is a failed correction, so it is little."""

PERPLEXITY_FACTOR = 2.0
"""By how much the outputs' perplexity may exceed that of the unsteered ones."""

_STRENGTHS = (0.25, 0.5, 0.75, 1.0)
_TILT = 1e-6  # makes flat parts of the rate rise, so that each rate has one coefficient


@dataclass(frozen=True, slots=True)
class Calibration:
    """How strengths become coefficients.

    Attributes:
        points: ``(strength, coefficient)`` from -1 to 1.
        rates: The change rate that each of them should give on the calibration set.
        span: The fluent coefficients, lowest and highest.
        step: By how much the rate moves from strength 0 to 1, and from -1 to 0.
        notes: What could not be reached, in sentences.
    """

    points: list[tuple[float, float]]
    rates: list[float]
    span: tuple[float, float]
    step: tuple[float, float]
    notes: list[str]

    def to_dict(self) -> dict[str, Any]:
        """Plain data, rounded."""
        return {
            "expected_change_rates": [
                [strength, round(rate, 4)]
                for (strength, _), rate in zip(self.points, self.rates, strict=True)
            ],
            "fluent_coefficients": [round(end, 5) for end in self.span],
            "notes": self.notes,
        }


def calibrate_strength(
    points: Sequence[Point],
    *,
    perplexity_factor: float = PERPLEXITY_FACTOR,
    most_unended: float = MOST_UNENDED,
) -> Calibration:
    """Put strengths where the change rate takes equal steps.

    Both sides get the same step, the smaller of what the two can reach, so that half a unit of
    strength moves the rate by the same share anywhere. Where one side reaches less than half of
    the other, each has a step of its own, lest the better one be wasted; a note says so.

    Args:
        points: A curve with a point at 0, and points on both sides of it.
        perplexity_factor: By how much the perplexity may exceed that at 0.
        most_unended: Share of outputs that may not end.
    """
    from sklearn.isotonic import IsotonicRegression

    fluent = find_fluent(points, perplexity_factor, most_unended)
    grid = np.array([point.coefficient for point in fluent])
    measured = [point.change_rate() for point in fluent]
    rates = IsotonicRegression().fit_transform(grid, measured) + _TILT * grid
    zero = float(np.interp(0.0, grid, rates))
    down, up = zero - rates[0], rates[-1] - zero
    notes = _note(points, fluent, down, up)
    if min(down, up) >= max(down, up) / 2:
        down = up = min(down, up)
    elif len(fluent) > 1:
        notes.append(
            f"steps differ: the change rate can move by {100 * up:.0f} points for strengths above "
            f"0 and by {100 * down:.0f} below"
        )
    strengths = [-s for s in reversed(_STRENGTHS)] + [0.0, *_STRENGTHS]
    wanted = [zero + strength * (up if strength > 0 else down) for strength in strengths]
    pairs = []
    for strength, rate in zip(strengths, wanted, strict=True):
        coefficient = float(np.interp(rate, rates, grid)) if strength else 0.0
        pairs.append((strength, coefficient))
    return Calibration(
        _force_rise(pairs),
        [float(rate) for rate in wanted],
        (float(grid[0]), float(grid[-1])),
        (float(down), float(up)),
        notes,
    )


def find_fluent(
    points: Sequence[Point],
    perplexity_factor: float = PERPLEXITY_FACTOR,
    most_unended: float = MOST_UNENDED,
) -> list[Point]:
    """The points around 0 up to the first that breaks the model, either way."""
    zero = min(range(len(points)), key=lambda index: abs(points[index].coefficient))
    limit = perplexity_factor * points[zero].perplexity
    unended = max(most_unended, points[zero].unended)
    low = high = zero
    while low > 0 and points[low - 1].is_fluent(limit, unended):
        low -= 1
    while high + 1 < len(points) and points[high + 1].is_fluent(limit, unended):
        high += 1
    return list(points[low : high + 1])


def _note(points: Sequence[Point], fluent: Sequence[Point], down: float, up: float) -> list[str]:
    """What the vectors can't do."""
    notes = []
    for name, reach, end in (("below", down, fluent[0]), ("above", up, fluent[-1])):
        edge = points[0] if name == "below" else points[-1]
        if end is not edge:
            notes.append(
                f"strengths {name} 0 end at coefficient {end.coefficient:g}: beyond it outputs "
                "lose their fluency, or do not end"
            )
        if reach < 0.05:
            notes.append(f"strengths {name} 0 do next to nothing: {100 * reach:.1f} points")
    return notes


def _force_rise(pairs: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Coefficients that rise, if only by a hair where the rate does not move."""
    at = next(index for index, (strength, _) in enumerate(pairs) if strength == 0)
    values = [coefficient for _, coefficient in pairs]
    for index in range(at + 1, len(values)):
        values[index] = max(values[index], values[index - 1] + 1e-4)
    for index in range(at - 1, -1, -1):
        values[index] = min(values[index], values[index + 1] - 1e-4)
    return [(strength, round(value, 6)) for (strength, _), value in zip(pairs, values, strict=True)]
