"""The command's tree."""

from __future__ import annotations

from typing import Annotated

import typer

from aligner_integrations import __version__
from aligner_integrations.cli import (
    baseline,
    bench,
    bootstrap,
    correct,
    data,
    evaluate,
    models,
    scan,
    serve,
    train,
)

app = typer.Typer(
    name="aligner",
    help="Correct the answers of language models with an Aligner.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(models.app, name="models")
app.add_typer(data.app, name="data")
app.command("correct")(correct.correct)
app.command("train")(train.train)
app.add_typer(baseline.app, name="baseline")
app.command("bootstrap")(bootstrap.bootstrap)
app.command("evaluate")(evaluate.evaluate)
app.command("scan")(scan.scan)
app.command("bench")(bench.bench)
app.command("serve")(serve.serve)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(__version__)
        raise typer.Exit


@app.callback()
def options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Show it.")
    ] = False,
) -> None:
    """Correct the answers of language models with an Aligner."""
