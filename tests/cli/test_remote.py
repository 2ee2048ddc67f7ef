"""Commands whose aligner runs on a server."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest
from typer.testing import CliRunner, Result

from aligner_integrations.cli.app import app
from aligner_integrations.errors import ConfigurationError
from tests.engines.faulty import drop_midway, run_server, status
from tests.otel import Telemetry, telemetry
from tests.server.starting import run_serve
from tests.server.upstream import FakeUpstream, serving, wait_for

__all__ = ["telemetry"]  # a fixture

GONE = "http://127.0.0.1:1/v1"  # nobody listens there


def run(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_whole_file_by_way_of_a_server(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": f"answer {i}"} for i in range(40)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["correct", "-i", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--no-progress"]
    line += ["-m", "served", "--tokenizer", "aligner-smol", "--batch-size", 5]
    with run_server(drop_midway, status(503), status(429), pace=0.02) as server:
        result = run(*line, "--server", GONE, "--server", server.url)
        assert result.exit_code == 0, result.exception
        assert {request.body["model"] for request in server.requests} == {"served"}
        assert 1 < server.most <= 5
    out = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["correction"] for row in out] == [f"answer {i}!" for i in range(40)]


def test_a_server_that_is_away_fails_no_row(tmp_path: Path) -> None:
    rows = [{"question": f"q{i}", "answer": f"answer {i}"} for i in range(20)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    line = ["correct", "-i", tmp_path / "in.jsonl", "-o", tmp_path / "out.jsonl", "--no-progress"]
    refused = run(*line, "--server", GONE)
    assert refused.exit_code == 1
    assert "did not answer" in str(refused.exception)
    with run_server() as server:
        assert run(*line, "--server", server.url).exit_code == 0
    assert len((tmp_path / "out.jsonl").read_text().splitlines()) == 20
    assert not (tmp_path / "out.jsonl.failed.jsonl").exists()


def test_a_gateway_whose_aligner_is_on_a_server(
    monkeypatch: pytest.MonkeyPatch, telemetry: Telemetry
) -> None:
    upstream = FakeUpstream()
    with serving(upstream.app()) as url, run_server() as server:
        line = ["--upstream", f"{url}/v1", "--aligner-server", server.url]
        line += ["--aligner", "served", "--tokenizer", "aligner-smol", "--trace-aligner"]
        result, made = run_serve(monkeypatch, line)
        assert result.exit_code == 0
        with serving(made) as gateway:
            wait_for(lambda: httpx.get(f"{gateway}/health").status_code == 200)
            body = {"model": "m", "messages": [{"role": "user", "content": "Eggs?"}]}
            trace = "4bf92f3577b34da6a3ce929d0e0e4736"
            answer = httpx.post(
                f"{gateway}/v1/chat/completions",
                json=body,
                headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"},
            ).json()
            assert answer["choices"][0]["message"]["content"] == "Boil them for 8 minutes.!"
            assert trace in server.requests[0].headers["traceparent"]
            stream = httpx.post(f"{gateway}/v1/chat/completions", json=body | {"stream": True})
            assert '"!"' in stream.text
            assert [request.body["model"] for request in server.requests] == ["served"] * 2


@pytest.mark.parametrize(
    ("options", "named"),
    [
        (["--tokenizer", "t"], "--tokenizer t"),
        (["--server", GONE, "--device", "cuda"], "--device cuda"),
        (["--server", GONE, "--dtype", "bfloat16"], "--dtype bfloat16"),
    ],
)
def test_options_that_have_no_meaning(options: list[str], named: str) -> None:
    result = run("correct", "-q", "Q", "-a", "A", *options)
    assert isinstance(result.exception, ConfigurationError)
    assert named in str(result.exception)
    as_gateway = ["--aligner-server" if one == "--server" else one for one in options]
    result = run("serve", "--upstream", GONE, *as_gateway)
    assert named in str(result.exception)


def test_a_trace_needs_a_server_to_go_on_to() -> None:
    result = run("serve", "--upstream", GONE, "--trace-aligner")
    assert "--trace-aligner is for an aligner on a server" in str(result.exception)
