"""The coefficient-strength curve as a picture."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from aligner_integrations.interpretability.calibration import PERPLEXITY_FACTOR, find_fluent
from aligner_integrations.interpretability.report.style import COPY, CORRECT, INK, LINE, OTHER, SOFT
from aligner_integrations.interpretability.scan import Scan

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from aligner_integrations.interpretability.steer import Control


def draw_curve(scan: Scan) -> Figure:
    """Figure 4c, and what it leaves out: change rates, fluency, calibrated strengths."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 6.4), layout="constrained")
    control = scan.control
    if control is None:
        return figure
    (ratio, rates), (fluency, strengths) = figure.subplots(2, 2)
    _draw_ratio(ratio, control)
    _draw_rates(rates, control)
    _draw_fluency(fluency, control)
    _draw_strengths(strengths, control)
    layers = list(control.steering.vectors)
    at = f"layers {layers[0]} to {layers[-1]}" if len(layers) > 1 else f"layer {layers[0]}"
    figure.suptitle(
        f"{scan.short_name} steered at {at} (n = {len(control.curve[0].outputs)} answers, half of "
        "them bad; grey: outputs lose fluency)",
        x=0.01,
        ha="left",
    )
    return figure


def _draw_ratio(axes: Axes, control: Control) -> None:
    x = [point.coefficient for point in control.curve]
    spread = [_half_width([o.similarity for o in point.outputs]) for point in control.curve]
    y = [point.similarity for point in control.curve]
    axes.errorbar(x, y, spread, fmt="o", color=INK, markersize=4.5, elinewidth=0.9, capsize=0)
    fluent = find_fluent(control.curve)
    if line := control.fluent_line:
        ends = np.array([fluent[0].coefficient, fluent[-1].coefficient])
        axes.plot(
            ends,
            line.intercept + line.slope * ends,
            color=CORRECT,
            linewidth=1.6,
            label=f"fluent points: slope {line.slope:.2f}, R² = {line.r2:.2f}",
        )
    if line := control.line:
        ends = np.array([x[0], x[-1]])
        axes.plot(
            ends,
            line.intercept + line.slope * ends,
            color=SOFT,
            linewidth=1,
            linestyle=(0, (3, 2)),
            label=f"all points: slope {line.slope:.2f}, R² = {line.r2:.2f}",
        )
    axes.set_title("Similarity of answer and output")
    axes.set_ylabel("mean Levenshtein ratio")
    axes.set_ylim(0, 1.05)
    axes.legend(loc="lower left")
    _scale(axes, control)


def _draw_rates(axes: Axes, control: Control) -> None:
    x = [point.coefficient for point in control.curve]
    for bad, colour, label, mark in (
        (True, CORRECT, "bad answers", "o"),
        (False, COPY, "good answers", "s"),
    ):
        rates = [100 * point.change_rate(bad=bad) for point in control.curve]
        axes.plot(x, rates, marker=mark, color=colour, markersize=4.5, linewidth=1.4, label=label)
    axes.set_title("Answers changed")
    axes.set_ylabel("% of answers")
    axes.set_ylim(-4, 104)
    axes.legend(loc="best")
    _scale(axes, control)


def _draw_fluency(axes: Axes, control: Control) -> None:
    x = [point.coefficient for point in control.curve]
    axes.plot(x, [p.perplexity for p in control.curve], marker="o", color=OTHER, markersize=4.5)
    fluent = find_fluent(control.curve)
    zero = min(fluent, key=lambda point: abs(point.coefficient))
    limit = PERPLEXITY_FACTOR * zero.perplexity
    axes.axhline(limit, color=SOFT, linewidth=1, linestyle=(0, (3, 2)))
    axes.annotate(
        "limit",
        (x[0], limit),
        xytext=(0, 3),
        textcoords="offset points",
        color=SOFT,
    )
    _scale_logarithmically(axes)
    axes.set_title("Fluency of the outputs")
    axes.set_ylabel("perplexity, unsteered aligner")
    _scale(axes, control)


def _draw_strengths(axes: Axes, control: Control) -> None:
    calibration = control.calibration
    strengths = [strength for strength, _ in calibration.points]
    axes.plot(
        strengths,
        [100 * rate for rate in calibration.rates],
        color=SOFT,
        linewidth=1.2,
        label="calibrated",
    )
    if control.check:
        rates = [100 * point.change_rate() for _, point in control.check]
        number = len(control.check[0][1].outputs)
        axes.plot(
            [strength for strength, _ in control.check],
            rates,
            "o",
            color=CORRECT,
            markersize=5,
            label=f"on other answers (n = {number})",
        )
    for strength, coefficient in calibration.points[::2]:
        axes.annotate(
            f"{coefficient:+.2f}",
            (strength, 0),
            xycoords=axes.get_xaxis_transform(),
            xytext=(0, 4),
            textcoords="offset points",
            ha="center",
            color=SOFT,
            fontsize=7.5,
        )
    axes.set_title("Calibrated strength (small: its coefficient)")
    axes.set_xlabel("strength")
    axes.set_xticks([-1, -0.5, 0, 0.5, 1])
    axes.set_xlim(-1.12, 1.12)
    axes.set_ylabel("% of answers changed")
    axes.set_ylim(-4, 104)
    axes.yaxis.grid(visible=True)
    axes.set_axisbelow(True)
    axes.legend(loc="best")


def _scale(axes: Axes, control: Control) -> None:
    x = [point.coefficient for point in control.curve]
    low, high = control.calibration.span
    pad = 0.03 * (x[-1] - x[0])
    for start, end in ((x[0] - pad, low), (high, x[-1] + pad)):
        if end - start > 1.01 * pad:
            axes.axvspan(start, end, color=LINE, alpha=0.45, linewidth=0, zorder=-1)
    axes.axvline(0, color=SOFT, linewidth=0.8, zorder=-1)
    axes.set_xlim(x[0] - pad, x[-1] + pad)
    axes.set_xlabel("coefficient (class distances)")
    axes.yaxis.grid(visible=True)
    axes.set_axisbelow(True)


def _scale_logarithmically(axes: Axes) -> None:
    """A logarithmic axis with plain numbers."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_yscale("log")
    low, high = axes.get_ylim()
    for steps in ((1, 1.2, 1.5, 2, 3, 4, 5, 7), (1, 2, 5), (1,)):
        ticks = [step * 10.0**power for power in range(-1, 7) for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= 8:
            break
    axes.yaxis.set_major_locator(FixedLocator(ticks))
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _half_width(values: list[float]) -> float:
    """Half a 95% interval of the mean."""
    if len(values) < 2:
        return 0.0
    return float(1.96 * np.std(values, ddof=1) / np.sqrt(len(values)))
