"""``aligner bootstrap``: an aligner's corrections train the upstream, round by round."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Annotated

import typer


def bootstrap(
    config: Annotated[Path, typer.Argument(help="YAML file; see the page on baselines.")],
    rounds: Annotated[
        int | None, typer.Option(min=1, help="How many, instead of what the config says.")
    ] = None,
) -> None:
    """Train an upstream model on an aligner's corrections of its answers, round by round."""
    from aligner_integrations.imports import require

    for package in ("yaml", "datasets", "trl"):
        require(package, "train")
    from aligner_integrations.training.baselines.rounds import show_rounds
    from aligner_integrations.training.bootstrap import BootstrapConfig
    from aligner_integrations.training.bootstrap import bootstrap as run

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    settings = BootstrapConfig.from_yaml(config)
    model = run(settings, rounds=rounds)
    summary = json.loads((Path(settings.output) / "bootstrap.json").read_text(encoding="utf-8"))
    typer.echo(show_rounds(summary["rounds"]))
    typer.echo(model)
