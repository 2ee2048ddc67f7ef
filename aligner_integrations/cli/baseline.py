"""``aligner baseline``: what an aligner is compared with."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from aligner_integrations.cli.data import (
    BaseUrlOption,
    ConcurrencyOption,
    JournalOption,
    MaxTokensOption,
    ProgressOption,
    TemperatureOption,
    show_report,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aligner_integrations.training.baselines.config import Kind

app = typer.Typer(
    help="Train or prompt what an aligner is compared with: SFT, DPO, self-refine.",
    no_args_is_help=True,
)
ConfigArgument = Annotated[Path, typer.Argument(help="YAML file; see the page on baselines.")]
ResumeOption = Annotated[bool, typer.Option(help="Go on where an earlier run stopped.")]


@app.command("sft")
def train_sft(config: ConfigArgument, resume: ResumeOption = True) -> None:
    """Train a model to give the correction as its answer to the question."""
    _train("sft", config, resume)


@app.command("dpo")
def train_dpo(config: ConfigArgument, resume: ResumeOption = True) -> None:
    """Train a model to prefer the correction to the answer."""
    _train("dpo", config, resume)


@app.command("refine")
def refine(
    answers: Annotated[Path, typer.Argument(help="Rows with a question and an answer.")],
    out: JournalOption,
    model: Annotated[
        str | None, typer.Option("--model", "-m", help="A local model: name, directory, hub id.")
    ] = None,
    llm: Annotated[
        str | None, typer.Option(help="provider:model, as for LangChain's init_chat_model.")
    ] = None,
    base_url: BaseUrlOption = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = None,
    prompts: Annotated[
        Path | None, typer.Option(help="YAML file with critique, rewrite and fine of your own.")
    ] = None,
    rounds: Annotated[int, typer.Option(min=1, help="Critiques of each answer at most.")] = 1,
    device: Annotated[str | None, typer.Option(help="Where a local model runs.")] = None,
    concurrency: ConcurrencyOption = 8,
    progress: ProgressOption = True,
) -> None:
    """Have a model criticise and rewrite answers, without training; resumable."""
    from aligner_integrations.errors import ConfigurationError
    from aligner_integrations.training.baselines.refine import RefinePrompts, refine_answers

    if (model is None) == (llm is None):
        raise ConfigurationError("name either --model, a local one, or --llm, not both")
    told = RefinePrompts()
    if prompts is not None:
        from aligner_integrations.imports import require

        require("yaml", "train")
        from aligner_integrations.training.config import build_config, read_yaml

        told = build_config(RefinePrompts, read_yaml(prompts), str(prompts))
    if model is not None:
        ask = _load_local(model, device, temperature, max_tokens)
        report = refine_answers(
            ask, answers, out, prompts=told, rounds=rounds, progress=progress, name=model
        )
    else:
        from aligner_integrations.langchain.loading import load_chat_model

        report = refine_answers(
            load_chat_model(
                llm or "", base_url=base_url, temperature=temperature, max_tokens=max_tokens
            ),
            answers,
            out,
            prompts=told,
            rounds=rounds,
            concurrency=concurrency,
            progress=progress,
        )
    show_report(out, report, "rewrites")


def _train(kind: Kind, path: Path, resume: bool) -> None:
    from aligner_integrations.imports import require

    for package in ("yaml", "datasets", "trl"):
        require(package, "train")
    from aligner_integrations.training.baselines.config import BaselineConfig
    from aligner_integrations.training.baselines.run import train_baseline

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    typer.echo(train_baseline(kind, BaselineConfig.from_yaml(path), resume=resume))


def _load_local(
    name: str, device: str | None, temperature: float | None, max_tokens: int | None
) -> Callable[[str], str]:
    from aligner_integrations.training.baselines.config import SamplingConfig
    from aligner_integrations.training.baselines.upstream import load_upstream

    upstream = load_upstream(name, device=device)
    sampling = SamplingConfig(
        temperature=temperature or 0.0, max_new_tokens=max_tokens or 1024, batch=1
    )
    return lambda prompt: upstream.ask(prompt, sampling)
