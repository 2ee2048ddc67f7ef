"""``aligner evaluate``: upstreams x aligners x datasets, judged and reported."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from rich.table import Table

    from aligner_integrations.evaluation.run import Evaluation
    from aligner_integrations.evaluation.summary import Summary

_SHOWN = 3  # reasons of failures


def evaluate(
    config: Annotated[Path, typer.Argument(help="YAML file; see the page on evaluation.")],
    output: Annotated[
        str | None, typer.Option("--output", "-o", help="Directory, instead of the config's.")
    ] = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Draw so many samples of each dataset at most.")
    ] = None,
    resume: Annotated[
        bool, typer.Option(help="Go on with what an earlier run with the same output found out.")
    ] = True,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Evaluate aligners: who gets better by them, what they spoil, what they cost; resumable."""
    from aligner_integrations.imports import require

    require("yaml", "eval")
    from tqdm.contrib.logging import logging_redirect_tqdm

    from aligner_integrations.evaluation.config import EvaluationConfig
    from aligner_integrations.evaluation.run import evaluate as run

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    told = EvaluationConfig.from_yaml(config)
    if output is not None:
        told = replace(told, output=output)
    if limit is not None:
        limits = [min(limit, one.limit or limit) for one in told.datasets]
        datasets = [replace(o, limit=n) for o, n in zip(told.datasets, limits, strict=True)]
        told = replace(told, datasets=datasets)
    with logging_redirect_tqdm():  # or warnings would tear the bars
        done = run(told, resume=resume, progress=progress)
    _show(done)
    if not done.evaluated:
        raise typer.Exit(1)


def _show(done: Evaluation) -> None:
    from rich.console import Console

    console = Console()
    summary = done.summary
    if summary.averages:
        console.print(_make_grid(summary))
    if summary.costs:
        console.print(_make_costs(summary))
    failures = done.failures
    if failures:
        console.print(f"{sum(failures.values())} failed; run again to retry them:")
        for reason, times in list(failures.items())[:_SHOWN]:
            console.print(f"  {times} x {reason}", markup=False, soft_wrap=True)
        if len(failures) > _SHOWN:
            console.print(f"  ... and {len(failures) - _SHOWN} other reasons, in settings.json")
    console.print(f"{done.evaluated} answers evaluated", highlight=False)
    console.print(str(done.report), markup=False, highlight=False, soft_wrap=True)


def _make_grid(summary: Summary) -> Table:
    from rich.table import Table

    table = Table(title="(wins - losses) / all, in %, mean over upstreams")
    for name in ("dataset", "aligner", "judge", "dimension"):
        table.add_column(name)
    table.add_column("net", justify="right")
    table.add_column(f"{100 * summary.confidence:g}% interval", justify="right")
    still = {cost.aligner for cost in summary.costs} - {
        cost.aligner for cost in summary.costs if cost.changed
    }
    for one in summary.averages:
        if one.aligner in still:  # all ties
            continue
        table.add_row(
            one.dataset or "all",
            one.aligner,
            one.judge,
            one.dimension,
            f"{one.net:+.1f}",
            f"{one.low:+.1f} to {one.high:+.1f}",
        )
    return table


def _make_costs(summary: Summary) -> Table:
    from rich.table import Table

    table = Table(title="What was changed, and in what time")
    for name in ("dataset", "aligner", "upstream"):
        table.add_column(name)
    for name in ("answers", "failed", "changed", "median s"):
        table.add_column(name, justify="right")
    for one in summary.costs:
        table.add_row(
            one.dataset,
            one.aligner,
            one.upstream,
            str(one.corrections),
            str(one.failures),
            "-" if one.changed_share is None else f"{100 * one.changed_share:.0f}%",
            "-" if one.seconds is None else f"{one.seconds:.2f}",
        )
    return table
