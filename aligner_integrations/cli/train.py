"""``aligner train``: an aligner of your own."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Annotated

import typer


def train(
    config: Annotated[Path, typer.Argument(help="YAML file; see the page on training.")],
    resume: Annotated[
        bool, typer.Option(help="Go on where an earlier run with the same output stopped.")
    ] = True,
) -> None:
    """Train an aligner: identity warm-up, then residual correction."""
    from aligner_integrations.imports import require

    for package in ("yaml", "datasets"):
        require(package, "train")
    from aligner_integrations.training.config import TrainingConfig
    from aligner_integrations.training.run import is_main_process
    from aligner_integrations.training.run import train as run

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    output = run(TrainingConfig.from_yaml(config), resume=resume)
    if is_main_process():
        typer.echo(output)
