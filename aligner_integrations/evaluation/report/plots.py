"""The pictures of the report."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from markupsafe import Markup

from aligner_integrations.evaluation.costs import length_ratio
from aligner_integrations.evaluation.grid import order_dimensions
from aligner_integrations.evaluation.records import Case
from aligner_integrations.evaluation.report.svg import (
    GROUND,
    INK,
    LINE,
    LOSS,
    MARK,
    SERIES,
    SOFT,
    TIE,
    WIN,
    drawing,
    embed,
)
from aligner_integrations.evaluation.report.text import shorten
from aligner_integrations.evaluation.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.patches import Patch

_WIDTH = 10.0
_NAME_LIMIT = 26
_BINS = np.linspace(0, 1, 21)
_STEPS = ((1, 1.25, 1.5, 2, 3, 4, 5, 6, 8), (1, 2, 5), (1,))
"""Ticks of a decade, from many to few."""
_MOST_TICKS = 8


@dataclass(frozen=True, slots=True)
class _Row:
    """A line of a figure: one aligner within one dataset."""

    at: float
    dataset: str
    aligner: str
    colour: str


def draw_outcomes(summary: Summary, judge: str, aligners: Sequence[str], name: str) -> Markup:
    """Shares of wins, ties and losses with their intervals: a panel for each dimension."""
    from matplotlib.figure import Figure

    averages = [one for one in summary.averages if one.judge == judge and one.dataset is not None]
    found = {(one.dimension, one.dataset, one.aligner): one for one in averages}
    dimensions = order_dimensions(one.dimension for one in averages)
    datasets = [d for d in summary.datasets if any(one.dataset == d for one in averages)]
    rows, heads, height = _lay_out(datasets, aligners)
    with drawing():
        width = min(_WIDTH, 2.2 + 2.6 * len(dimensions))
        figure = Figure(figsize=(width, height + 0.85), layout="constrained")
        panels = figure.subplots(1, len(dimensions), sharey=True, squeeze=False)[0]
        for axes, dimension in zip(panels, dimensions, strict=True):
            for row in rows:
                one = found.get((dimension, row.dataset, row.aligner))
                if one is None:
                    continue
                tie = 100 - one.win - one.loss
                for left, share, colour in (
                    (0.0, one.win, WIN),
                    (one.win, tie, TIE),
                    (one.win + tie, one.loss, LOSS),
                ):
                    axes.barh(row.at, share, 0.72, left=left, color=colour, edgecolor=GROUND)
                _whisker(axes, row.at, one.win_low, one.win_high)
                _whisker(axes, row.at, 100 - one.loss_high, 100 - one.loss_low)
            axes.set_title(shorten(dimension, _NAME_LIMIT), pad=6)
            axes.set_xlim(0, 100)
            axes.set_xticks([0, 25, 50, 75, 100])
            axes.set_xlabel("% of verdicts")
        _label_rows(panels, rows, heads, height)
        handles = [_patch(colour) for colour in (WIN, TIE, LOSS)]
        labels = ["correction better", "tie", "answer better"]
        figure.legend(handles, labels, loc="outside upper left", ncols=3)
        label = f"Shares of wins, ties and losses by {shorten(judge, 60)}"
        return embed(figure, name, label)


def draw_similarity(cases: Sequence[Case], aligners: Sequence[str], name: str) -> Markup:
    """How near corrections are to their answers: a histogram for each aligner."""
    from matplotlib.figure import Figure

    columns = min(4, len(aligners))
    lines = -(-len(aligners) // columns)
    with drawing():
        figure = Figure(figsize=(max(4.0, 2.5 * columns), 2.5 * lines + 0.3), layout="constrained")
        panels = figure.subplots(lines, columns, sharey=True, squeeze=False).flat
        for index, axes in enumerate(panels):
            if index >= len(aligners):
                axes.set_visible(False)
                continue
            own = [c for c in cases if c.aligner == aligners[index] and c.error is None]
            values = np.array([case.similarity for case in own if case.changed])
            total = max(1, len(own))
            counts, _ = np.histogram(np.minimum(values, 1 - 1e-9), _BINS)
            colour = SERIES[index % len(SERIES)]
            axes.bar(_BINS[:-1] + 0.025, 100 * counts / total, 0.05, color=colour, edgecolor=GROUND)
            copied = 100 * (len(own) - len(values)) / total
            axes.bar(1.075, copied, 0.05, color=TIE, edgecolor=SOFT, linewidth=0.8)
            axes.annotate(
                f"{copied:.0f}", (1.075, copied), (0, 2), textcoords="offset points", ha="center"
            )
            axes.set_title(shorten(aligners[index], _NAME_LIMIT))
            axes.set_xlim(0, 1.12)
            axes.set_xticks([0, 0.25, 0.5, 0.75, 1.075], ["0", ".25", ".5", ".75", "copy"])
            axes.set_xlabel(f"similarity (n = {len(own):,})")
            axes.yaxis.grid(visible=True)
            axes.set_axisbelow(True)
            if index % columns == 0:
                axes.set_ylabel("% of corrections")
        return embed(figure, name, "Histograms of the similarity of answers and corrections")


def draw_costs(
    cases: Sequence[Case], datasets: Sequence[str], aligners: Sequence[str], name: str
) -> Markup:
    """How much longer corrections are than answers, and how long they take to write."""
    from matplotlib.figure import Figure

    rows, heads, height = _lay_out(datasets, aligners)
    groups: dict[tuple[str, str], list[Case]] = {}
    for case in cases:
        if case.error is None:
            groups.setdefault((case.sample.dataset, case.aligner), []).append(case)
    with drawing():
        figure = Figure(figsize=(_WIDTH, height + 0.75), layout="constrained")
        length, seconds = figure.subplots(1, 2, sharey=True)
        for row in rows:
            own = groups.get((row.dataset, row.aligner), [])
            ratios = [max(0.01, ratio) for c in own if (ratio := length_ratio(c)) is not None]
            _draw_spread(length, row, ratios, (5, 25, 50, 75, 95))
            times = [case.seconds for case in own if case.seconds > 0]
            _draw_spread(seconds, row, times, (50, 25, 50, 75, 95))
        length.axvline(1, color=SOFT, linewidth=0.8, zorder=0)
        _scale(length, (0.75, 1.35))
        _scale(seconds)
        length.set_title("Length", pad=6)
        length.set_xlabel("characters of the correction / of the answer")
        seconds.set_title("Latency", pad=6)
        seconds.set_xlabel("seconds for one correction")
        _label_rows([length, seconds], rows, heads, height)
        return embed(figure, name, "Length change and latency of corrections")


def _lay_out(
    datasets: Sequence[str], aligners: Sequence[str]
) -> tuple[list[_Row], list[tuple[float, str]], float]:
    """Rows from the top down, in units of a row; headings; and the height in inches."""
    rows, heads, at = [], [], 0.0
    for dataset in datasets:
        heads.append((at, dataset))
        at += 1
        for index, aligner in enumerate(aligners):
            rows.append(_Row(at, dataset, aligner, SERIES[index % len(SERIES)]))
            at += 1
        at += 0.35
    return rows, heads, 0.215 * at


def _label_rows(
    panels: Sequence[Axes], rows: Sequence[_Row], heads: Sequence[tuple[float, str]], height: float
) -> None:
    first = panels[0]
    first.set_ylim(height / 0.215 - 0.6, -0.6)
    first.set_yticks([row.at for row in rows], [shorten(r.aligner, _NAME_LIMIT) for r in rows])
    for axes in panels:
        axes.tick_params(axis="y", length=0)
        axes.spines["left"].set_visible(False)
        axes.xaxis.grid(visible=True)
        axes.set_axisbelow(True)
    for at, dataset in heads:
        first.annotate(
            shorten(dataset, 2 * _NAME_LIMIT),
            (0, at),
            xycoords=first.get_yaxis_transform(),
            va="center",
            fontweight="bold",
            backgroundcolor=GROUND,
        ).set_bbox({"facecolor": GROUND, "edgecolor": "none", "pad": 1.5})


def _draw_spread(axes: Axes, row: _Row, values: Sequence[float], percents: Sequence[float]) -> None:
    if not values:
        return
    low, first, middle, third, high = (float(value) for value in np.percentile(values, percents))
    axes.hlines(row.at, min(low, first), high, color=row.colour, linewidth=1)
    axes.vlines([low, high], row.at - 0.18, row.at + 0.18, color=row.colour, linewidth=1)
    axes.hlines(row.at, first, third, color=row.colour, linewidth=5)
    axes.plot(
        middle, row.at, "o", color=GROUND, markeredgecolor=INK, markersize=5, markeredgewidth=1.2
    )


def _scale(axes: Axes, at_least: tuple[float, float] | None = None) -> None:
    """A logarithmic axis with as many round ticks as there is room for."""
    from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

    axes.set_xscale("log")
    low, high = axes.get_xlim()
    if at_least:
        low, high = min(low, at_least[0]), max(high, at_least[1])
        axes.set_xlim(low, high)
    for steps in _STEPS:
        ticks = [step * 10.0**power for power in range(-6, 7) for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) <= _MOST_TICKS:
            break
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _whisker(axes: Axes, at: float, low: float, high: float) -> None:
    axes.hlines(at, low, high, color=MARK, linewidth=1.2)
    axes.vlines([low, high], at - 0.16, at + 0.16, color=MARK, linewidth=1.2)


def _patch(colour: str) -> Patch:
    from matplotlib.patches import Patch

    return Patch(facecolor=colour, edgecolor=LINE)
