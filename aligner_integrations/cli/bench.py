"""``aligner bench``: how fast a model corrects on this machine."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any

import typer

from aligner_integrations.cli.options import (
    DeviceOption,
    DtypeOption,
    ModelOption,
    PromptOption,
)

TABLES = {"cases", "real", "batches", "first-token", "memory"}


def bench(
    model: ModelOption = "aligner-smol",
    prompt: PromptOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads of torch.")] = None,
    repeats: Annotated[int, typer.Option(min=1, help="Runs; medians are shown.")] = 3,
    quick: Annotated[
        bool, typer.Option("--quick", help="One run, short answers, small batches.")
    ] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(help="A table to make, again for more: " + ", ".join(sorted(TABLES)) + "."),
    ] = None,
    json_file: Annotated[
        Path | None, typer.Option("--json", help="Write all figures there.")
    ] = None,
    png_file: Annotated[Path | None, typer.Option("--png", help="Draw a picture there.")] = None,
    calibrate: Annotated[
        bool, typer.Option(help="Measure the model's passes first and keep the figures.")
    ] = True,
) -> None:
    """Compare ways to decode: a plain loop, transformers' own, and ours, on copies and edits."""
    from rich.console import Console

    from aligner_integrations.benchmarking import report as reports
    from aligner_integrations.benchmarking.memory import measure_memory
    from aligner_integrations.benchmarking.methods import StockWays, load_both
    from aligner_integrations.benchmarking.run import Benchmark, Plan
    from aligner_integrations.errors import ConfigurationError
    from aligner_integrations.imports import require

    if png_file is not None:
        require("matplotlib", "eval")  # said before an hour of measuring
    if threads is not None:
        import torch

        torch.set_num_threads(threads)
    plan = Plan(repeats=repeats)
    if quick:
        plan = Plan(1, variants=1, lengths=(60, 200), tokens=100, mix=4, batches=(4,))
    if unknown := set(only or ()) - TABLES:
        raise ConfigurationError(
            f"--only {unknown.pop()} is no table; tables are {', '.join(sorted(TABLES))}"
        )
    if only:
        plan = replace(plan, only=frozenset(only))
    options: dict[str, Any] = {"prompt": prompt, "device": device, "dtype": dtype}
    console = Console(stderr=True)
    with console.status("loading ...") as status:
        loaded, aligner = load_both(model, **options)
        if calibrate:
            status.update("measuring passes ...")
            aligner.calibrate()
        report = Benchmark(aligner, StockWays(loaded), plan, note=status.update).run()
        if "memory" in plan.only and loaded.model.device.type == "cpu":
            status.update("measuring memory ...")
            report.memory = measure_memory({"model": model, **options}, threads)
    reports.show(report, Console())
    if json_file is not None:
        reports.write_json(report, json_file)
    if png_file is not None:
        reports.draw(report, png_file)
