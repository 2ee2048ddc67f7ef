"""``aligner data``: check training data, measure it, split it, convert it, make more of it."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from aligner_integrations.training.data import AskingReport, Triple

app = typer.Typer(
    help="Check training data, measure it, split it, convert it, make more of it.",
    no_args_is_help=True,
)

Files = Annotated[list[Path], typer.Argument(help="JSON Lines or Parquet files.")]
LayoutOption = Annotated[str, typer.Option(help="The files' layout; found by itself if auto.")]
TurnsOption = Annotated[
    str, typer.Option(help="Turns of a dialogue that the question holds: all or last.")
]
PreferenceOption = Annotated[
    str, typer.Option(help="PKU-SafeRLHF: the better or the safer response is chosen.")
]
SkipOption = Annotated[bool, typer.Option("--skip-broken", help="Leave broken rows out.")]
SeedOption = Annotated[int, typer.Option(min=0, help="Another seed, another choice.")]
OutOption = Annotated[Path, typer.Option("--out", "-o", help="Where to write: .jsonl or .parquet.")]
JsonOption = Annotated[Path | None, typer.Option("--json", help="Write all figures there.")]
JournalOption = Annotated[
    Path, typer.Option("--out", "-o", help="JSON Lines; a second run goes on where one ended.")
]
LlmOption = Annotated[str, typer.Option(help="provider:model, as for LangChain's init_chat_model.")]
BaseUrlOption = Annotated[str | None, typer.Option(help="URL of the model's API.")]
TemperatureOption = Annotated[float | None, typer.Option(help="The model's temperature.")]
MaxTokensOption = Annotated[int | None, typer.Option(help="Most tokens of a reply.")]
ConcurrencyOption = Annotated[int, typer.Option(min=1, help="Requests that run together.")]
ProgressOption = Annotated[bool, typer.Option(help="Show a progress bar.")]


@app.command("validate")
def validate_files(
    files: Files,
    layout: LayoutOption = "auto",
    max_chars: Annotated[int, typer.Option(min=1, help="Most characters of a text.")] = 50_000,
    max_problems: Annotated[int, typer.Option(min=0, help="Most problems to show.")] = 20,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report as JSON.")] = False,
) -> None:
    """Name every broken row by file and line; exit code 1 if there is one."""
    from aligner_integrations.errors import DataError
    from aligner_integrations.training.data import validate

    ok = True
    reports: dict[str, Any] = {}
    for path in files:
        try:
            report = validate(path, layout, max_problems=max_problems, max_chars=max_chars)
        except DataError as error:  # no file, no rows, no layout: the other files go on
            ok = False
            reports[str(path)] = {"error": str(error)}
            if not as_json:
                typer.echo(str(error))
            continue
        reports[str(path)] = report.to_dict()
        ok = ok and report.ok
        if as_json:
            continue
        for problem in report.problems:
            typer.echo(str(problem))
        if (hidden := report.counts.total() - len(report.problems)) > 0:
            typer.echo(f"{path}: ... and {hidden} more problems")
        notes = [f"{n} {kind}" for kind, n in report.counts.most_common()]
        notes += [f"{n} left out: {reason}" for reason, n in report.left_out.most_common()]
        sound = f"{path}: {report.usable} of {report.rows} rows are sound"
        typer.echo("; ".join([sound, *notes]))
    if as_json:
        typer.echo(json.dumps(reports, ensure_ascii=False, indent=1))
    if not ok:
        raise typer.Exit(1)


@app.command("stats")
def show_statistics(
    files: Files,
    layout: LayoutOption = "auto",
    by: Annotated[str, typer.Option(help="The field that tells kinds apart.")] = "kind",
    tokenizer: Annotated[
        str | None, typer.Option(help="Count tokens too: a model's directory or hub id.")
    ] = None,
    json_file: JsonOption = None,
    png_file: Annotated[Path | None, typer.Option("--png", help="Draw a picture there.")] = None,
    skip_broken: SkipOption = False,
) -> None:
    """Show lengths, how much is copied, how many edits, and the share of identities, by kind."""
    from rich.console import Console

    from aligner_integrations.imports import require
    from aligner_integrations.training.data import compute_statistics, draw

    if png_file is not None:
        require("matplotlib", "eval")
    loaded = None
    if tokenizer is not None:
        from transformers import AutoTokenizer

        loaded = AutoTokenizer.from_pretrained(tokenizer, trust_remote_code=False)
    statistics = compute_statistics(
        _read(files, layout, skip_broken=skip_broken),
        tokenizer=loaded,
        by=lambda triple: triple.kind if by == "kind" else str(triple.meta.get(by, "")),
    )
    Console().print(statistics.to_rich())
    if json_file is not None:
        statistics.write_json(json_file)
    if png_file is not None:
        draw(statistics, png_file, title=", ".join(path.name for path in files))


@app.command("duplicates")
def show_duplicates(
    files: Files,
    against: Annotated[
        list[Path] | None,
        typer.Option(help="A file of the evaluation split; again for more."),
    ] = None,
    layout: LayoutOption = "auto",
    against_layout: Annotated[
        str | None, typer.Option(help="The layout of --against; by default the same.")
    ] = None,
    part: Annotated[
        str | None,
        typer.Option(
            help="What is compared: question, answer, correction or all (question and answer). "
            "By default all within a split, and the question between splits."
        ),
    ] = None,
    threshold: Annotated[float, typer.Option(help="Least similarity, from 0.2 to 1.")] = 0.8,
    shingle: Annotated[int, typer.Option(min=1, help="Words that are compared together.")] = 3,
    seed: SeedOption = 0,
    most: Annotated[int, typer.Option("--most", min=0, help="Most pairs to show.")] = 20,
    json_file: JsonOption = None,
) -> None:
    """Find near-duplicates within the files, and leaks into --against; exit code 1 for a leak."""
    from aligner_integrations.training.data import NearIndex, find_duplicates, find_leaks

    def index() -> NearIndex:
        return NearIndex(threshold, shingle, seed=seed)

    train = list(_read(files, layout))
    within: Any = part or "all"
    between: Any = part or "question"
    found = {"duplicates": find_duplicates(train, within, index())}
    _show_pairs("near-duplicates", found["duplicates"], len(train), most)
    if against:
        evaluation = list(_read(against, against_layout or layout))
        found["evaluation_duplicates"] = find_duplicates(evaluation, within, index())
        found["leaks"] = find_leaks(train, evaluation, between, index())
        name = "near-duplicates in the evaluation split"
        _show_pairs(name, found["evaluation_duplicates"], len(evaluation), most)
        _show_pairs("leaks", found["leaks"], len(evaluation), most)
    if json_file is not None:
        data = {name: [pair.to_dict() for pair in pairs] for name, pairs in found.items()}
        json_file.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", "utf-8")
    if found.get("leaks"):
        raise typer.Exit(1)


@app.command("split")
def split_files(
    files: Files,
    train: Annotated[Path, typer.Option(help="Where to write the training split.")],
    evaluation: Annotated[Path, typer.Option("--eval", help="Where to write the other one.")],
    share: Annotated[float, typer.Option(help="Share of questions held out.")] = 0.1,
    overlap: Annotated[
        float, typer.Option(help="Shared content words from which questions are the same.")
    ] = 0.8,
    seed: SeedOption = 0,
    layout: LayoutOption = "auto",
    turns: TurnsOption = "all",
    preference: PreferenceOption = "better",
    skip_broken: SkipOption = False,
) -> None:
    """Split by question, so that no question of one split is in the other."""
    from aligner_integrations.training.data import split_triples, write_triples

    triples = _read(files, layout, turns, preference, skip_broken)
    parts = split_triples(triples, share=share, seed=seed, overlap=overlap)
    typer.echo(f"{train}: {write_triples(parts.train, train)} rows")
    typer.echo(f"{evaluation}: {write_triples(parts.evaluation, evaluation)} rows")
    typer.echo(f"{len(parts.dropped)} rows dropped: their question is too near to a held-out one")


@app.command("convert")
def convert_files(
    files: Files,
    out: OutOption,
    layout: LayoutOption = "auto",
    turns: TurnsOption = "all",
    preference: PreferenceOption = "better",
    max_length_ratio: Annotated[
        float | None, typer.Option(help="Leave out where one text is so many times longer.")
    ] = None,
    min_similarity: Annotated[
        float | None, typer.Option(help="Leave out what is less similar, from 0 to 1.")
    ] = None,
    identities: Annotated[
        float, typer.Option(help="Share of corrections also written as answers to be copied.")
    ] = 0.0,
    seed: SeedOption = 0,
    skip_broken: SkipOption = False,
) -> None:
    """Convert any layout to question, answer, correction; a pair's chosen answer corrects."""
    from aligner_integrations.training.data import add_identities, keep_close, write_triples

    triples = _read(files, layout, turns, preference, skip_broken)
    close = keep_close(triples, max_length_ratio=max_length_ratio, min_similarity=min_similarity)
    typer.echo(f"{out}: {write_triples(add_identities(close, identities, seed), out)} rows")


@app.command("spoil")
def spoil_files(
    files: Files,
    out: OutOption,
    layout: Annotated[
        str, typer.Option(help="The files' layout; a row's correction counts as the good answer.")
    ] = "copies",
    defects: Annotated[
        Path | None, typer.Option(help="Sentences to insert: rows with a kind and a text.")
    ] = None,
    kind: Annotated[
        list[str] | None, typer.Option(help="Only defects of this kind; again for more.")
    ] = None,
    per_answer: Annotated[int, typer.Option(min=1, help="Defects in an answer.")] = 1,
    copies: Annotated[bool, typer.Option("--copies", help="Also write each good answer.")] = False,
    seed: SeedOption = 0,
) -> None:
    """Insert defect sentences into good answers, which become the corrections."""
    from aligner_integrations.training.data import insert_defects, read_defects, write_triples
    from aligner_integrations.training.data.defects import BUNDLED

    chosen = read_defects(defects or BUNDLED, kind or ())
    made = insert_defects(
        _read(files, layout), chosen, seed=seed, per_answer=per_answer, copies=copies
    )
    typer.echo(f"{out}: {write_triples(made, out)} rows")


@app.command("sample")
def sample(
    file: Annotated[Path, typer.Argument(help="Rows with a question.")],
    out: JournalOption,
    llm: LlmOption,
    base_url: BaseUrlOption = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = None,
    samples: Annotated[int, typer.Option(min=1, help="Answers to each question.")] = 1,
    system: Annotated[str | None, typer.Option(help="A system message.")] = None,
    concurrency: ConcurrencyOption = 8,
    progress: ProgressOption = True,
) -> None:
    """Ask a chat model every question and write its answers; resumable."""
    from aligner_integrations.langchain.loading import load_chat_model
    from aligner_integrations.training.data import sample_answers

    report = sample_answers(
        load_chat_model(llm, base_url=base_url, temperature=temperature, max_tokens=max_tokens),
        file,
        out,
        samples=samples,
        system=system,
        concurrency=concurrency,
        progress=progress,
    )
    show_report(out, report, "answers")


@app.command("correct")
def correct_answers(
    file: Annotated[Path, typer.Argument(help="Rows with a question and an answer.")],
    out: JournalOption,
    llm: LlmOption,
    base_url: BaseUrlOption = None,
    temperature: TemperatureOption = None,
    max_tokens: MaxTokensOption = None,
    guidance: Annotated[
        Path | None, typer.Option(help="A text file with guidance of your own.")
    ] = None,
    concurrency: ConcurrencyOption = 8,
    progress: ProgressOption = True,
) -> None:
    """Have a strong chat model correct answers: helpful, harmless, honest; resumable."""
    from aligner_integrations.langchain.loading import load_chat_model
    from aligner_integrations.training.data import write_corrections
    from aligner_integrations.training.data.guidance import GUIDANCE

    report = write_corrections(
        load_chat_model(llm, base_url=base_url, temperature=temperature, max_tokens=max_tokens),
        file,
        out,
        guidance=guidance.read_text(encoding="utf-8") if guidance else GUIDANCE,
        concurrency=concurrency,
        progress=progress,
    )
    show_report(out, report, "corrections")


def _read(
    files: list[Path],
    layout: str,
    turns: str = "all",
    preference: str = "better",
    skip_broken: bool = False,
) -> Iterator[Triple]:
    from aligner_integrations.training.data import read_triples

    # What is left out is said, on standard error.
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    logging.getLogger("aligner_integrations.training.data").setLevel(logging.INFO)
    for path in files:
        yield from read_triples(
            path,
            layout,
            on_error="skip" if skip_broken else "raise",
            turns=turns,  # type: ignore[arg-type] # checked by read_triples
            preference=preference,  # type: ignore[arg-type]
        )


def _show_pairs(name: str, pairs: list[Any], rows: int, most: int) -> None:
    for pair in pairs[:most]:
        text = " ".join(pair.text.split())
        typer.echo(f"{pair.place} ~ {pair.other} ({pair.similarity:.2f}): {text}")
    typer.echo(f"{len(pairs)} {name} among {rows} rows")


def show_report(out: Path, report: AskingReport, name: str) -> None:
    """Say how many rows were written, were there before, and failed."""
    typer.echo(
        f"{out}: {report.written} {name} written, {report.done_before} were there, "
        f"{report.failed} failed"
    )
    if report.failed:
        raise typer.Exit(1)
