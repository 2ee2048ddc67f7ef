"""The command: ``python -m docs.benchmarks.reliability gateway|scheduler|soak|show``."""

from __future__ import annotations

import argparse
import asyncio
import os
import platform
import signal
import sys
import tempfile
import time
from itertools import islice, takewhile
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

from aligner_integrations import Aligner
from docs.benchmarks.reliability import gateway, report, scheduler, soak
from docs.benchmarks.reliability.making import (
    make_nonsense,
    make_pool,
    read_natural,
    save_tiny,
)
from docs.benchmarks.reliability.plans import make_plans
from docs.benchmarks.reliability.pool import Pool
from docs.benchmarks.reliability.processes import running

TINY, BUNDLED = "tiny", "aligner-smol"


def main(arguments: list[str] | None = None) -> int:
    """Run one part, add its figures to the report, print its table; 1 if anything was wrong."""
    options = read_arguments(arguments)
    console = Console()
    if options.part == "show":
        for grid in report.make_grids(report.read(options.json)):
            console.print(grid.to_rich())
        return 0
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        scratch = Path(folder)
        model = str(save_tiny(scratch / TINY)) if options.model == TINY else BUNDLED
        aligner = Aligner.from_pretrained(model, device="cpu")
        candidates = (make_nonsense if options.model == TINY else read_natural)(options.seed)
        with console.status(f"asking for {options.pool} pairs one by one ..."):
            pool = make_pool(aligner, candidates, options.pool)
        run = {"gateway": run_gateway, "scheduler": run_scheduler, "soak": run_gateway}
        figures = run[options.part](options, scratch, model, aligner, pool)
    figures = {
        "model": options.model,
        "machine": describe_machine(),
        "date": time.strftime("%Y-%m-%d"),
        "command": describe_command(arguments or sys.argv[1:]),
        "pairs": {"used": len(pool.pairs), "left_out": pool.left_out},
        **figures,
    }
    key = f"{options.part}, {options.model}"
    for grid in report.make_grids({key: figures}):
        console.print(grid.to_rich())
    if options.json:
        report.add(options.json, key, figures)
    if options.png:
        runs = {key: figures} if options.json is None else report.read(options.json)
        soak.draw({name: run for name, run in runs.items() if "soak" in run}, options.png)
    for line in figures["wrong"]:
        console.print(f"wrong: {line}", style="red", markup=False, highlight=False)
    return int(bool(figures["wrong"]))


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The command line, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m docs.benchmarks.reliability",
        description="Load, soak and faults: every request must end with its own answer.",
    )
    parser.add_argument("part", choices=("gateway", "scheduler", "soak", "show"))
    parser.add_argument(
        "--model", choices=(TINY, BUNDLED), default=TINY, help="random weights, or the bundled"
    )
    parser.add_argument("--requests", type=int, default=2000, help="how many (not for soak)")
    parser.add_argument("--minutes", type=float, default=20.0, help="how long (for soak)")
    parser.add_argument("--workers", type=int, default=24, help="requests at the same time")
    parser.add_argument("--crowd", type=int, default=0, help="requests at once at the end")
    parser.add_argument("--pool", type=int, default=100, help="different pairs")
    parser.add_argument("--faults", type=float, default=0.2, help="share of requests with faults")
    parser.add_argument("--hang-ups", type=float, default=0.1, help="share of clients that leave")
    parser.add_argument("--patience", type=float, default=1.0, help="most seconds that they stay")
    parser.add_argument("--every", type=float, default=5.0, help="seconds between samples (soak)")
    parser.add_argument("--seed", type=int, default=0, help="of all draws")
    parser.add_argument("--json", type=Path, metavar="FILE", help="add the figures to this report")
    parser.add_argument("--png", type=Path, metavar="FILE", help="draw memory over time (soak)")
    options = parser.parse_args(arguments)
    for name in ("requests", "minutes", "workers", "pool", "patience", "every"):
        if not getattr(options, name) > 0:
            parser.error(f"--{name} {getattr(options, name)} must be above 0")
    for name in ("faults", "hang_ups"):
        if not 0 <= getattr(options, name) <= 1:
            parser.error(f"--{name.replace('_', '-')} must be a share from 0 to 1")
    if options.workers > 96:
        parser.error("--workers can't be above 96, what the gateway works on and lets wait")
    if options.part == "show" and options.json is None:
        parser.error("show needs --json FILE, the report to show")
    if options.png and options.part != "soak":
        parser.error("--png is for soak")
    return options


def run_gateway(
    options: argparse.Namespace, scratch: Path, model: str, aligner: Aligner, pool: Pool
) -> dict[str, Any]:
    """Drive a gateway, until all is asked or the time is over."""
    path = scratch / "pool.json"
    pool.save(path)
    plans = make_plans(
        pool,
        options.seed,
        faults=options.faults,
        hang_ups=options.hang_ups,
        patience=options.patience,
    )
    is_soak = options.part == "soak"
    with running(scratch, model, path, gateway.OPTIONS) as processes, _show_progress() as progress:
        crowd = [] if is_soak else list(islice(plans, options.crowd))
        end = time.monotonic() + 60 * options.minutes
        asked = (
            takewhile(lambda _: time.monotonic() < end, plans)
            if is_soak
            else islice(plans, options.requests)
        )
        total = None if is_soak else options.requests + len(crowd)
        task = progress.add_task("asking", total=total)
        load = asyncio.run(
            gateway.drive(
                processes,
                asked,
                workers=options.workers,
                crowd=crowd,
                every=options.every if is_soak else 0.5,
                told=lambda done: progress.update(task, completed=done),
            )
        )
        figures = gateway.summarize(load, processes)
    if is_soak:
        figures["soak"] = soak.analyse(load.samples)
    return {"workers": options.workers, "crowd": options.crowd, **figures}


def run_scheduler(
    options: argparse.Namespace, scratch: Path, model: str, aligner: Aligner, pool: Pool
) -> dict[str, Any]:
    """Drive the engine in this process."""
    with _show_progress() as progress:
        task = progress.add_task("asking", total=options.requests)
        return scheduler.run(
            aligner,
            pool,
            options.requests,
            seed=options.seed,
            workers=options.workers,
            patience=options.patience,
            told=lambda done: progress.update(task, completed=done),
        )


def describe_command(words: list[str]) -> str:
    """The command line, without the files that it writes."""
    kept = [
        word
        for before, word in zip(["", *words], words, strict=False)
        if not {before, word} & {"--json", "--png"}
    ]
    return " ".join(["python -m docs.benchmarks.reliability", *kept])


def describe_machine() -> str:
    """What the figures were taken on."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__}, one thread"
    )


def _show_progress() -> Progress:
    columns = ("[progress.description]{task.description}", BarColumn(), MofNCompleteColumn())
    return Progress(*columns, TimeElapsedColumn(), console=Console(stderr=True), transient=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # and so ends what was started, too
    sys.exit(main())
