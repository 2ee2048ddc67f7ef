"""Queue, disconnects, metrics, and the end of the process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families
from typer.testing import CliRunner

from aligner_integrations.cli.app import app as command
from aligner_integrations.errors import MissingExtraError
from aligner_integrations.gates import CorrectWhen
from aligner_integrations.step import CorrectionStep
from tests.server.conftest import Served, ask
from tests.server.starting import run_serve
from tests.server.upstream import FakeUpstream, serving, wait_for


class Asking:
    """A request in a thread."""

    def __init__(self, served: Served, **body: Any) -> None:
        self.response: httpx.Response | None = None
        self._thread = threading.Thread(target=self._run, args=[served, body])
        self._thread.start()

    def _run(self, served: Served, body: dict[str, Any]) -> None:
        self.response = served.post(body)

    def wait(self) -> httpx.Response:
        self._thread.join(20)
        assert self.response is not None
        return self.response


@pytest.mark.parametrize("stream", [False, True])
def test_queue_is_bounded(
    serve: Callable[..., Served], upstream: FakeUpstream, stream: bool
) -> None:
    served = serve(max_concurrent=1, max_waiting=1)
    served.engine.hold = True
    admission = served.gateway.admission
    asking = [Asking(served, stream=stream)]
    wait_for(lambda: admission.working == 1)
    asking.append(Asking(served, stream=stream))
    wait_for(lambda: admission.waiting == 1)
    refused = served.post({"stream": stream})
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.json()["error"]["code"] == "queue_full"
    text = httpx.get(f"{served.url}/metrics").text
    for line in ("in_flight 1.0", "waiting 1.0"):
        assert f"aligner_requests_{line}" in text
    assert "aligner_queue_rejected_total 1.0" in text
    served.engine.hold = False
    assert [one.wait().status_code for one in asking] == [200, 200]
    wait_for(lambda: admission.idle)


def send(served: Served, stream: bool) -> socket.socket:
    """A request by hand, on a connection that can be closed at any time."""
    body = json.dumps(ask(stream=stream)).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\n"
    head += f"content-length: {len(body)}\r\n"
    connection = socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2])))
    connection.sendall(f"{head}content-type: application/json\r\n\r\n".encode() + body)
    return connection


@pytest.mark.parametrize("stream", [False, True])
def test_disconnect_cancels_the_upstream(
    serve: Callable[..., Served], upstream: FakeUpstream, stream: bool
) -> None:
    upstream.hang = True
    served = serve()
    connection = send(served, stream)
    assert upstream.arrived.wait(10)
    connection.close()
    assert upstream.gone.wait(10)
    wait_for(lambda: served.gateway.admission.idle)
    assert not served.engine.jobs


@pytest.mark.parametrize("stream", [False, True])
def test_disconnect_cancels_the_correction(
    serve: Callable[..., Served], upstream: FakeUpstream, stream: bool
) -> None:
    served = serve()
    served.engine.hold = True
    connection = send(served, stream)
    wait_for(lambda: served.engine.jobs)
    connection.close()
    wait_for(lambda: served.engine.jobs[0].cancelled)
    wait_for(lambda: served.gateway.admission.idle)


def test_disconnect_within_the_request_is_no_failure(
    serve: Callable[..., Served], upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    served = serve()
    with socket.create_connection(("127.0.0.1", int(served.url.rpartition(":")[2]))) as connection:
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 100\r\n"
        connection.sendall(f"{head}content-type: application/json\r\n\r\n{{".encode())
    figures = f"{served.url}/metrics"
    gone = 'aligner_requests_total{route="/v1/chat/completions",status="499"} 1.0'
    wait_for(lambda: gone in httpx.get(figures).text)
    assert "aligner_failures_total{" not in httpx.get(figures).text
    assert not [record for record in caplog.records if record.levelname == "ERROR"]
    assert not upstream.requests


def test_disconnect_while_waiting_leaves_the_queue(
    serve: Callable[..., Served], upstream: FakeUpstream
) -> None:
    served = serve(max_concurrent=1, max_waiting=1)
    served.engine.hold = True
    first = Asking(served)
    wait_for(lambda: served.engine.jobs)
    connection = send(served, stream=False)
    wait_for(lambda: served.gateway.admission.waiting == 1)
    connection.close()
    wait_for(lambda: served.gateway.admission.waiting == 0)
    served.engine.hold = False
    assert first.wait().status_code == 200
    wait_for(lambda: served.gateway.admission.idle)
    assert len(upstream.requests) == 1


def test_metrics(serve: Callable[..., Served], upstream: FakeUpstream) -> None:
    served = serve()
    for body in ({}, {"stream": True}, {"response_format": {"type": "json_object"}}):
        served.post(body)
    httpx.get(f"{served.url}/nowhere?key=secret")
    served.post(b"{")
    wait_for(lambda: served.gateway.admission.idle)
    response = httpx.get(f"{served.url}/metrics")
    assert response.headers["content-type"].startswith("text/plain; version=0.0.4")
    values = {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(response.text)
        for sample in family.samples
    }
    assert values["aligner_requests_total", "/v1/chat/completions", "200"] == 3
    assert values["aligner_requests_total", "404", "other"] == 1
    assert values["aligner_corrections_total", "changed"] == 2
    assert values["aligner_corrections_total", "skipped_response_format"] == 1
    assert values["aligner_tokens_total", "output"] == 8
    assert values["aligner_upstream_seconds_count",] == 3
    assert values["aligner_correction_seconds_count",] == 2
    assert values["aligner_failures_total", "not_json"] == 1
    assert "secret" not in response.text


def test_mounted_in_another_application(
    serve: Callable[..., Served], upstream: FakeUpstream
) -> None:
    """Its start is not told to it there, so the first request begins the loading."""
    served = serve()
    outer = FastAPI()
    from aligner_integrations.server import create_app

    outer.mount("/aligned", create_app(served.gateway.settings, served.gateway.step))
    with serving(outer) as url:
        wait_for(lambda: httpx.get(f"{url}/aligned/health").status_code == 200)
        response = httpx.post(f"{url}/aligned/v1/chat/completions", json=ask())
        assert response.json()["choices"][0]["message"]["content"] == "Eggs?: fine"


class Process:
    """``aligner serve`` as a process of its own."""

    def __init__(self, directory: Path, upstream: str, *options: str) -> None:
        line = [sys.executable, "-c", "from aligner_integrations.cli import main; main()"]
        line += ["serve", "--upstream", upstream, "--aligner", str(directory), "--device", "cpu"]
        self.process = subprocess.Popen(  # noqa: S603 - our own command
            [*line, "--port", "0", "--model", "m", *options],
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        self.log = ""
        self.url = ""
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.log += line
            if "listening on " in line:
                self.url = line.split()[-1]

    def is_ready(self) -> bool:
        assert self.process.poll() is None, self.log
        return bool(self.url) and self.health().status_code == 200

    def health(self) -> httpx.Response:
        try:
            return httpx.get(f"{self.url}/health")
        except httpx.TransportError:
            return httpx.Response(0)

    def wait(self) -> int:
        try:
            return self.process.wait(20)
        finally:
            self.process.kill()
            self._reader.join(5)
            assert self.process.stderr is not None
            self.process.stderr.close()


def read_text(response: httpx.Response) -> str:
    """A completion's text, streamed or not."""
    if not response.headers["content-type"].startswith("text/event-stream"):
        return str(response.json()["choices"][0]["message"]["content"])
    events = [line[6:] for line in response.text.splitlines() if line.startswith("data: {")]
    deltas = [json.loads(event)["choices"][0]["delta"] for event in events]
    return "".join(delta.get("content", "") for delta in deltas)


def test_sigterm_ends_running_requests_first(
    upstream_server: tuple[FakeUpstream, str],
    upstream: FakeUpstream,
    tiny_model_dir: Callable[..., Path],
) -> None:
    directory = tiny_model_dir(prompt="aligner-smol", writes="Cool water, 😀 kindly.")
    process = Process(directory, upstream_server[1], "--api-key", "k-1", "--upstream-key", "k-2")
    try:
        wait_for(process.is_ready, 60)
        served = Served(process.url, None)  # type: ignore[arg-type]
        upstream.delay = 0.3
        bodies = [{"stream": False}, {"stream": True}]
        headers = {"authorization": "Bearer k-1"}
        responses: list[httpx.Response] = []
        threads = [
            threading.Thread(
                target=lambda body=body: responses.append(served.post(body, headers=headers))
            )
            for body in bodies
        ]
        for thread in threads:
            thread.start()
        wait_for(lambda: len(upstream.requests) == 2)
        process.process.send_signal(signal.SIGTERM)
        wait_for(lambda: process.health().status_code == 503)
        late = served.post({}, headers=headers)
        assert (late.status_code, late.json()["error"]["code"]) == (503, "shutting_down")
        for thread in threads:
            thread.join(20)
        assert [response.status_code for response in responses] == [200, 200]
        assert {read_text(response) for response in responses} == {"Cool water, 😀 kindly."}
        assert all("minutes" not in r.text for r in responses)
    finally:
        if process.process.poll() is None:
            process.process.send_signal(signal.SIGTERM)
        code = process.wait()
    assert code == 0, process.log
    assert "k-1" not in process.log
    assert "k-2" not in process.log
    assert "POST /v1/chat/completions 200" in process.log


def test_grace_ends(
    upstream_server: tuple[FakeUpstream, str],
    upstream: FakeUpstream,
    tiny_model_dir: Callable[..., Path],
) -> None:
    """A request that does not end within the grace time is cut off, and its upstream told."""
    directory = tiny_model_dir(prompt="aligner-smol")
    process = Process(directory, upstream_server[1], "--grace", "0.2")
    try:
        wait_for(process.is_ready, 60)
        upstream.hang = True
        connection = send(Served(process.url, None), stream=True)  # type: ignore[arg-type]
        assert upstream.arrived.wait(10)
        process.process.send_signal(signal.SIGINT)
    finally:
        code = process.wait()
    connection.close()
    assert code == 0, process.log
    assert upstream.gone.wait(5)


def test_command_errors_are_one_line(
    upstream_server: tuple[FakeUpstream, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = Process(tmp_path / "nothing", upstream_server[1])
    assert missing.wait() == 1
    lines = [line for line in missing.log.splitlines() if line.startswith("aligner: ")]
    assert len(lines) == 1
    assert "nothing" in lines[0]
    assert "Traceback" not in missing.log

    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name)
    )
    result = CliRunner().invoke(command, ["serve", "--upstream", "http://127.0.0.1:1/v1"])
    assert isinstance(result.exception, MissingExtraError)
    assert "pip install 'aligner-integrations[server]'" in str(result.exception)


def test_taken_port(upstream_server: tuple[FakeUpstream, str]) -> None:
    port = upstream_server[1].split(":")[2].partition("/")[0]
    line = ["serve", "--upstream", upstream_server[1], "--port", port]
    result = CliRunner().invoke(command, line)
    assert "can't be listened on" in str(result.exception)


@pytest.mark.parametrize("option", [["--history", "some"], ["--on-error", "x"]])
def test_options_are_checked(option: list[str]) -> None:
    line = ["serve", "--upstream", "http://127.0.0.1:1/v1", *option]
    result = CliRunner().invoke(command, line)
    assert option[1] in str(result.exception)


def test_step_is_used(serve: Callable[..., Served], upstream: FakeUpstream) -> None:
    served = serve(step={"max_latency": 0.1})
    assert isinstance(served.gateway.step, CorrectionStep)
    served.engine.hold = True
    assert served.post().json()["error"]["code"] == "correction_timeout"
    served.engine.hold = False


def test_options_reach_the_gateway(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "--upstream http://127.0.0.1:1/v1 -m m --history all --on-error refuse --no-page"
    line += " --protect code --protect urls --max-latency 3 --max-waiting 0 --max-body 10"
    line += " --no-pass-through --longer-than 9 --tag public --tag web"
    variables = {"ALIGNER_API_KEYS": "one two", "ALIGNER_UPSTREAM_KEY": "up"}
    result, app = run_serve(monkeypatch, line.split(), variables)
    assert result.exit_code == 0, result.exception
    settings, step = app.state.gateway.settings, app.state.gateway.step
    assert (settings.api_keys, settings.upstream_key) == (("one", "two"), "up")
    assert (settings.model, settings.history, settings.page) == ("m", "all", False)
    assert (settings.max_waiting, settings.max_body) == (0, 10)
    assert (step.on_error, list(step.protect), step.max_latency) == ("refuse", ["code", "urls"], 3)
    assert step.model == "aligner-smol"
    assert step.options.pass_through == ()
    assert step.correct_when == CorrectWhen(longer_than=9, tags=("public", "web"))


@pytest.mark.parametrize("host", ["0.0.0.0", "127.0.0.1"])  # noqa: S104 - not listened on
def test_open_gateway_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, host: str
) -> None:
    result, _ = run_serve(monkeypatch, ["--upstream", "http://127.0.0.1:1/v1", "--host", host])
    assert result.exit_code == 0
    assert ("set --api-key" in caplog.text) == (host == "0.0.0.0")  # noqa: S104
