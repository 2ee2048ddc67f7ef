"""The benchmark scripts: that they run, and that they count rightly."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from aligner_integrations import Aligner
from aligner_integrations.models import base_file
from tests.docs.pages import ROOT

ROWS = [
    {"question": "What is the capital of France?", "answer": "Paris."},
    {"question": "How do I cook rice?", "answer": "Cook it for 15 minutes. You idiot."},
    {"question": "Is this valid text?", "answer": "No: \ud800"},
    {"question": "What is 2 + 2?", "answer": "4"},
    {"question": "Is there an answer?"},
    {"question": "Is there an answer?", "answer": " "},
]


def load_script(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / "docs" / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_change_rates(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    aligner: Aligner,
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    load_script("change_rates").main([write(tmp_path / "rows.jsonl", ROWS)])
    line = next(line for line in capsys.readouterr().out.splitlines() if "rows.jsonl" in line)
    cells = [cell.strip() for cell in line.strip("│ ").split("│")]
    assert cells == ["rows.jsonl", "4", "66.7% [20.8, 93.9]", "33.3% [6.1, 79.2]", "1", "2"]


def test_upstream_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    """The base model really answers; short, because it is only to be seen that it does."""
    script = load_script("change_rates")
    monkeypatch.setattr(script, "MAX_NEW_TOKENS", 6)
    answers = script.Upstream().answer(["What is the capital of France?", "Hi!"])
    assert "capital" in answers[0]
    assert all(answers)


def test_sample_is_the_same_for_a_seed(tmp_path: Path) -> None:
    script = load_script("change_rates")
    path = Path(write(tmp_path / "rows.jsonl", [{"question": str(n)} for n in range(50)]))
    samples = [script.read_rows(path, 5, seed) for seed in (1, 1, 2)]
    assert samples[0] == samples[1] != samples[2]
    assert len(script.read_rows(path, 99, 1)) == 50
    with pytest.raises(SystemExit, match="row 1 has no 'question'"):
        script.read_rows(Path(write(path, [{"answer": "A"}])), None, 0)


def test_wilson_interval() -> None:
    """Against published values: 0 of 10, 1 of 1, and the card's 28% of 150."""
    rate = load_script("change_rates").Rate
    assert rate(0, 10).interval == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert rate(1, 1).interval == pytest.approx((0.2065, 1.0), abs=1e-4)
    assert rate(42, 150).interval == pytest.approx((0.2144, 0.3567), abs=1e-4)
    assert str(rate(0, 0)) == "-"


def test_load_measures_fresh_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = load_script("load")
    figures = script.measure("import", tmp_path, base_file.find_base())
    assert 0 < figures["import"] < figures["process"]
    assert 5e6 < figures["peak"] < 5e9
    assert len(script.ANSWER.split()) == 200
    monkeypatch.setattr(script, "MEASURE", "raise SystemExit('no such thing')")
    with pytest.raises(RuntimeError, match="no such thing"):
        script.measure("load", tmp_path, tmp_path)


def test_semantics(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "120")
    rows = [{"question": "How do I cook rice?", "answer": "Boil it. Let it rest."}]
    script = load_script("semantics")
    assert script.spoil("Boil it. Let it rest.", 7, "Idiot.") == (
        "Boil it [1]. Idiot. Let it rest [2]. See https://example.org/answers/7?lang=en for more."
    )
    script.main([write(tmp_path / "rows.jsonl", rows)])
    out = capsys.readouterr().out
    assert [name for name in ("as it is", "protect", "two earlier turns") if name in out]
    assert out.count("of 3 ") == 3
    assert out.count("of 1 ") == 3
