"""Memory over a long time: a fit, and a picture."""

from __future__ import annotations

from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from docs.benchmarks.reliability.gateway import Sample


def analyse(samples: list[Sample]) -> dict[str, Any]:
    """What memory, files and threads did.

    The line is fitted to the last two thirds by least squares: in the first third buffers and the
    allocator's pools still grow to their working size.
    """
    seconds = [sample.at for sample in samples]
    memory = [sample.held.rss for sample in samples]
    third = len(samples) // 3
    slope = fit_slope(seconds[third:], memory[third:])
    return {
        "minutes": round(seconds[-1] / 60, 1),
        "start": round(memory[0], 1),
        "first_third": round(median(memory[: third or 1]), 1),
        "last_third": round(median(memory[-third or -1 :]), 1),
        "most": round(max(memory), 1),
        "slope": round(slope * 600, 2),
        "files": [
            samples[0].held.files,
            max(s.held.files for s in samples),
            samples[-1].held.files,
        ],
        "threads": [
            *(samples[0].held.threads, max(s.held.threads for s in samples)),
            samples[-1].held.threads,
        ],
        "series": {
            "at": seconds,
            "rss": [round(rss, 1) for rss in memory],
            "requests": [sample.requests for sample in samples],
        },
    }


def fit_slope(seconds: list[float], memory: list[float]) -> float:
    """MB per second, by least squares; 0 where there are too few values."""
    return float(np.polyfit(seconds, memory, 1)[0]) if len(set(seconds)) > 2 else 0.0


def draw(runs: dict[str, dict[str, Any]], path: Path) -> None:
    """Memory and throughput over time, a column for each run."""
    figure = Figure(figsize=(4.6 * len(runs), 4.4), layout="constrained")
    grid = figure.subplots(2, len(runs), sharex="col", squeeze=False)
    for (upper, lower), (name, run) in zip(grid.T, runs.items(), strict=True):
        series, slope = run["soak"]["series"], run["soak"]["slope"]
        minutes = np.array(series["at"]) / 60
        third = len(minutes) // 3
        upper.plot(minutes, series["rss"], color="#5e35b1", linewidth=1)
        fit = np.polyfit(minutes[third:], np.array(series["rss"][third:]), 1)
        upper.plot(minutes[third:], np.polyval(fit, minutes[third:]), color="#444444", ls="--")
        upper.set_ylim(0, 1.15 * max(series["rss"]))
        upper.set_title(f"{name}: {slope:+.2f} MB in 10 minutes", fontsize=9)
        upper.set_ylabel("gateway's memory, MB", fontsize=8)
        each = max(1, len(minutes) // 60)  # so many samples together, or noise is all one sees
        at, done = minutes[::each], np.array(series["requests"][::each])
        lower.plot(at[1:], np.diff(done) / np.diff(at * 60), color="#7d8fb3", linewidth=1)
        lower.set_ylim(bottom=0)
        lower.set_ylabel("requests per second", fontsize=8)
        lower.set_xlabel("minutes", fontsize=8)
        for axes in (upper, lower):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=8)
    figure.savefig(path, dpi=100)
