"""``aligner correct``: one question and answer, or a whole file of them."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from aligner_integrations.cli.options import (
    DeviceOption,
    DtypeOption,
    ModelOption,
    OnErrorOption,
    PromptOption,
    ProtectOption,
    TokenizerOption,
    read_loading,
)

if TYPE_CHECKING:
    from aligner_integrations.options import BatchArguments

_BULK = "Files of answers"


def correct(
    question: Annotated[
        str | None, typer.Option("--question", "-q", help="What was asked.")
    ] = None,
    answer: Annotated[
        str | None, typer.Option("--answer", "-a", help="The answer; '-' reads standard input.")
    ] = None,
    model: ModelOption = "aligner-smol",
    prompt: PromptOption = None,
    server: Annotated[
        list[str] | None,
        typer.Option(help="URL of a server that runs the model, up to /v1; or one more."),
    ] = None,
    tokenizer: TokenizerOption = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    strength: Annotated[
        float,
        typer.Option(min=-1, max=1, help="How eagerly to correct; 0: as trained."),
    ] = 0.0,
    on_error: OnErrorOption = "raise",
    on_overflow: Annotated[
        str | None, typer.Option(help="The same for what does not fit the context.")
    ] = None,
    protect: ProtectOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the whole correction.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show what changed, in colour.")] = False,
    source: Annotated[
        Path | None,
        typer.Option(
            "--input",
            "-i",
            help=".jsonl, .jsonl.gz, .parquet, .csv or .tsv.",
            rich_help_panel=_BULK,
        ),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help=".jsonl, .parquet, .csv or .tsv.", rich_help_panel=_BULK
        ),
    ] = None,
    question_field: Annotated[
        str | None, typer.Option(help="By default question or prompt.", rich_help_panel=_BULK)
    ] = None,
    answer_field: Annotated[
        str | None, typer.Option(help="By default answer or response.", rich_help_panel=_BULK)
    ] = None,
    correction_field: Annotated[
        str, typer.Option(help="Where the corrected answer goes.", rich_help_panel=_BULK)
    ] = "correction",
    record_field: Annotated[
        str, typer.Option(help="Where the record goes.", rich_help_panel=_BULK)
    ] = "aligner",
    batch_size: Annotated[
        int, typer.Option(min=1, help="Rows that run together.", rich_help_panel=_BULK)
    ] = 16,
    resume: Annotated[
        bool, typer.Option(help="Go on where an earlier run stopped.", rich_help_panel=_BULK)
    ] = True,
    retry_failed: Annotated[
        bool, typer.Option(help="Try failed rows once more.", rich_help_panel=_BULK)
    ] = False,
    engine: Annotated[
        str, typer.Option(help="local, or ray for a cluster.", rich_help_panel=_BULK)
    ] = "local",
    workers: Annotated[
        int, typer.Option(min=1, help="Ray's actors, each with a model.", rich_help_panel=_BULK)
    ] = 2,
    worker_cpus: Annotated[
        float, typer.Option(min=0, help="CPUs of each.", rich_help_panel=_BULK)
    ] = 1.0,
    worker_gpus: Annotated[
        float, typer.Option(min=0, help="GPUs of each.", rich_help_panel=_BULK)
    ] = 0.0,
    progress: Annotated[bool, typer.Option(help="Show a bar.", rich_help_panel=_BULK)] = True,
) -> None:
    """Correct one answer and print it, or a file of answers: each row once, also after a kill."""
    loading = read_loading(
        model,
        prompt,
        strength,
        server=server,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        together=batch_size,
    )
    call: BatchArguments = {
        "on_error": on_error,  # type: ignore[typeddict-item] # checked where it is used
        "on_overflow": on_overflow,  # type: ignore[typeddict-item]
        "protect": protect or None,
    }
    one, file = [question is not None, answer is not None], [source is not None, output is not None]
    if one + file not in ([True, True, False, False], [False, False, True, True]):
        raise typer.BadParameter(
            "give --question and --answer, or else --input and --output", param_hint="correct"
        )
    if source is None or output is None:
        _correct_one(str(question), str(answer), loading, call, as_json=as_json, diff=diff)
        return

    from aligner_integrations.bulk import correct_file
    from aligner_integrations.bulk.cluster import Workers

    report = correct_file(
        loading,
        source,
        output,
        question_field=question_field,
        answer_field=answer_field,
        correction_field=correction_field,
        record_field=record_field,
        resume=resume,
        retry_failed=retry_failed,
        progress=progress,
        engine=engine,  # type: ignore[arg-type] # checked there
        workers=Workers(workers, worker_cpus, worker_gpus),
        **call,
    )
    typer.echo(report)
    if report.failures is not None:
        typer.echo(f"failed rows and why: {report.failures}")
        raise typer.Exit(1)


def _correct_one(
    question: str,
    answer: str,
    loading: dict[str, Any],
    call: BatchArguments,
    *,
    as_json: bool,
    diff: bool,
) -> None:
    from rich.console import Console

    from aligner_integrations.sharing import find_loader

    text = sys.stdin.read() if answer == "-" else answer
    correction = find_loader(loading)(**loading).correct(question, text, **call)
    if as_json:
        typer.echo(json.dumps(correction.to_dict(), ensure_ascii=False, indent=2))
    elif diff:
        Console().print(correction)
    else:
        typer.echo(correction.text)
