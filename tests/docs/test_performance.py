"""The performance page shows what was measured: its tables are those of the figures beside it."""

from __future__ import annotations

from pathlib import Path

from aligner_integrations.benchmarking import report as reports
from tests.docs.pages import ROOT

FIGURES = ROOT / "docs" / "benchmarks" / "performance.json"
PAGE = ROOT / "docs" / "performance.md"


def test_tables_are_those_of_the_figures() -> None:
    report, page = reports.read_json(FIGURES), PAGE.read_text(encoding="utf-8")
    grids = list(reports.make_grids(report))
    assert len(grids) == 5
    for grid in grids:
        assert grid.to_markdown() in page, grid.title
    assert reports.describe(report) in " ".join(page.split())


def test_picture_is_drawn_from_the_figures(tmp_path: Path) -> None:
    drawn = tmp_path / "again.png"
    reports.draw(reports.read_json(FIGURES), drawn)
    shown = ROOT / "docs" / "assets" / "performance.png"
    assert read_size(drawn) == read_size(shown)


def read_size(png: Path) -> bytes:
    """Width and height of a PNG."""
    return png.read_bytes()[16:24]
