"""``aligner correct``: one question and answer."""

from __future__ import annotations

import json
import sys
from typing import Annotated

import typer


def correct(
    question: Annotated[str, typer.Option("--question", "-q", help="What was asked.")],
    answer: Annotated[
        str, typer.Option("--answer", "-a", help="The answer; '-' reads standard input.")
    ],
    model: Annotated[
        str, typer.Option("--model", "-m", help="Bundled name, directory or hub id.")
    ] = "aligner-smol",
    prompt: Annotated[
        str | None, typer.Option(help="Prompt format, where the model does not say its own.")
    ] = None,
    strength: Annotated[
        float,
        typer.Option(min=-1, max=1, help="How eagerly to correct; 0: as trained."),
    ] = 0.0,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole correction.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what changed, in colour.")] = False,
) -> None:
    """Correct one answer and print it."""
    from rich.console import Console

    from aligner_integrations.aligner import Aligner

    text = sys.stdin.read() if answer == "-" else answer
    aligner = Aligner.from_pretrained(model, prompt=prompt, options={"strength": strength})
    correction = aligner.correct(question, text)
    if as_json:
        typer.echo(json.dumps(correction.to_dict(), ensure_ascii=False, indent=2))
    elif diff:
        Console().print(correction)
    else:
        typer.echo(correction.text)
