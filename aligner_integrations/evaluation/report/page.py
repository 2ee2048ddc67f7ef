"""The report as one HTML file: no script, style, font or picture comes from elsewhere."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping, Sequence
from functools import lru_cache
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from markupsafe import Markup

from aligner_integrations.evaluation.records import Case
from aligner_integrations.evaluation.report import formats
from aligner_integrations.evaluation.report.examples import choose_examples
from aligner_integrations.evaluation.report.plots import (
    draw_costs,
    draw_outcomes,
    draw_similarity,
)
from aligner_integrations.evaluation.report.tables import (
    Grid,
    find_moving,
    make_failure_table,
    make_guard_tables,
    make_judge_table,
    make_net_grids,
    make_overview,
    make_score_grids,
)
from aligner_integrations.evaluation.report.text import clean
from aligner_integrations.evaluation.statistics import RESAMPLES, VALUE_RESAMPLES
from aligner_integrations.evaluation.summary import Summary
from aligner_integrations.imports import require

if TYPE_CHECKING:
    from jinja2 import Environment

_MOST_EXAMPLES = 36
_PACKAGES = ("aligner-integrations", "numpy", "scipy", "statsmodels", "matplotlib")


def write_report(
    summary: Summary,
    cases: Sequence[Case],
    path: str | Path,
    *,
    title: str,
    limits: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write the report of an evaluation.

    Args:
        summary: Of these cases.
        cases: For the histograms, the examples and the failures.
        path: The HTML file; folders are made.
        title: What was evaluated.
        limits: Sentences that the reader must know before the numbers, such as what data the
            aligner was trained on. What the numbers themselves show is said without them.
        settings: What the evaluation ran with, shown at the end; keep secrets out of it.

    Raises:
        MissingExtraError: jinja2, matplotlib, scipy or statsmodels is not installed.
    """
    page = render_report(summary, cases, title=title, limits=limits, settings=settings)
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(page.encode())


def render_report(
    summary: Summary,
    cases: Sequence[Case],
    *,
    title: str,
    limits: Sequence[str] = (),
    settings: Mapping[str, Any] | None = None,
) -> str:
    """The page that `write_report` writes; equal input gives an equal page."""
    for package in ("jinja2", "matplotlib"):
        require(package, "eval")
    counted = [case for case in cases if case.probe is None]
    moving = find_moving(summary)
    grids = make_net_grids(summary, moving)
    columns = [(grid.judge, dimension) for grid in grids for dimension in grid.dimensions]
    each = max(1, min(4, _MOST_EXAMPLES // (3 * max(1, len(moving)))))
    failures, failures_left_out = make_failure_table(cases)
    script = _read("page.js")
    page = (
        _environment()
        .get_template("page.html")
        .render(
            title=title,
            summary=summary,
            limits=limits,
            moving=moving,
            still=[name for name in summary.aligners if name not in moving],
            grids=grids,
            score_grids=make_score_grids(summary, moving),
            columns=columns,
            overview=make_overview(summary, columns, summary.aligners),
            tested=[cell for cell in summary.cells if cell.p_holm is not None],
            alpha=1 - summary.confidence,
            rules=any(cell.heuristic for cell in summary.cells)
            or any(guard.heuristic for guard in summary.guards),
            guards=make_guard_tables(summary.guards, summary.aligners, summary.confidence),
            judges=make_judge_table(summary),
            figures=_draw(summary, counted, moving, grids),
            examples=choose_examples(counted, moving, each=each, seed=summary.seed),
            failures=failures,
            failures_left_out=failures_left_out,
            settings=_list_settings(summary, settings or {}),
            style=Markup(_read("page.css")),  # noqa: S704 - our own file
            script=Markup(script),  # noqa: S704 - our own file
            script_hash=base64.b64encode(hashlib.sha256(script.encode()).digest()).decode(),
        )
    )
    return clean(page)


def _draw(
    summary: Summary, cases: Sequence[Case], aligners: Sequence[str], grids: Sequence[Grid]
) -> dict[str, Any]:
    outcomes = {
        grid.judge: draw_outcomes(summary, grid.judge, grid.aligners, f"outcomes-{index}")
        for index, grid in enumerate(grids)
    }
    if not any(case.error is None for case in cases):
        return {"outcomes": outcomes, "similarity": None, "costs": None}
    return {
        "outcomes": outcomes,
        "similarity": draw_similarity(cases, aligners, "similarity"),
        "costs": draw_costs(cases, summary.datasets, aligners, "costs"),
    }


def _list_settings(summary: Summary, settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    own = {
        "seed": summary.seed,
        "confidence of intervals": summary.confidence,
        "bootstrap resamples": f"{RESAMPLES:,} (counts), {VALUE_RESAMPLES:,} (values, averages)",
        "versions": ", ".join(f"{package} {version(package)}" for package in _PACKAGES),
    }
    return list(_flatten("", settings)) + [(name, str(value)) for name, value in own.items()]


def _flatten(prefix: str, value: Any) -> list[tuple[str, str]]:
    if isinstance(value, Mapping):
        pairs = [(str(key), item) for key, item in value.items()]
    elif isinstance(value, (list, tuple)) and any(isinstance(v, (Mapping, list)) for v in value):
        pairs = [(str(index), item) for index, item in enumerate(value, start=1)]
    elif isinstance(value, (list, tuple)):
        return [(prefix, ", ".join(str(item) for item in value))]
    else:
        return [(prefix, str(value))]
    found = []
    for key, item in pairs:
        found += _flatten(f"{prefix}.{key}" if prefix else key, item)
    return found


def _read(name: str) -> str:
    return (files(__package__) / "templates" / name).read_text("utf-8")


@lru_cache(maxsize=1)
def _environment() -> Environment:
    from jinja2 import Environment, FunctionLoader, StrictUndefined

    environment = Environment(
        loader=FunctionLoader(_read),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        name: getattr(formats, name)
        for name in ("signed", "percent", "plain", "probability", "stars", "listing", "counted")
    }
    return environment
