"""The report's figures as JSON and as tables."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from aligner_integrations.benchmarking.report import Grid

Report = dict[str, dict[str, Any]]
"""The figures of each run, by its part and model."""


def read(path: Path) -> Report:
    """A report, empty where there is none yet."""
    report: Report = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return report


def add(path: Path, name: str, figures: dict[str, Any]) -> None:
    """Put a run into the report, in place of an earlier one of the same name."""
    report = {**read(path), name: figures}
    path.write_text(json.dumps(report, indent=1) + "\n", encoding="utf-8")


def make_grids(report: Report) -> Iterator[Grid]:
    """All tables."""
    yield Grid(
        "how requests ended",
        ["", "asked", "right", "errors", "left", "lost", "mixed up", "wrong"],
        [[name, *_count(run)] for name, run in report.items()],
    )
    yield Grid(
        "throughput, and the memory of the process with the model",
        ["", "at the same time", "seconds", "requests/s", "peak MB"],
        [[name, *_speed(run)] for name, run in report.items()],
    )
    yield Grid(
        "seconds to a right answer",
        ["", "answers", "p50", "p95", "p99"],
        [
            [
                f"{name}: {kind}",
                str(ranks["n"]),
                *(f"{ranks[p]:.3f}" for p in ("p50", "p95", "p99")),
            ]
            for name, run in report.items()
            for kind, ranks in _latencies(run)
        ],
    )
    ends = sorted({end for run in report.values() for end in run["errors"]})
    names = [name for name in report if report[name]["errors"]]
    yield Grid(
        "errors by kind, each expected",
        ["", *names],
        [[f"`{end}`", *(str(report[n]["errors"].get(end, 0)) for n in names)] for end in ends],
    )
    if soaks := {name: run["soak"] for name, run in report.items() if "soak" in run}:
        heads = ["minutes", "start", "first third", "last third", "most", "MB in 10 minutes"]
        yield Grid(
            "memory of the gateway over time, MB",
            ["", *heads, "open files", "threads"],
            [[name, *_soak(soak)] for name, soak in soaks.items()],
        )


def _count(run: dict[str, Any]) -> list[str]:
    errors = sum(run["errors"].values())
    wrong = len(run["wrong"])
    bad = run["lost"] + run["mixed_up"]
    counts = (run["requests"], run["right"], errors, run["cancelled"], run["lost"])
    return [*map(str, counts), str(run["mixed_up"]), str(max(0, wrong - bad))]


def _speed(run: dict[str, Any]) -> list[str]:
    workers, seconds, speed = run["workers"], run["seconds"], run["requests_per_second"]
    return [str(workers), f"{seconds:.0f}", f"{speed:.1f}", str(run["memory"]["peak"])]


def _latencies(run: dict[str, Any]) -> Iterator[tuple[str, dict[str, float]]]:
    yield from sorted(run["latency"].items())
    if run["first_text"]:
        yield "stream, first text", run["first_text"]


def _soak(soak: dict[str, Any]) -> list[str]:
    numbers = [f"{soak[name]:.1f}" for name in ("start", "first_third", "last_third", "most")]
    slope = f"{soak['slope']:+.2f}"
    held = [f"{start} / {most} / {end}" for start, most, end in (soak["files"], soak["threads"])]
    return [f"{soak['minutes']:.0f}", *numbers, slope, *held]
