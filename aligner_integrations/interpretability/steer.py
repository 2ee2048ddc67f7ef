"""Steering as part of a scan: choose vectors, draw the curve, calibrate strengths, check them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from aligner_integrations.decoding.steering import Steering
from aligner_integrations.errors import DataError
from aligner_integrations.interpretability.calibration import (
    MOST_UNENDED,
    PERPLEXITY_FACTOR,
    Calibration,
    calibrate_strength,
    find_fluent,
)
from aligner_integrations.interpretability.choosing import (
    Candidate,
    list_windows,
    make_steering,
    measure_copying,
    try_candidates,
)
from aligner_integrations.interpretability.curve import (
    Point,
    Regression,
    find_span,
    fit_line,
    measure_curve,
)
from aligner_integrations.interpretability.directions import Direction, Method
from aligner_integrations.interpretability.pairs import Case, Pair
from aligner_integrations.models.load import LoadedModel

logger = logging.getLogger(__name__)

STEPS = 6
"""Coefficients of the curve on each side of 0."""

EFFECT_CASES = 8
"""Answers on which layers are steered one by one."""

_SCOUTS = 12  # answers that the curve's ends are looked for with
_CHECKED = (-1.0, -0.5, 0.0, 0.5, 1.0)


@dataclass(frozen=True, slots=True)
class Control:
    """What steering did.

    Attributes:
        steering: The chosen vectors, calibrated.
        candidates: All that were tried, the best first.
        effects: For each layer, with the chosen method: how the log-probability of copying the
            first tokens of the answers changes when one class distance is subtracted, and when
            it is added, at this layer alone.
        curve: What was written with each coefficient.
        line: Through all points of the curve.
        fluent_line: Through those at which the model is not broken.
        calibration: Strength to coefficient.
        check: ``(strength, point)`` on answers that nothing else has seen; may be empty.
    """

    steering: Steering
    candidates: list[Candidate]
    effects: list[tuple[float, float]]
    curve: list[Point]
    line: Regression | None
    fluent_line: Regression | None
    calibration: Calibration
    check: list[tuple[float, Point]] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, rounded."""
        lines = {"line": self.line, "fluent_line": self.fluent_line}
        return {
            "method": self.steering.method,
            "layers": list(self.steering.vectors),
            "calibration": [list(point) for point in self.steering.calibration],
            "candidates": [candidate.to_dict() for candidate in self.candidates],
            "effects": np.round(self.effects, 3).tolist(),
            "curve": [point.to_dict() for point in self.curve],
            **{name: line.to_dict() if line else None for name, line in lines.items()},
            **self.calibration.to_dict(),
            "check": [{"strength": s, **point.to_dict()} for s, point in self.check],
        }


def control(
    loaded: LoadedModel,
    directions: Mapping[Method, Sequence[Direction]],
    pairs: Sequence[Pair],
    check: Sequence[Pair] = (),
    *,
    layers: Sequence[int] = (),
    seed: int = 0,
    progress: bool = False,
) -> Control:
    """Find out how to steer a model.

    Args:
        loaded: The model.
        directions: Each method's that may be chosen, at the last prompt token.
        pairs: Bad and good answers that the directions have not seen.
        check: More of them, to check the calibration on.
        layers: Where to steer; empty to find out.
        seed: For the record.
        progress: Show progress bars.

    Raises:
        DataError: There are no pairs.
        ConfigurationError: There is no such layer.
    """
    if not pairs:
        raise DataError(
            "no answers are left to steer and calibrate with; give more triples, or a calibration "
            "file, or do without (--no-steer)"
        )
    cases = mix(pairs)
    bad = [case for case in cases if case.corrects]
    count = len(next(iter(directions.values()))) - 1
    windows = [sorted(layers)] if layers else list_windows(count)
    candidates = try_candidates(loaded, directions, bad, windows, progress=progress)
    best = candidates[0]
    steering = make_steering(directions[best.method], best.layers, loaded, best.method)
    curve = _draw_curve(loaded, steering, cases, progress=progress)
    fluent = find_fluent(curve)
    calibration = calibrate_strength(curve)
    calibrated = replace(steering, calibration=calibration.points)
    checked: list[tuple[float, Point]] = []
    if check:
        points = measure_curve(
            loaded,
            mix(check),
            steering,
            [calibrated.coefficient(strength) for strength in _CHECKED],
            progress=progress,
        )
        checked = list(zip(_CHECKED, points, strict=True))
    done = Control(
        calibrated,
        candidates,
        _measure_effects(
            loaded,
            directions[best.method],
            cases[:EFFECT_CASES],
            best.method,
            progress=progress,
        ),
        curve,
        fit_line(curve),
        fit_line(fluent),
        calibration,
        checked,
    )
    return replace(done, steering=replace(calibrated, measured=_summarise(done, seed)))


def mix(pairs: Sequence[Pair]) -> list[Case]:
    """Bad and good answers in turn."""
    return [case for pair in pairs for case in (pair.correct, pair.copy)]


def _draw_curve(
    loaded: LoadedModel, steering: Steering, cases: Sequence[Case], *, progress: bool
) -> list[Point]:
    """Even steps on each side, up to where the model breaks or nothing moves any more."""
    scouts = cases[:_SCOUTS]
    (unsteered,) = measure_curve(loaded, scouts, steering, [0.0])
    low, high = find_span(
        loaded,
        scouts,
        steering,
        most_perplexity=PERPLEXITY_FACTOR * unsteered.perplexity,
        most_unended=max(MOST_UNENDED, unsteered.unended),
        progress=progress,
    )
    coefficients = [*np.linspace(low, 0, STEPS + 1), *np.linspace(0, high, STEPS + 1)[1:]]
    return measure_curve(
        loaded, cases, steering, [float(c) for c in coefficients], progress=progress
    )


def _measure_effects(
    loaded: LoadedModel,
    directions: Sequence[Direction],
    cases: Sequence[Case],
    method: Method,
    *,
    progress: bool,
) -> list[tuple[float, float]]:
    single = [
        make_steering(directions, [layer], loaded, method) for layer in range(len(directions) - 1)
    ]
    trials = [(steering, coefficient) for steering in single for coefficient in (-1.0, 1.0)]
    found = measure_copying(loaded, cases, [(single[0], 0.0), *trials], progress=progress).mean(
        axis=1
    )
    effects = (found[1:] - found[0]).reshape(len(single), 2)
    return [(float(down), float(up)) for down, up in effects]


def _summarise(done: Control, seed: int) -> dict[str, Any]:
    """What goes into the file beside the vectors."""
    found = done.to_dict()
    return {
        "definition": "change rate: share of answers that come out changed in any character, over "
        "as many bad answers as good ones; perplexity: of what is written, under the same aligner "
        "unsteered",
        "seed": seed,
        "n": len(done.curve[0].outputs),
        "limits": {"perplexity_factor": PERPLEXITY_FACTOR, "unended": MOST_UNENDED},
        **{
            name: found[name]
            for name in (
                "fluent_coefficients",
                "expected_change_rates",
                "notes",
                "curve",
                "fluent_line",
                "check",
            )
        },
    }
