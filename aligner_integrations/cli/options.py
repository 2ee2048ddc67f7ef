"""Options that several commands have, spelled once."""

from __future__ import annotations

from typing import Annotated

import typer

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Bundled name, directory or hub id.")
]
PromptOption = Annotated[
    str | None, typer.Option(help="Prompt format, where the model does not say its own.")
]
DeviceOption = Annotated[str | None, typer.Option(help="For example cpu or cuda:0.")]
DtypeOption = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")]
OnErrorOption = Annotated[
    str, typer.Option(help="Where correcting fails: raise, original or refuse.")
]
ProtectOption = Annotated[
    list[str] | None,
    typer.Option(help="Parts to keep: code, urls, ..., or a regular expression."),
]
