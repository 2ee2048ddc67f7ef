"""``aligner scan``: where an aligner decides, and how to steer it."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from aligner_integrations.interpretability.scan import Scan
    from aligner_integrations.training.data.triples import Triple


def scan(
    model: Annotated[str, typer.Argument(help="Bundled name, directory or hub id.")],
    data: Annotated[
        list[Path], typer.Option("--data", help="Triples: answers with corrections; repeatable.")
    ],
    copies: Annotated[
        list[Path] | None,
        typer.Option("--copies", help="Good answers, without corrections; repeatable."),
    ] = None,
    calibration: Annotated[
        list[Path] | None,
        typer.Option(help="Triples to steer and calibrate on, instead of a part of --data."),
    ] = None,
    out: Annotated[Path, typer.Option("--out", "-o", help="Directory of the report.")] = Path(
        "runs/scan"
    ),
    save: Annotated[
        bool, typer.Option("--save", help="Put the vectors beside the model's weights.")
    ] = False,
    limit: Annotated[int, typer.Option(min=10, help="Most pairs to find directions with.")] = 80,
    pairing: Annotated[
        str, typer.Option(help="Pairs of the same question, matched by length, or both.")
    ] = "both",
    method: Annotated[str, typer.Option(help="pca, mean, probe, or auto.")] = "auto",
    layers: Annotated[
        str | None, typer.Option(help="Layers to steer at: 8-19, or 8,10,12; found by default.")
    ] = None,
    steer: Annotated[bool, typer.Option(help="Steer and calibrate, or only read.")] = True,
    answers: Annotated[int, typer.Option(min=4, help="Most answers to steer.")] = 40,
    check: Annotated[int, typer.Option(min=0, help="Most answers to check on.")] = 24,
    prompt: Annotated[str | None, typer.Option(help="Prompt format; see the page on it.")] = None,
    device: Annotated[str | None, typer.Option(help="For example cuda:0.")] = None,
    seed: Annotated[int, typer.Option(help="Of all that is drawn.")] = 0,
    progress: Annotated[bool, typer.Option(help="Show progress bars.")] = True,
) -> None:
    """Look into an aligner: where it decides to copy or correct; make the vectors of strength."""
    from aligner_integrations.imports import require

    for package in ("sklearn", "scipy", "statsmodels", "jinja2", "matplotlib"):
        require(package, "eval")
    from tqdm.contrib.logging import logging_redirect_tqdm

    from aligner_integrations.decoding.steering import DETAILS_FILE, VECTORS_FILE
    from aligner_integrations.errors import ConfigurationError
    from aligner_integrations.interpretability.report import write_report
    from aligner_integrations.interpretability.scan import ScanOptions
    from aligner_integrations.interpretability.scan import scan as run
    from aligner_integrations.models.load import load_model

    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    if save and not steer:
        raise ConfigurationError("--save needs vectors that were calibrated; leave out --no-steer")
    options = ScanOptions(
        pairs=limit,
        pairing=pairing,  # type: ignore[arg-type]
        method=method,  # type: ignore[arg-type]
        layers=parse_layers(layers),
        answers=answers,
        check_answers=check,
        steer=steer,
        seed=seed,
    )
    loaded = load_model(model, prompt=prompt, device=device)
    with logging_redirect_tqdm():
        found = run(
            loaded,
            _read(data, copies or ()),
            calibration=_read(calibration, ()) if calibration else None,
            options=options,
            progress=progress,
        )
    files = write_report(found, out)
    _show(found)
    if found.steering is not None:
        directory = loaded.directory if save and loaded.directory else out
        found.steering.save(directory, weights=loaded.directory)
        files += [directory / VECTORS_FILE, directory / DETAILS_FILE]
    for path in files:
        typer.echo(path)


def parse_layers(text: str | None) -> tuple[int, ...]:
    """Layers as they are written in the command: ``8-11`` or ``3,5,8-11``.

    Raises:
        ConfigurationError: They are written otherwise.

    Example:
        >>> parse_layers("3,8-10")
        (3, 8, 9, 10)
    """
    from aligner_integrations.errors import ConfigurationError

    layers: set[int] = set()
    for part in (text or "").split(","):
        if not part.strip():
            continue
        found = re.fullmatch(r"([0-9]+)(?:-([0-9]+))?", part.strip())
        span = range(int(found[1]), int(found[2] or found[1]) + 1) if found else ()
        if not span:
            raise ConfigurationError(f"--layers {text!r} must be like 8-11 or 3,5,8-11")
        layers |= set(span)
    return tuple(sorted(layers))


def _read(triples: Iterable[Path], copies: Iterable[Path]) -> Iterable[Triple]:
    from aligner_integrations.training.data.reading import read_triples

    for path in triples:
        yield from read_triples(path)
    for path in copies:
        yield from read_triples(path, "copies")


def _show(found: Scan) -> None:
    from rich.console import Console

    console = Console()
    console.print(_make_accuracies(found))
    if found.control is None:
        return
    console.print(_make_curve(found))
    for note in found.control.calibration.notes:
        console.print(note, markup=False, highlight=False, soft_wrap=True)


def _make_accuracies(found: Scan) -> Table:
    from rich.table import Table

    best = found.find_accuracy(found.method)
    kind = "pairs of one question" if found.same_accuracies else "pairs"
    table = Table(title=f"Held-out accuracy at the last prompt token, {best.pairs} {kind}")
    table.add_column("method")
    for name in ("best layer", "accuracy", "95% interval", "AUC", "shuffled labels"):
        table.add_column(name, justify="right")
    for one in found.same_accuracies or found.accuracies:
        at = max(range(len(one.auc)), key=lambda index: one.auc[index])
        table.add_row(
            one.method,
            str(at - 1),
            f"{100 * one.values[at]:.0f}%",
            f"{100 * one.low[at]:.0f} to {100 * one.high[at]:.0f}%",
            f"{one.auc[at]:.2f}",
            "-" if one.shuffled is None else f"{100 * one.shuffled[at]:.0f}%",
        )
    return table


def _make_curve(found: Scan) -> Table:
    from rich.table import Table

    control = found.control
    table = Table()
    if control is None:
        return table
    layers = list(control.steering.vectors)
    number = len(control.curve[0].outputs)
    table.title = (
        f"Steered at layers {', '.join(map(str, layers))} ({control.steering.method}), "
        f"{number} answers"
    )
    names = ("coefficient", "Levenshtein ratio", "bad changed", "good changed", "perplexity")
    for name in (*names, "not ended"):
        table.add_column(name, justify="right")
    for point in control.curve:
        table.add_row(
            f"{point.coefficient:+.2f}",
            f"{point.similarity:.3f}",
            f"{100 * point.change_rate(bad=True):.0f}%",
            f"{100 * point.change_rate(bad=False):.0f}%",
            f"{point.perplexity:.2f}",
            f"{100 * point.unended:.0f}%",
        )
    return table
