"""The pictures of a scan, by matplotlib, as PNG and SVG."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from aligner_integrations.imports import require
from aligner_integrations.interpretability.report.curves import draw_curve
from aligner_integrations.interpretability.report.style import (
    COPY,
    CORRECT,
    DIVERGING,
    INK,
    OTHER,
    RISING,
    SOFT,
    drawing,
)
from aligner_integrations.interpretability.scan import Scan
from aligner_integrations.interpretability.states import POSITIONS
from aligner_integrations.interpretability.steer import EFFECT_CASES
from aligner_integrations.interpretability.tomography import standardise

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

NAMES = {"pca": "PCA (LAT)", "mean": "difference of means", "probe": "logistic probe"}
_COLOURS = {"pca": CORRECT, "mean": COPY, "probe": OTHER}


def write_pictures(scan: Scan, directory: Path) -> list[Path]:
    """Draw all pictures that there are figures for, each as PNG and as SVG.

    Args:
        scan: What was found.
        directory: Where to; it is made.

    Returns:
        The files.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "eval")
    directory.mkdir(parents=True, exist_ok=True)
    files = []
    with drawing():
        figures = {
            "lat": draw_tomograms(scan),
            "accuracy": draw_accuracies(scan),
            "positions": draw_positions(scan),
        }
        if scan.attention:
            figures["attention"] = draw_attention(scan)
        if scan.control and scan.control.effects:
            figures["effects"] = draw_effects(scan)
        if scan.control:
            figures["curve"] = draw_curve(scan)
        for name, figure in figures.items():
            for kind in ("png", "svg"):
                path = directory / f"{name}.{kind}"
                figure.savefig(path, metadata={"Date": None} if kind == "svg" else None)
                files.append(path)
    return files


def draw_tomograms(scan: Scan) -> Figure:
    """Figure 4 a and b: layer by output token, both classes on one colour scale."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(9.6, 4.9), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    colours = LinearSegmentedColormap.from_list("copy-correct", DIVERGING)
    limit = find_limit(scan)
    for axes, title, one, placed in zip(
        panels,
        ("Correction is written", "Answer is copied"),
        (scan.correct, scan.copy),
        standardise(scan.correct.scores, scan.copy.scores),
        strict=True,
    ):
        scores = placed[1:]
        image = axes.imshow(
            scores,
            cmap=colours,
            vmin=-limit,
            vmax=limit,
            origin="lower",
            aspect="auto",
            interpolation="nearest",
            extent=(0.5, scores.shape[1] + 0.5, -0.5, len(scores) - 0.5),
        )
        axes.set_title(f"{title} (n = {one.counts[0]})")
        axes.set_xlabel("output token that is chosen")
        axes.set_xticks([1, 5, 10, 15, 20])
        axes.spines[["left", "bottom"]].set_visible(False)
    panels[0].set_ylabel("decoder layer")
    panels[0].yaxis.set_major_locator(MaxNLocator(7, integer=True))
    bar = figure.colorbar(image, ax=panels, shrink=0.85, extend="both")
    bar.set_label("towards copy (-) or correct (+), standard deviations of the layer")
    bar.outline.set_visible(False)  # type: ignore[operator]
    figure.suptitle(
        f"LAT scan of {scan.short_name}: {NAMES[scan.method]} at each layer, pairs held out",
        x=0.01,
        ha="left",
        color=INK,
    )
    return figure


def find_limit(scan: Scan) -> float:
    """End of the colour scale: what 98% of all places are within."""
    placed = standardise(scan.correct.scores, scan.copy.scores)
    places = np.concatenate([one[1:].ravel() for one in placed])
    found = float(np.nanpercentile(np.abs(places), 98)) if np.isfinite(places).any() else 1.0
    return max(found, 0.1)


def draw_accuracies(scan: Scan) -> Figure:
    """Held-out accuracy of each method, with its control, by layer."""
    from matplotlib.figure import Figure

    shown = [("All pairs", scan.accuracies)]
    if scan.same_accuracies:
        shown.append(("One question, bad and good answer", scan.same_accuracies))
    figure = Figure(figsize=(5.1 * len(shown), 3.7), layout="constrained")
    panels = figure.subplots(1, len(shown), sharey=True, squeeze=False)[0]
    for axes, (title, accuracies) in zip(panels, shown, strict=True):
        layers = np.arange(len(accuracies[0].values)) - 1
        for one in accuracies:
            colour = _COLOURS[one.method]
            axes.fill_between(layers, one.low, one.high, color=colour, alpha=0.12, linewidth=0)
            axes.plot(layers, one.values, color=colour, linewidth=1.6, label=NAMES[one.method])
            if one.shuffled is not None:
                axes.plot(layers, one.shuffled, color=colour, linewidth=0.9, linestyle=(0, (2, 2)))
        axes.axhline(0.5, color=SOFT, linewidth=0.8)
        axes.set_title(f"{title} (n = {accuracies[0].pairs} pairs)")
        _scale_layers(axes, scan)
    panels[0].set_ylabel("held-out accuracy at the last prompt token")
    panels[0].set_ylim(0.25, 1.02)
    panels[0].plot(
        [], [], color=SOFT, linewidth=0.9, linestyle=(0, (2, 2)), label="shuffled labels"
    )
    panels[0].legend(loc="lower right", ncols=2)
    figure.suptitle(
        f"{scan.short_name}: which layers tell answers to correct from answers to copy "
        "(band: 95% interval)",
        x=0.01,
        ha="left",
    )
    return figure


def draw_positions(scan: Scan) -> Figure:
    """Where the decision can be read before any output: layer by place in the prompt."""
    from matplotlib.colors import LinearSegmentedColormap
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    grid = np.array([one.values for one in scan.positions]).T
    figure = Figure(figsize=(6.6, 4.9), layout="constrained")
    axes = figure.subplots()
    colours = LinearSegmentedColormap.from_list("accuracy", RISING)
    image = axes.imshow(
        grid,
        cmap=colours,
        vmin=0.5,
        vmax=1,
        origin="lower",
        aspect="auto",
        extent=(-0.5, len(POSITIONS) - 0.5, -1.5, len(grid) - 1.5),
    )
    for column, one in enumerate(scan.positions):
        best = int(np.argmax(one.values))
        axes.annotate(
            f"{100 * one.values[best]:.0f}%",
            (column, best - 1),
            ha="center",
            va="center",
            fontsize=8,
            color="white" if one.values[best] > 0.75 else INK,
        )
    axes.set_xticks(range(len(POSITIONS)), [_wrap(name) for name in POSITIONS])
    axes.yaxis.set_major_locator(MaxNLocator(8, integer=True))
    axes.set_ylabel("decoder layer (-1: what goes into the first)")
    axes.spines[["left", "bottom"]].set_visible(False)
    bar = figure.colorbar(image, ax=axes, shrink=0.85)
    bar.set_label("held-out accuracy")
    bar.outline.set_visible(False)  # type: ignore[operator]
    kind = "pairs of one question" if scan.same_accuracies or _all_same(scan) else "pairs"
    figure.suptitle(
        f"{scan.short_name}: when the decision can be read, before any output token\n"
        f"({scan.positions[0].pairs} {kind}, {NAMES[scan.method]}; the best layer is marked)",
        x=0.01,
        ha="left",
    )
    return figure


def draw_attention(scan: Scan) -> Figure:
    """Share of attention that goes to the answer, by layer."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(9.6, 3.5), layout="constrained")
    panels = figure.subplots(1, 2, sharey=True)
    for axes, title, part in zip(
        panels,
        ("Last prompt token", "Output tokens 1 to 19"),
        ("decision", "writing"),
        strict=True,
    ):
        for name, colour, label in (
            ("correct", CORRECT, "answer to correct"),
            ("copy", COPY, "answer to copy"),
        ):
            share = scan.attention.get(name)
            if share is None:
                continue
            values = 100 * np.array(getattr(share, part))
            axes.plot(values, color=colour, linewidth=1.6, label=f"{label} (n = {share.cases})")
            axes.axhline(100 * share.expected, color=colour, linewidth=0.8, linestyle=(0, (2, 2)))
        axes.set_title(title)
        axes.set_ylim(bottom=0)
        _scale_layers(axes, scan)
    panels[0].set_ylabel("% of attention that goes to the answer")
    panels[0].legend()
    figure.suptitle(
        f"{scan.short_name}: attention to the answer, mean over heads "
        "(dashed: if it were even over the prompt)",
        x=0.01,
        ha="left",
    )
    return figure


def draw_effects(scan: Scan) -> Figure:
    """What steering at one layer alone does to the probability of copying."""
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter

    figure = Figure(figsize=(9.6, 3.3), layout="constrained")
    axes = figure.subplots()
    if scan.control is None:
        return figure
    effects = np.array(scan.control.effects)
    layers = np.arange(len(effects))
    axes.bar(layers - 0.2, effects[:, 0], 0.4, color=COPY, label="coefficient -1")
    axes.bar(layers + 0.2, effects[:, 1], 0.4, color=CORRECT, label="coefficient +1")
    axes.axhline(0, color=SOFT, linewidth=0.8)
    chosen = list(scan.control.steering.vectors)
    axes.axvspan(chosen[0] - 0.5, chosen[-1] + 0.5, color=INK, alpha=0.06, linewidth=0)
    axes.set_yscale("symlog", linthresh=1, linscale=0.8)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_ylabel("change of log P(copy), nats")
    axes.legend(loc="lower left")
    _scale_layers(axes, scan)
    number = min(EFFECT_CASES, len(scan.control.curve[0].outputs))
    axes.set_title(
        f"{scan.short_name}: one layer steered by itself, first 10 tokens of the answer "
        f"(n = {number}; shaded: the layers chosen)"
    )
    return figure


def _wrap(name: str) -> str:
    """A place's name in two lines."""
    return name.replace(" of ", "\nof ").replace("last ", "last\n")


def _all_same(scan: Scan) -> bool:
    return all(pair.is_same_question for pair in scan.pairs)


def _scale_layers(axes: Axes, scan: Scan) -> None:
    axes.set_xlabel("decoder layer")
    axes.set_xlim(-1.3, scan.layers - 0.4)
    axes.yaxis.grid(visible=True)
    axes.set_axisbelow(True)
