"""Request ids, and the log: each line of a request has its id, and none has anything private."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner

from aligner_integrations import __version__
from aligner_integrations.cli.app import app as command
from aligner_integrations.errors import CorrectionError, MissingExtraError
from aligner_integrations.server.logs import RequestIdFilter, make_handler
from aligner_integrations.telemetry.export import make_resource
from tests.otel import Telemetry
from tests.server.conftest import Served, ask
from tests.server.upstream import FakeUpstream, wait_for

Serve = Callable[..., Served]
CANARY = "XyzzyCanary"
OWN_ID = re.compile("[0-9a-f]{32}")
BY_STREAM = pytest.mark.parametrize("stream", [False, True])


class Log:
    """What a handler of `make_handler` writes."""

    def __init__(self) -> None:
        self.stream = io.StringIO()

    @property
    def lines(self) -> list[str]:
        return self.stream.getvalue().splitlines()

    @property
    def objects(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.lines]

    def wait_for(self, count: int) -> list[dict[str, Any]]:
        """The lines of requests for completions; they are written after the responses."""

        def find() -> list[dict[str, Any]]:
            return [line for line in self.objects if line.get("path") == "/v1/chat/completions"]

        wait_for(lambda: len(find()) >= count, 5)
        return find()


@pytest.fixture
def log_as() -> Iterator[Callable[[str], Log]]:
    root, handlers, level = logging.getLogger(), list[logging.Handler](), logging.getLogger().level

    def start(kind: str) -> Log:
        log, handler = Log(), make_handler(kind)
        assert isinstance(handler, logging.StreamHandler)
        handler.setStream(log.stream)
        handlers.append(handler)
        root.addHandler(handler)
        root.setLevel(logging.INFO)
        return log

    yield start
    root.setLevel(level)
    for handler in handlers:
        root.removeHandler(handler)


@BY_STREAM
@pytest.mark.parametrize(
    ("given", "kept"),
    [
        ("req-7_a.b:c/d+e=", True),
        ("x" * 64, True),
        ("x" * 65, False),
        ("two words", False),
        ('"}', False),
        ("", False),
        (None, False),
    ],
)
def test_ids(
    serve: Serve, upstream: FakeUpstream, stream: bool, given: str | None, kept: bool
) -> None:
    headers = {} if given is None else {"x-request-id": given}
    response = serve().post({"stream": stream}, headers=headers)
    (told,) = response.headers.get_list("x-request-id")
    assert told == given if kept else OWN_ID.fullmatch(told)
    assert upstream.headers[0]["x-request-id"] == told
    if not stream:
        assert response.headers["x-upstream-request-id"] == "req-1"


def test_ids_of_errors(serve: Serve, upstream: FakeUpstream) -> None:
    served = serve()
    sent = {"x-request-id": "mine"}
    answers = [
        served.post(b"{", headers={**sent, "content-type": "application/json"}),
        httpx.get(f"{served.url}/nothing", headers=sent),
    ]
    served.engine.error = CorrectionError("no")
    answers += [served.post(headers=sent), served.post({"stream": True}, headers=sent)]
    for answer in answers:
        assert answer.headers["x-request-id"] == "mine"
        body = answer.text.removeprefix("data: ") if "data: " in answer.text else answer.text
        assert '"request_id":"mine"' in body
    upstream.error = (429, {"error": {"message": "slow down"}})
    told = served.post(headers=sent)
    assert told.json() == upstream.error[1]  # the upstream's own words
    assert told.headers["x-request-id"] == "mine"


@BY_STREAM
def test_json_lines(serve: Serve, log_as: Callable[[str], Log], stream: bool) -> None:
    log = log_as("json")
    served = serve()
    served.post({"stream": stream}, headers={"x-request-id": "mine"})
    (line,) = log.wait_for(1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", line.pop("time"))
    assert 0 < line.pop("upstream_seconds") < line.pop("seconds") < 20
    line.pop("message")
    expected = {
        "level": "INFO",
        "logger": "aligner_integrations.server.observe",
        "request_id": "mine",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 200,
        "outcome": "changed",
        "prompt_tokens": 10,
        "output_tokens": 4,
        "copied_tokens": 2,
    }
    if not stream:
        expected["upstream_request_id"] = "req-1"
    assert line == expected


def test_text_lines(serve: Serve, log_as: Callable[[str], Log]) -> None:
    log = log_as("text")
    served = serve()
    served.post({"n": 2}, headers={"x-request-id": "mine"})
    served.post({"response_format": {"type": "json_object"}}, headers={"x-request-id": "json"})
    served.engine.error = CorrectionError("no")
    served.post(headers={"x-request-id": "failed"})
    wait_for(lambda: "[failed]" in log.stream.getvalue(), 5)
    text = log.stream.getvalue()
    start = r"INFO \[{}\] POST /v1/chat/completions {} \d+\.\d{{3}} s {}\n"
    assert re.search(start.format("mine", 200, r"changed 20\+8 tokens"), text)
    assert re.search(start.format("json", 200, "skipped_response_format"), text)
    assert re.search(start.format("failed", 500, "correction_failed"), text)


def test_every_line_of_a_request_has_its_id(serve: Serve, log_as: Callable[[str], Log]) -> None:
    """Those that the core writes, too, while many requests run."""
    log = log_as("json")
    served = serve(step={"on_error": "refuse"})
    served.engine.error = CorrectionError(CANARY)

    def post(number: int) -> None:
        body = {"stream": bool(number % 2)}
        assert served.post(body, headers={"x-request-id": f"r{number}"}).status_code == 200

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(post, range(8)))
    told = log.wait_for(8)
    warned = [line for line in log.objects if "not corrected" in line["message"]]
    for lines in (told, warned):
        assert sorted(line["request_id"] for line in lines) == [f"r{n}" for n in range(8)]
    assert {line["message"] for line in warned} == {
        "not corrected, the caller gets 'refuse': CorrectionError"
    }
    assert {line["outcome"] for line in told} == {"refuse"}
    assert CANARY not in log.stream.getvalue()


def test_trace_ids(serve: Serve, log_as: Callable[[str], Log]) -> None:
    log, trace = log_as("json"), "4bf92f3577b34da6a3ce929d0e0e4736"
    served = serve()
    served.post()
    with Telemetry().set_up():
        served.post(headers={"traceparent": f"00-{trace}-00f067aa0ba902b7-01"})
        assert [line.get("trace_id") for line in log.wait_for(2)] == [None, trace]


@BY_STREAM
@pytest.mark.parametrize("kind", ["text", "json"])
def test_nothing_private_is_logged(
    serve: Serve,
    upstream: FakeUpstream,
    log_as: Callable[[str], Log],
    stream: bool,
    kind: str,
) -> None:
    log = log_as(kind)
    logging.getLogger("httpx").setLevel(logging.WARNING)  # as `aligner serve` does
    upstream.answers = [f"Answer {CANARY}"]
    served = serve(api_keys=(f"key-{CANARY}",), upstream_key=f"up-{CANARY}")
    headers = {
        "authorization": f"Bearer key-{CANARY}",
        "x-request-id": f"{CANARY} with a space",
        "cookie": CANARY,
        "user-agent": CANARY,
    }
    messages = [{"role": "user", "content": f"Question {CANARY}"}]
    url = f"{served.api}/chat/completions?key={CANARY}"
    body = ask(stream=stream, messages=messages)
    assert httpx.post(url, json=body, headers=headers, timeout=30).status_code == 200
    served.engine.error = RuntimeError(CANARY)
    httpx.post(url, json=body, headers=headers, timeout=30)
    upstream.error = (500, {"error": {"message": CANARY}})
    httpx.post(url, json=body, headers={**headers, "authorization": CANARY}, timeout=30)
    httpx.post(url, json=body, headers=headers, timeout=30)
    httpx.get(f"{served.url}/{CANARY}", headers=headers)
    wait_for(lambda: log.stream.getvalue().count("404") >= 1, 5)
    assert len(log.lines) >= 5
    assert CANARY not in log.stream.getvalue()


def test_lines_without_a_request() -> None:
    """The filter can go to any handler, and the formatter takes any record."""
    log, handler = Log(), make_handler("json")
    assert isinstance(handler, logging.StreamHandler)
    handler.setStream(log.stream)
    try:
        raise ValueError("no")
    except ValueError:
        record = logging.LogRecord("a", logging.ERROR, "", 1, "%s\n", ("é",), sys.exc_info())
    handler.handle(record)
    (line,) = log.objects
    assert line["message"] == "é\n"
    assert "request_id" not in line
    assert line["exception"].endswith("ValueError: no")
    plain = logging.LogRecord("a", logging.INFO, "", 1, "hi", (), None)
    assert RequestIdFilter().filter(plain)
    assert (plain.request_id, plain.trace_id) == ("-", "-")  # type: ignore[attr-defined]


def run(*options: str) -> Any:
    return CliRunner().invoke(command, ["serve", "--upstream", "http://127.0.0.1:1/v1", *options])


def test_log_format_must_be_known(monkeypatch: pytest.MonkeyPatch) -> None:
    error = run("--log-format", "xml").exception
    assert str(error) == "--log-format 'xml' must be text or json"


def test_missing_exporter_is_told_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    name = "opentelemetry.exporter.otlp.proto.http.metric_exporter"
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("aligner_integrations.server.run.GracefulServer.run", lambda _: None)
    error = run("--otel").exception
    assert isinstance(error, MissingExtraError)
    assert str(error).endswith("run: pip install 'aligner-integrations[otel]'")
    assert "\n" not in str(error)


EXPORT = """
import sys
from aligner_integrations.telemetry.export import start_export
from opentelemetry import metrics, trace
start_export("aligner-gateway")
with trace.get_tracer("a").start_as_current_span("span") as span:
    metrics.get_meter("a").create_counter("counter").add(1)
"""


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_SERVICE_NAME": "mine"},
        {"OTEL_RESOURCE_ATTRIBUTES": "service.name=mine,deployment.environment.name=test"},
    ],
)
def test_service_name(monkeypatch: pytest.MonkeyPatch, variables: dict[str, str]) -> None:
    for name in ("OTEL_SERVICE_NAME", "OTEL_RESOURCE_ATTRIBUTES"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told = make_resource("aligner-gateway").attributes
    assert told["service.name"] == ("mine" if variables else "aligner-gateway")
    assert told["service.version"] == __version__


def test_export_sends_by_otlp() -> None:
    """To where OpenTelemetry's own variable says, at the latest when the process ends."""
    from tests.collector import run_collector

    with run_collector() as collector:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": collector.url, "PATH": ""}
        script = [sys.executable, "-c", EXPORT]
        subprocess.run(script, env=variables, check=True)  # noqa: S603 - our own interpreter
    assert [span.name for span in collector.spans] == ["span"]
    assert "counter" in {metric.name for metric in collector.metrics}
