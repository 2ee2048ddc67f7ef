"""Strengths take equal steps of the change rate, and never beyond what is fluent."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from aligner_integrations.interpretability.calibration import calibrate_strength, find_fluent
from aligner_integrations.interpretability.curve import Output, Point, fit_line

NUMBER = 400


def make_points(
    rate: Callable[[float], float],
    perplexity: Callable[[float], float] = lambda c: 1.0,
    ended: Callable[[float], bool] = lambda c: True,
    span: float = 1.0,
) -> list[Point]:
    """A curve whose change rate is known."""
    points = []
    for coefficient in np.linspace(-span, span, 41):
        changed = round(NUMBER * min(1.0, max(0.0, rate(coefficient))))
        surprise = float(np.log(perplexity(coefficient)))
        points.append(
            Point(
                float(coefficient),
                [
                    Output(
                        index % 2 == 0,
                        1 - 0.5 * (index < changed),
                        index < changed,
                        surprise,
                        ended(coefficient),
                    )
                    for index in range(NUMBER)
                ],
            )
        )
    return points


def look_up(points: list[Point], coefficient: float) -> float:
    return float(
        np.interp(coefficient, [p.coefficient for p in points], [p.change_rate() for p in points])
    )


@pytest.mark.parametrize(
    "rate",
    [
        lambda c: 0.5 + 0.4 * c,
        lambda c: 1 / (1 + np.exp(-6 * c)),
        lambda c: 0.4 + 0.3 * np.sign(c) * abs(c) ** 3,
    ],
)
def test_equal_steps(rate: Callable[[float], float]) -> None:
    points = make_points(rate)
    found = calibrate_strength(points)
    strengths, coefficients = zip(*found.points, strict=True)
    assert list(strengths) == [-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1]
    assert coefficients[4] == 0
    assert (np.diff(coefficients) > 0).all()
    steps = np.diff([look_up(points, coefficient) for coefficient in coefficients])
    assert steps == pytest.approx([steps.mean()] * 8, abs=0.012)
    assert steps.sum() > 0.5
    assert found.notes == []


def test_a_broken_model_is_not_taken_for_a_strong_correction() -> None:
    points = make_points(lambda c: 0.5 + 0.5 * c, perplexity=lambda c: 3.0 if c > 0.42 else 1.0)
    found = calibrate_strength(points)
    assert found.span == pytest.approx((-1, 0.4))
    assert found.points[-1][1] <= 0.4
    assert found.points[0][1] == pytest.approx(-1)
    assert any("above 0 end at coefficient 0.4" in note for note in found.notes)
    assert any("steps differ" in note for note in found.notes)


def test_outputs_that_do_not_end_are_broken_too() -> None:
    points = make_points(lambda c: 0.5 + 0.5 * c, ended=lambda c: c > -0.62)
    found = calibrate_strength(points)
    assert found.span == pytest.approx((-0.6, 1))
    # Both sides take the smaller one's step.
    assert found.points[-1][1] == pytest.approx(0.6, abs=0.01)


def test_fluency_beyond_a_gap_does_not_count() -> None:
    points = make_points(lambda c: 0.5, perplexity=lambda c: 9.0 if 0.32 < c < 0.5 else 1.0)
    assert find_fluent(points)[-1].coefficient == pytest.approx(0.3)


def test_a_model_that_never_ends_unsteered_is_not_blamed_for_it() -> None:
    points = make_points(lambda c: 0.5 + 0.3 * c, ended=lambda c: False)
    assert len(find_fluent(points)) == len(points)


def test_vectors_that_do_nothing() -> None:
    found = calibrate_strength(make_points(lambda c: 0.3))
    coefficients = [coefficient for _, coefficient in found.points]
    assert (np.diff(coefficients) > 0).all()
    assert len([note for note in found.notes if "do next to nothing" in note]) == 2


def test_one_side_that_does_nothing() -> None:
    found = calibrate_strength(make_points(lambda c: 0.2 + 0.6 * max(c, 0)))
    assert found.step == pytest.approx((0, 0.6), abs=0.01)
    assert any("strengths below 0 do next to nothing" in note for note in found.notes)
    assert found.points[-1][1] == pytest.approx(1)


def test_noise_is_smoothed() -> None:
    draw = np.random.default_rng(0)
    points = make_points(lambda c: 0.5 + 0.3 * c + 0.05 * draw.standard_normal())
    coefficients = [coefficient for _, coefficient in calibrate_strength(points).points]
    assert (np.diff(coefficients) > 0).all()


def test_line() -> None:
    line = fit_line(make_points(lambda c: 0.5 + 0.4 * c))
    assert line is not None
    assert line.slope == pytest.approx(-0.2, abs=1e-3)
    assert line.intercept == pytest.approx(0.75, abs=1e-3)
    assert line.r2 == pytest.approx(1, abs=1e-4)
    assert fit_line(make_points(lambda c: 0.5)[:2]) is None
    flat = fit_line(make_points(lambda c: 0.5))
    assert flat is not None
    assert (flat.slope, flat.r2) == (0, 0)
