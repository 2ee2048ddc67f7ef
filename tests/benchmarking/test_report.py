"""Ratios, tables, JSON and the picture."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
from rich.console import Console
from typer.testing import CliRunner

from aligner_integrations.benchmarking import report as reports
from aligner_integrations.benchmarking.memory import read_peak
from aligner_integrations.benchmarking.run import FLOOR, GREEDY, OURS, TOGETHER, Figures, Report
from aligner_integrations.cli.app import app
from aligner_integrations.errors import ConfigurationError, MissingExtraError

ROW = Figures(
    "a kind",
    prompt_tokens=90,
    output_tokens=40,
    requests=2,
    seconds={
        GREEDY: [[4.0, 2.0], [8.0, 4.0], [4.0, 8.0]],
        "generate": [[4.0, 4.0], [6.0, 6.0], [6.0, 6.0]],
        "prompt lookup": [[2.0, 2.0]] * 3,
        OURS: [[1.0, 1.0], [2.0, 1.0], [1.0, 2.0]],
        FLOOR: [[1.0, 0.5]] * 3,
    },
)
MACHINE = {
    "date": "2026-01-01",
    "model": "m",
    "dtype": "float32",
    "device": "a chip",
    "threads": 1,
    "torch": "2",
    "transformers": "5",
}


def test_ratios_are_medians_over_repeats() -> None:
    assert reports.total(ROW, GREEDY) == 12
    assert reports.ratio(ROW, OURS) == 4  # of 3, 4 and 4
    assert reports.ratio(ROW, FLOOR, OURS) == 2
    assert reports.least(ROW) == 4


def test_the_worst_request_is_told() -> None:
    row = Figures("", 1, 1, 2, {GREEDY: [[9.0, 1.0]], OURS: [[3.0, 2.0]]})
    assert reports.ratio(row, OURS) == 2
    assert reports.least(row) == 0.5


def make_report() -> Report:
    batch = Figures("4", 9, 40, 4, {"ours, in turn": [[4.0]], "padded": [[8.0]], TOGETHER: [[2.0]]})
    first = {"prompt_tokens": 500, "whole": [2.0, 1.0, 4.0], "read ahead": [0.2, 0.2, 0.2]}
    memory = {"plain loop": 100 * 2**20, "ours": 120 * 2**20}
    return Report(MACHINE, [ROW], [ROW], [batch], first, memory)


def test_tables() -> None:
    console = Console(record=True, width=120, file=open("/dev/null", "w"))  # noqa: SIM115
    with console.file:
        reports.show(make_report(), console)
    text = console.export_text()
    cells = [
        [c.strip() for c in line.split("│")[1:-1]] for line in text.splitlines() if "│" in line
    ]
    row = ["a kind", "20", "6.00", "1.00x", "3.00x", "4.00x", "4.00x", "2.00"]
    assert cells == [
        row,
        row,
        ["4", "40", "10", "5", "20", "2.00x"],
        ["500", "2.000", "0.200", "0.100"],
        ["100", "120", "1.20"],
    ]


def test_json_comes_back(tmp_path: Path) -> None:
    report = make_report()
    reports.write_json(report, tmp_path / "r.json")
    assert reports.read_json(tmp_path / "r.json") == report


def test_picture(tmp_path: Path) -> None:
    reports.draw(make_report(), tmp_path / "r.png")
    assert (tmp_path / "r.png").read_bytes().startswith(b"\x89PNG")


def test_a_missing_extra_is_told_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "matplotlib" else find(name)
    )
    result = CliRunner().invoke(app, ["bench", "--png", str(tmp_path / "r.png")])
    assert isinstance(result.exception, MissingExtraError)
    assert "pip install 'aligner-integrations[eval]'" in str(result.exception)


def test_an_unknown_table_is_refused() -> None:
    result = CliRunner().invoke(app, ["bench", "--only", "everything"])
    assert isinstance(result.exception, ConfigurationError)
    assert "tables are batches, cases, first-token, memory, real" in str(result.exception)


def test_peak_memory() -> None:
    before = read_peak()
    assert before > 2**24
    held = bytearray(300 * 2**20)
    held[:: 2**12] = b"1" * len(held[:: 2**12])
    assert read_peak() > before or before > 2**31


def test_the_command(
    tiny_model_dir: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """All of it, on a tiny model; the figures mean nothing, but each is there."""
    monkeypatch.setenv("COLUMNS", "120")
    monkeypatch.setenv("ALIGNER_CACHE_DIR", str(tmp_path))
    directory = tiny_model_dir(prompt="aligner-smol", max_position_embeddings=2048)
    saved = tmp_path / "bench.json"
    tables = ("cases", "batches", "first-token", "memory")  # "real" needs a trained model
    only = [word for table in tables for word in ("--only", table)]
    result = CliRunner().invoke(
        app,
        ["bench", "-m", str(directory), "--quick", "--device", "cpu", "--json", str(saved), *only],
        catch_exceptions=False,
    )
    assert result.exit_code == 0
    report = reports.read_json(saved)
    names = [row.name for row in report.cases]
    assert names[:2] == ["identical, 60 tokens", "identical, 200 tokens"]
    assert names[2:] == [
        "1% of words edited",
        "5% of words edited",
        "15% of words edited",
        "new first sentence",
        "sentence removed",
        "full rewrite",
        "natural mix",
    ]
    for row in [*report.cases, *report.batches]:
        assert all(s > 0 for runs in row.seconds.values() for run in runs for s in run)
    assert reports.ratio(report.cases[1], OURS) > 1
    assert set(report.memory) == {"plain loop", "ours"}
    assert report.first_token["prompt_tokens"] > 500
    assert list((tmp_path / "costs").glob("*.json"))
    for name in names:
        assert name in result.output
