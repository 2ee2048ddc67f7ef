"""Options that several commands have, spelled once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import typer

ModelOption = Annotated[
    str, typer.Option("--model", "-m", help="Bundled name, directory or hub id.")
]
PromptOption = Annotated[
    str | None, typer.Option(help="Prompt format, where the model does not say its own.")
]
DeviceOption = Annotated[str | None, typer.Option(help="For example cpu or cuda:0.")]
DtypeOption = Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")]
TokenizerOption = Annotated[
    str | None,
    typer.Option(
        help="With a server: directory or hub id of the model's tokenizer, where its name is none."
    ),
]
OnErrorOption = Annotated[
    str, typer.Option(help="Where correcting fails: raise, original or refuse.")
]
ProtectOption = Annotated[
    list[str] | None,
    typer.Option(help="Parts to keep: code, urls, ..., or a regular expression."),
]


def read_loading(
    model: str,
    prompt: str | None,
    strength: float,
    *,
    server: Sequence[str] | None,
    tokenizer: str | None,
    device: str | None,
    dtype: str | None,
    together: int | None = None,
) -> dict[str, Any]:
    """Arguments of `Aligner.from_pretrained`, or with a server of `Aligner.from_server`.

    Args:
        model: What is loaded, or its name on the server.
        prompt: Its prompt format.
        strength: How eagerly to correct; what it needs is missed while loading.
        server: URLs of servers that run the model.
        tokenizer: Where its tokenizer is, if it runs on a server.
        device: Where it runs, if here.
        dtype: Of its weights, if here.
        together: Corrections at the same time; by default the constructor's own number.

    Raises:
        ConfigurationError: An option has no meaning with, or without, a server.
    """
    from aligner_integrations.errors import ConfigurationError

    common = {"model": model, "prompt": prompt, "options": {"strength": strength}}
    if not server:
        if tokenizer is not None:
            raise ConfigurationError(
                f"--tokenizer {tokenizer} is for an aligner on a server; a model that is loaded "
                "here has its own, so leave it out"
            )
        own = {"device": device, "dtype": dtype}
        return common | own | ({"max_batch_size": together} if together else {})
    for name, value in (("--device", device), ("--dtype", dtype)):
        if value is not None:
            raise ConfigurationError(
                f"{name} {value} is for a model that is loaded here; with a server leave it out, "
                "and tell the server"
            )
    there = {"server": list(server), "tokenizer": tokenizer}
    return common | there | ({"max_concurrency": together} if together else {})
