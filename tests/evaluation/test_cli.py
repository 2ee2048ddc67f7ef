"""``aligner evaluate``: what it prints, what it says of errors, its exit code."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from aligner_integrations.cli.app import app

MAKE_LLM = "tests.evaluation.scripted.make_logging_llm"


@pytest.fixture
def call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Result]:
    """Write a config, run the command."""
    monkeypatch.setenv("COLUMNS", "150")

    def call(*arguments: str, **told: Any) -> Result:
        rows = [
            {"question": f"Q{n}?", "answer": f"{n}", "references": [f"A better answer to Q{n}."]}
            for n in range(4)
        ]
        source = tmp_path / "rows.jsonl"
        source.write_text("".join(json.dumps(row) + "\n" for row in rows))
        options = {"path": str(tmp_path / "log.jsonl")}
        config = {
            "datasets": [{"source": str(source), "name": "mine"}],
            "output": str(tmp_path / "out"),
            "aligners": ["none", {"name": "refined", "refine": MAKE_LLM, "options": options}],
            "judges": ["reference"],
            "probes": [],
            **told,
        }
        path = tmp_path / "config.yaml"
        path.write_text(yaml.safe_dump(config))
        return CliRunner().invoke(app, ["evaluate", str(path), *arguments])

    return call


def test_tables(call: Callable[..., Result], tmp_path: Path) -> None:
    done = call("--no-progress")
    assert done.exit_code == 0, done.output
    lines = [line.split() for line in done.output.splitlines()]
    assert ["│", "mine", "│", "refined", "│", "references", "│", "exact", "│", "+100.0"] in [
        line[:10] for line in lines
    ]
    assert not [line for line in lines if "none" in line and "references" in line]  # all ties
    assert "4 failed" not in done.output
    assert "8 answers evaluated" in done.output
    assert done.output.splitlines()[-1] == str(tmp_path / "out" / "report.html")


def test_limit_output_and_bars(call: Callable[..., Result], tmp_path: Path) -> None:
    done = call("--limit", "2", "--output", str(tmp_path / "other"))
    assert "4 answers evaluated" in done.output
    assert "corrections of refined" in done.stderr
    assert (tmp_path / "other" / "report.html").is_file()
    assert not (tmp_path / "out").exists()
    # Those two are known in a run of all.
    call("--no-progress", "--output", str(tmp_path / "other"))
    asked = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert len(asked) == 2 * 4
    call("--no-progress", "--no-resume", "--output", str(tmp_path / "other"))
    assert len((tmp_path / "log.jsonl").read_text().splitlines()) == 2 * 2 * 4


def test_nothing_could_be_evaluated(call: Callable[..., Result], tmp_path: Path) -> None:
    options = {"path": str(tmp_path)}  # a directory: no line can be written to it
    upstream = {"name": "broken", "model": MAKE_LLM, "options": options}
    done = call("--no-progress", upstreams=[upstream], aligners=["none"])
    assert done.exit_code == 1
    assert "0 answers evaluated" in done.output
    assert "4 failed; run again to retry them" in done.output
    assert "IsADirectoryError" in done.output


def test_errors_are_named(call: Callable[..., Result], tmp_path: Path) -> None:
    done = call(aligners=["none", "none"])
    assert "2 aligners are called 'none'" in str(done.exception)
    done = call(upstreams=[{"name": "x", "model": "no.such.thing"}])
    assert "the chat model 'no.such.thing' can't be used: No module" in str(done.exception)
