"""A benchmark's figures as a table, as JSON and as a picture."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

from aligner_integrations.benchmarking.run import FLOOR, GREEDY, OURS, TOGETHER, Figures, Report
from aligner_integrations.imports import require


def total(figures: Figures, way: str) -> float:
    """Seconds that all requests of a row took together, the median over the repeats."""
    return median(sum(seconds) for seconds in figures.seconds[way])


def ratio(figures: Figures, way: str, than: str = GREEDY) -> float:
    """How many times faster one way was than another; the median over the repeats."""
    pairs = zip(figures.seconds[than], figures.seconds[way], strict=True)
    return median(sum(other) / sum(own) for other, own in pairs)


def least(figures: Figures, way: str = OURS, than: str = GREEDY) -> float:
    """The same for the request for which it is smallest."""
    requests = range(figures.requests)
    return min(
        median(other[i] for other in figures.seconds[than])
        / median(own[i] for own in figures.seconds[way])
        for i in requests
    )


@dataclass(frozen=True, slots=True)
class Grid:
    """A table: its title, its column heads and its cells."""

    title: str
    heads: list[str]
    rows: list[list[str]]

    def to_rich(self) -> Table:
        """For a terminal."""
        table = Table(title=self.title, title_justify="left")
        for index, head in enumerate(self.heads):
            table.add_column(head, justify="right" if index else "left", no_wrap=not index)
        for row in self.rows:
            table.add_row(*row)
        return table

    def to_markdown(self) -> str:
        """For a page."""
        rule = ["---", *["---:"] * (len(self.heads) - 1)]
        return "\n".join("| " + " | ".join(row) + " |" for row in [self.heads, rule, *self.rows])


def describe(report: Report) -> str:
    """What the figures were taken on, in a line."""
    machine = report.machine
    return (
        f"{machine['model']}, {machine['dtype']}, {machine['device']}, {machine['threads']} "
        f"thread(s), torch {machine['torch']}, transformers {machine['transformers']}, "
        f"{machine['date']}"
    )


def make_grids(report: Report) -> Iterator[Grid]:
    """The tables of what was measured."""
    if report.cases:
        yield _compare("forced outputs: times faster than a plain loop", report.cases)
    if report.real:
        yield _compare("corrections of real answers by the model itself", report.real)
    if report.batches:
        yield _compare_batches(report.batches)
    if report.first_token:
        yield _compare_first_token(report.first_token)
    if report.memory:
        plain, ours = report.memory.values()
        cells = [str(plain // 2**20), str(ours // 2**20), f"{ours / plain:.2f}"]
        title = "peak memory of a process that corrects one answer, MiB"
        yield Grid(title, [*report.memory, "ratio"], [cells])


def _compare(title: str, rows: list[Figures]) -> Grid:
    ways = [way for way in rows[0].seconds if way not in (GREEDY, FLOOR)]
    heads = ["", "tokens", f"{GREEDY}, s", *ways, "worst", "/ floor"]
    return Grid(
        title,
        heads,
        [
            [
                row.name,
                str(row.output_tokens // row.requests),
                f"{total(row, GREEDY) / row.requests:.2f}",
                *(f"{ratio(row, way):.2f}x" for way in ways),
                f"{least(row):.2f}x",
                f"{ratio(row, FLOOR, OURS):.2f}",
            ]
            for row in rows
        ],
    )


def _compare_batches(rows: list[Figures]) -> Grid:
    ways = list(rows[0].seconds)
    return Grid(
        "the natural mix in batches: tokens per second",
        ["requests", "tokens", *ways, "gain"],
        [
            [
                str(row.requests),
                str(row.output_tokens),
                *(
                    f"{row.output_tokens / total(row, w):.0f}" if w in row.seconds else ""
                    for w in ways
                ),
                f"{min(ratio(row, TOGETHER, w) for w in row.seconds if w != TOGETHER):.2f}x",
            ]
            for row in rows
        ],
    )


def _compare_first_token(taken: dict[str, Any]) -> Grid:
    whole, ahead = taken["whole"], taken["read ahead"]
    share = median(a / w for a, w in zip(ahead, whole, strict=True))
    cells = [
        str(taken["prompt_tokens"]),
        f"{median(whole):.3f}",
        f"{median(ahead):.3f}",
        f"{share:.3f}",
    ]
    heads = ["prompt tokens", "answer whole at once", "read as it comes", "ratio"]
    return Grid("from the answer's end to the first corrected text, s", heads, [cells])


def show(report: Report, console: Console) -> None:
    """Print the tables."""
    console.print(describe(report), highlight=False)
    for grid in make_grids(report):
        console.print(grid.to_rich())


def write_json(report: Report, path: Path) -> None:
    """Write every figure that was taken."""
    path.write_text(json.dumps(asdict(report), indent=1) + "\n", encoding="utf-8")


def read_json(path: Path) -> Report:
    """What `write_json` wrote."""
    data = json.loads(path.read_text(encoding="utf-8"))
    for name in ("cases", "real", "batches"):
        data[name] = [Figures(**figures) for figures in data[name]]
    return Report(**data)


def draw(report: Report, path: Path) -> None:
    """Draw the speed-ups as bars.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "eval")
    from matplotlib.figure import Figure

    rows = [*report.cases, *report.real]
    ways = ["generate", "prompt lookup", OURS]
    figure = Figure(figsize=(9, 0.62 * len(rows) + 1.6), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / len(ways)
    for index, (way, colour) in enumerate(
        zip(ways, ("#b9b4c7", "#7d8fb3", "#5e35b1"), strict=True)
    ):
        values = [ratio(row, way) for row in rows]
        places = [place + index * height for place in range(len(rows))]
        bars = axes.barh(places, values, height=height, label=way, color=colour)
        axes.bar_label(bars, [f"{value:.1f}" for value in values], padding=3, fontsize=8)
    axes.axvline(1, color="#444444", linewidth=0.8)
    axes.set_yticks([place + height for place in range(len(rows))], [row.name for row in rows])
    axes.invert_yaxis()
    axes.margins(x=0.08)
    axes.set_xlabel("times faster than a plain greedy loop (1 = as fast)")
    machine = report.machine
    axes.set_title(
        f"{machine['model']}, {machine['dtype']}, {machine['device']}, "
        f"{machine['threads']} thread(s), {machine['date']}",
        fontsize=9,
    )
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(loc="best", frameon=False)
    figure.savefig(path, dpi=150)
