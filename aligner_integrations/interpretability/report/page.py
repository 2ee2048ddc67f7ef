"""The scan as one interactive HTML file: no script, style, font or picture comes from elsewhere."""

from __future__ import annotations

import json
from importlib.resources import files
from pathlib import Path
from typing import Any

import numpy as np

from aligner_integrations.imports import require
from aligner_integrations.interpretability.report.pictures import NAMES, find_limit, write_pictures
from aligner_integrations.interpretability.scan import Scan
from aligner_integrations.interpretability.tomography import standardise

FIGURES_FILE = "scan.json"
PAGE_FILE = "scan.html"


def write_report(scan: Scan, directory: str | Path) -> list[Path]:
    """Write the page, the pictures, and every number.

    Args:
        scan: What was found.
        directory: Where to; it is made.

    Returns:
        The files, the page first.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    for package in ("jinja2", "matplotlib"):
        require(package, "eval")
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    page = directory / PAGE_FILE
    page.write_text(render_page(scan), encoding="utf-8")
    numbers = directory / FIGURES_FILE
    numbers.write_text(json.dumps(_finite(scan.to_dict()), indent=1) + "\n", encoding="utf-8")
    return [page, numbers, *write_pictures(scan, directory)]


def render_page(scan: Scan) -> str:
    """The page; equal scans give equal pages."""
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    data = json.dumps(_finite(_collect(scan)), ensure_ascii=True, separators=(",", ":"))
    # Texts of the data may hold anything; within a script element only this could end it.
    data = data.replace("<", "\\u003c")
    return environment.from_string(_read("page.html")).render(
        scan=scan,
        names=NAMES,
        best=scan.find_accuracy(scan.method),
        best_layer=scan.find_best_layer(),
        same=sum(pair.is_same_question for pair in scan.pairs),
        style=Markup(_read("page.css")),  # noqa: S704 - our own file
        script=Markup(_read("page.js")),  # noqa: S704 - our own file
        data=Markup(data),  # noqa: S704 - escaped above
    )


def _collect(scan: Scan) -> dict[str, Any]:
    """What the page's script draws."""
    data = scan.to_dict()
    return {
        "layers": scan.layers,
        "limit": round(find_limit(scan), 3),
        "names": NAMES,
        "method": scan.method,
        "accuracies": data["accuracies"],
        "same": data["same_accuracies"],
        "positions": data["positions"],
        "attention": data["attention"],
        "control": data["control"],
        "lat": _list_tomograms(scan),
    }


def _list_tomograms(scan: Scan) -> list[dict[str, Any]]:
    """The mean of all pairs, and some pairs by themselves, on one scale."""
    means = standardise(scan.correct.scores, scan.copy.scores)
    mean = {
        name: {"scores": np.round(placed, 2).tolist(), "counts": one.counts}
        for name, placed, one in zip(
            ("correct", "copy"), means, (scan.correct, scan.copy), strict=True
        )
    }
    pairs = zip(scan.correct.examples, scan.copy.examples, strict=False)
    return [
        {"name": "Mean", **mean},
        *(
            {"name": f"Pair {number}", **_pair(one, other)}
            for number, (one, other) in enumerate(pairs, start=1)
        ),
    ]


def _pair(correct: Any, copy: Any) -> dict[str, Any]:
    width = max(correct[1].shape[1], copy[1].shape[1])
    padded = [
        np.pad(scores, ((0, 0), (0, width - scores.shape[1])), constant_values=np.nan)
        for _, scores in (correct, copy)
    ]
    return {
        name: {"tokens": tokens, "scores": np.round(placed, 2).tolist()}
        for name, (tokens, _), placed in zip(
            ("correct", "copy"), (correct, copy), standardise(*padded), strict=True
        )
    }


def _finite(value: Any) -> Any:
    """JSON has no word for "not a number": null stands for it."""
    if isinstance(value, dict):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(item) for item in value]
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _read(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text("utf-8")
