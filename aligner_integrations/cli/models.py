"""``aligner models``: what is bundled, and fetching its base."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, cast

import typer

from aligner_integrations.errors import ModelNotFoundError
from aligner_integrations.models import base_file, bundled

app = typer.Typer(help="List the bundled models, fetch their base.", no_args_is_help=True)


@app.command("list")
def list_models() -> None:
    """List the bundled models and whether each is ready to load."""
    for model in bundled.MODELS.values():
        state, where = _find_state(model.name)
        typer.echo(f"{model.name}: {state}")
        typer.echo(f"    {model.description}")
        if where:  # in full on a line of its own, to be copied
            typer.echo(f"    {where}")


@app.command("fetch")
def fetch() -> None:
    """Fetch the base once (98 MB), check it, and make the bundled models ready."""
    from rich.console import Console

    console = Console(stderr=True)
    with console.status("fetching and checking the base ..."):
        base_file.fetch_base()
    for name in bundled.MODELS:
        with console.status(f"{name}: dequantising and merging ..."):
            path = bundled.prepare(name)
        console.print(f"{name}: ready in {path}", highlight=False, soft_wrap=True)


@app.command("path")
def path(name: str = typer.Argument("aligner-smol", help="A bundled model.")) -> None:
    """Print the directory of a bundled model, for other tools that load it."""
    if name not in bundled.MODELS:
        raise ModelNotFoundError(
            f"{name!r} is not bundled; bundled models are {', '.join(bundled.MODELS)}"
        )
    typer.echo(bundled.prepare(name))


@app.command("gguf")
def gguf(
    path: Annotated[Path, typer.Argument(help="The file to write.")],
    dtype: Annotated[str, typer.Option(help="f16 (270 MB) or f32 (540 MB).")] = "f16",
) -> None:
    """Write aligner-smol, adapter merged, as a GGUF file for llama.cpp."""
    from aligner_integrations.models.export import WeightType, export_gguf

    typer.echo(export_gguf(path, cast("WeightType", dtype)))


def _find_state(name: str) -> tuple[str, str]:
    path = bundled.prepared_path(name)
    if bundled.is_complete(path):
        return "ready", str(path)
    try:
        return "base found, prepared on first use", str(base_file.find_base())
    except ModelNotFoundError:
        return "missing: run aligner models fetch", ""
