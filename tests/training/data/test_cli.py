"""The ``aligner data`` commands."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import typer.main
from click.testing import Result
from typer.testing import CliRunner

from aligner_integrations.cli.app import app
from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.training.data import read_triples
from tests.training.data.chat_models import Scripted
from tests.training.data.conftest import Write

ROW = {"question": "Eggs?", "answer": "Boil them, fool.", "correction": "Boil them."}
PAIR = {"prompt": "Rice?", "chosen": "Cook it well.", "rejected": "No."}


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(app, ["data", *map(str, arguments)])


def test_validate(write: Write) -> None:
    good, bad = write([ROW]), write([ROW, {**ROW, "answer": ""}, b"{"], "bad.jsonl")
    result = run("validate", good)
    assert (result.exit_code, result.output) == (0, f"{good}: 1 of 1 rows are sound\n")
    result = run("validate", good, bad, "no.jsonl", "--max-problems", 1)
    assert result.exit_code == 1
    lines = result.output.splitlines()
    assert lines[1] == f"{bad}:2: empty: 'answer' is ''; leave the row out"
    assert lines[2] == f"{bad}: ... and 1 more problems"
    assert lines[3] == f"{bad}: 1 of 3 rows are sound; 1 empty; 1 invalid JSON"
    assert lines[4].startswith("no.jsonl: no such file")
    report = json.loads(run("validate", bad, "--json").output)
    assert report[str(bad)]["counts"] == {"empty": 1, "invalid JSON": 1}


def test_stats(write: Write, tmp_path: Path) -> None:
    paths = tmp_path / "stats.json", tmp_path / "stats.png"
    result = run("stats", write([ROW]), "--json", paths[0], "--png", paths[1])
    assert result.exit_code == 0
    assert "similar" in result.output
    assert json.loads(paths[0].read_text())["total"]["rows"] == 1
    assert paths[1].stat().st_size > 10_000


def test_the_documented_table_is_what_is_printed(monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(__file__).parents[3]
    monkeypatch.chdir(root)
    monkeypatch.setenv("COLUMNS", "80")
    printed = run("stats", "examples/training/edits.jsonl").output.splitlines()
    table = "\n".join(line.rstrip() for line in printed if line.strip())
    assert table in (root / "docs" / "data.md").read_text(encoding="utf-8")


def test_every_option_is_documented() -> None:
    page = (Path(__file__).parents[3] / "docs" / "cli.md").read_text(encoding="utf-8")
    section = page.partition("\n## aligner data\n")[2].partition("\n## ")[0]
    group: Any = typer.main.get_command(app)
    for name, command in group.commands["data"].commands.items():
        for parameter in command.params:
            for option in [*parameter.opts, *parameter.secondary_opts]:
                assert not option.startswith("-") or f"`{option}`" in section, (name, option)


def test_stats_by_field_and_with_tokens(write: Write, tmp_path: Path, tiny_model_dir: Any) -> None:
    path = write([{**ROW, "source": "mine"}, {**ROW, "answer": ""}])
    out = tmp_path / "stats.json"
    result = run(
        *("stats", path, "--by", "source", "--skip-broken"),
        *("--tokenizer", tiny_model_dir(prompt="aligner-smol"), "--json", out),
    )
    assert result.exit_code == 0
    figures = json.loads(out.read_text())["kinds"]["mine"]
    assert figures["answer_tokens"]["max"] > figures["correction_tokens"]["max"] > 0


def test_broken_rows_end_every_command(write: Write, tmp_path: Path) -> None:
    path = write([ROW, b"{"])
    for command in (
        ("stats",),
        ("duplicates",),
        ("split", "--train", tmp_path / "t", "--eval", tmp_path / "e"),
        ("convert", "--out", tmp_path / "o"),
        ("spoil", "--out", tmp_path / "o"),
    ):
        result = run(command[0], path, *command[1:])
        assert isinstance(result.exception, DataError), command
        assert str(result.exception).startswith(f"{path}:2: invalid JSON")
    assert sorted(child.name for child in tmp_path.iterdir()) == ["data.jsonl"]


def test_duplicates(write: Write, tmp_path: Path) -> None:
    train = write([ROW, ROW, PAIR | {"question": "x"} | ROW | {"answer": "No."}], "train.jsonl")
    clean = write([{**ROW, "question": "Rice?"}], "clean.jsonl")
    leaky = write([{**ROW, "question": "EGGS"}], "leaky.jsonl")
    result = run("duplicates", train, "--against", clean)
    assert result.exit_code == 0
    assert f"{train}:2 ~ {train}:1 (1.00): Eggs? Boil them, fool." in result.output
    assert "1 near-duplicates among 3 rows\n" in result.output
    out = tmp_path / "found.json"
    result = run("duplicates", train, "--against", leaky, "--json", out, "--most", 0)
    assert result.exit_code == 1
    assert "1 leaks among 1 rows" in result.output
    assert json.loads(out.read_text())["leaks"][0]["place"] == f"{leaky}:1"


def test_split(write: Write, tmp_path: Path) -> None:
    path = write([{**ROW, "question": f"What is thing{n}?"} for n in range(100)])
    train, held = tmp_path / "train.jsonl", tmp_path / "eval.parquet"
    result = run("split", path, "--train", train, "--eval", held, "--share", 0.2)
    assert result.exit_code == 0
    counts = len(list(read_triples(train))), len(list(read_triples(held)))
    assert sum(counts) == 100
    assert 5 < counts[1] < 40
    assert result.output.splitlines()[0] == f"{train}: {counts[0]} rows"
    assert run("duplicates", train, "--against", held).exit_code == 0


def test_convert(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    result = run("convert", write([PAIR]), "-o", out, "--identities", 1)
    assert result.output == f"{out}: 2 rows\n"
    assert [triple.is_identity for triple in read_triples(out)] == [False, True]
    result = run("convert", write([PAIR]), "-o", out, "--max-length-ratio", 2)
    assert result.output == f"{out}: 0 rows\n"
    result = run("convert", write([PAIR]), "-o", out, "--turns", "some")
    assert isinstance(result.exception, ConfigurationError)


def test_spoil(write: Write, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    good = write([{"question": "Eggs?", "answer": "Boil them. Cool them."}])
    mine = write([{"kind": "rude", "text": "Fool."}], "defects.jsonl")
    result = run("spoil", good, "-o", out, "--defects", mine, "--kind", "rude", "--copies")
    assert result.output == f"{out}: 2 rows\n"
    spoiled, copy = read_triples(out)
    assert "Fool." in spoiled.answer
    assert spoiled.correction == copy.answer == copy.correction == "Boil them. Cool them."


def test_sample_and_correct(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def init(name: str, **settings: Any) -> Scripted:
        asked.append((name, settings))
        return Scripted(says=lambda text: "<unchanged/>" if "<answer" in text else "Boil them.")

    monkeypatch.setattr("langchain.chat_models.init_chat_model", init)
    answers, triples = tmp_path / "answers.jsonl", tmp_path / "triples.jsonl"
    questions = write([{"question": "Eggs?"}, {"question": "Rice?"}])
    base = ("--llm", "openai:m", "--base-url", "http://localhost:1/v1", "--no-progress")
    result = run("sample", questions, "-o", answers, *base, "--temperature", 1, "--samples", 2)
    assert result.output == f"{answers}: 4 answers written, 0 were there, 0 failed\n"
    result = run("sample", questions, "-o", answers, *base, "--samples", 2)
    assert result.output == f"{answers}: 0 answers written, 4 were there, 0 failed\n"
    guidance = tmp_path / "guidance.txt"
    guidance.write_text("Be kind.")
    result = run("correct", answers, "-o", triples, *base, "--guidance", guidance)
    assert result.output == f"{triples}: 2 corrections written, 0 were there, 0 failed\n"
    assert len(list(read_triples(triples))) == 2
    assert asked[0] == ("openai:m", {"base_url": "http://localhost:1/v1", "temperature": 1.0})


def test_questions_without_answers_can_be_compared(write: Write) -> None:
    train, prompts = write([ROW]), write([{"prompt": "eggs"}], "prompts.jsonl")
    result = run("duplicates", train, "--against", prompts, "--against-layout", "questions")
    assert result.exit_code == 1
    assert "1 leaks among 1 rows" in result.output


def test_failed_rows_are_an_exit_code(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "langchain.chat_models.init_chat_model", lambda *_, **__: Scripted(says=lambda _: "")
    )
    result = run("sample", write([{"question": "Eggs?"}]), "-o", tmp_path / "a", "--llm", "x:y")
    assert result.exit_code == 1
    assert "1 failed" in result.output


def test_models_that_can_not_be_had(
    write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("OPENAI_API_KEY", raising=False)
    for name in ("nobody:model", "openai:gpt-4o"):
        result = run("sample", write([{"question": "a"}]), "-o", tmp_path / "a", "--llm", name)
        assert isinstance(result.exception, ConfigurationError), result.output
        assert f"the chat model {name!r} can't be used: " in str(result.exception)
