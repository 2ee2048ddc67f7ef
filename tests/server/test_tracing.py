"""The gateway's spans and metrics, end to end with OpenTelemetry's real SDK."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Any

import httpx
import pytest
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.trace import SpanKind, StatusCode
from starlette.types import ASGIApp

from aligner_integrations import Aligner
from aligner_integrations.errors import CorrectionError
from aligner_integrations.server import GatewaySettings, create_app
from aligner_integrations.step import CorrectionStep
from tests.otel import Telemetry, attributes, telemetry
from tests.server.conftest import ScriptedEngine, Served, ask
from tests.server.upstream import FakeUpstream, serving, wait_for

__all__ = ["telemetry"]  # a fixture

Serve = Callable[..., Served]
TRACE, PARENT = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
SENT = {"traceparent": f"00-{TRACE}-{PARENT}-01", "tracestate": "vendor=1", "baggage": "who=me"}
CANARY = "XyzzyCanary"
BY_STREAM = pytest.mark.parametrize("stream", [False, True])


def identify(span: ReadableSpan) -> tuple[str, str]:
    """Trace and parent, as headers spell them."""
    assert span.context is not None
    parent = f"{span.parent.span_id:016x}" if span.parent else ""
    return f"{span.context.trace_id:032x}", parent


def find(telemetry: Telemetry) -> tuple[ReadableSpan, ReadableSpan, ReadableSpan]:
    """The spans of one request: its own, the upstream's, the correction's."""
    (own,) = telemetry.wait_for_spans(1, "POST")
    (upstream,) = telemetry.wait_for_spans(1, "chat")
    (correction,) = telemetry.wait_for_spans(1)
    return own, upstream, correction


@BY_STREAM
def test_spans(serve: Serve, telemetry: Telemetry, stream: bool) -> None:
    served = serve(model="m")
    body = {"stream": stream, "stream_options": {"include_usage": True}}
    response = served.post(body, headers=SENT)
    assert response.status_code == 200
    own, upstream, correction = find(telemetry)
    assert identify(own) == (TRACE, PARENT)
    assert (own.name, own.kind) == ("POST /v1/chat/completions", SpanKind.SERVER)
    assert attributes(own) == {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "http.route": "/v1/chat/completions",
        "url.scheme": "http",
        "aligner.request.id": response.headers["x-request-id"],
        "aligner.outcome": "changed",
    }
    assert own.context is not None
    for span in (upstream, correction):
        assert identify(span) == (TRACE, f"{own.context.span_id:016x}")
    assert (upstream.name, upstream.kind) == ("chat m", SpanKind.CLIENT)
    told = attributes(upstream)
    assert told.pop("server.address") == "127.0.0.1"
    assert told.pop("server.port") > 0
    assert told == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m",
        "gen_ai.response.model": "m",
        "gen_ai.usage.input_tokens": 9,
        "gen_ai.usage.output_tokens": 5,
    }
    assert correction.name == "text_completion scripted"
    for span in (own, upstream, correction):
        assert span.status.status_code is StatusCode.UNSET
        # Not FastAPI's, which would tell queries and the messages of errors.
        assert span.instrumentation_scope is not None
        assert span.instrumentation_scope.name == "aligner_integrations"
    assert len(telemetry.exporter.get_finished_spans()) == 3


def test_metrics(serve: Serve, telemetry: Telemetry) -> None:
    served = serve(model="m")
    served.post()
    httpx.get(f"{served.url}/nothing/{CANARY}")
    telemetry.wait_for_spans(1, "GET")
    points = telemetry.points()
    told = {
        (attributes["http.response.status_code"], attributes.get("http.route")): count
        for attributes, _, count in points["http.server.request.duration"]
    }
    assert told == {(200, "/v1/chat/completions"): 1, (404, None): 1}
    models = {
        (attributes["gen_ai.operation.name"], attributes["gen_ai.request.model"])
        for attributes, _, _ in points["gen_ai.client.operation.duration"]
    }
    assert models == {("chat", "m"), ("text_completion", "scripted")}
    states = {
        attributes["aligner.state"] for attributes, _, _ in points["aligner.gateway.requests"]
    }
    assert states == {"working", "waiting"}
    assert CANARY not in telemetry.everything()


def test_working_and_waiting_requests(serve: Serve, telemetry: Telemetry) -> None:
    served = serve(max_concurrent=1)
    served.post()
    telemetry.wait_for_spans(1, "POST")
    before = count_states(telemetry)
    served.engine.hold = True
    threads = [threading.Thread(target=served.post) for _ in range(3)]
    for thread in threads:
        thread.start()
    wait_for(lambda: served.gateway.admission.waiting == 2)
    now = count_states(telemetry)
    served.engine.hold = False
    for thread in threads:
        thread.join()
    assert {state: now[state] - before[state] for state in now} == {"working": 1, "waiting": 2}


def count_states(telemetry: Telemetry) -> dict[str, float]:
    points = telemetry.points()["aligner.gateway.requests"]
    return {told["aligner.state"]: value for told, value, _ in points}


def test_models_that_clients_name_make_no_series(serve: Serve, telemetry: Telemetry) -> None:
    served = serve()
    for name in ("one", "two"):
        served.post({"model": name * 100})
    telemetry.wait_for_spans(2, "chat")
    assert all(len(span.name) <= len("chat ") + 80 for span in telemetry.spans("chat"))
    told = [a for a, _, _ in telemetry.points()["gen_ai.client.operation.duration"]]
    assert [
        a.get("gen_ai.request.model") for a in told if a["gen_ai.operation.name"] == "chat"
    ] == [None]


@BY_STREAM
@pytest.mark.parametrize("trace_upstream", [False, True])
def test_the_upstream_learns_the_trace_only_if_it_shall(
    serve: Serve,
    upstream: FakeUpstream,
    telemetry: Telemetry,
    stream: bool,
    trace_upstream: bool,
) -> None:
    serve(trace_upstream=trace_upstream).post({"stream": stream}, headers=SENT)
    (headers,) = upstream.headers
    assert "baggage" not in headers
    if not trace_upstream:
        assert not {"traceparent", "tracestate"} & set(headers)
        return
    (span,) = telemetry.wait_for_spans(1, "chat")
    assert span.context is not None
    assert headers["traceparent"] == f"00-{TRACE}-{span.context.span_id:016x}-01"
    assert headers["tracestate"] == "vendor=1"


@pytest.mark.parametrize("trace_upstream", [False, True])
def test_a_trace_goes_through_where_nobody_watches(
    serve: Serve, upstream: FakeUpstream, trace_upstream: bool
) -> None:
    assert serve(trace_upstream=trace_upstream).post(headers=SENT).status_code == 200
    headers = upstream.headers[0]
    for name in ("traceparent", "tracestate"):
        assert headers.get(name) == (SENT[name] if trace_upstream else None)


@pytest.mark.parametrize("given", ["", "00-zz", f"00-{'0' * 32}-{PARENT}-01", "x" * 5000])
def test_broken_traceparents(serve: Serve, telemetry: Telemetry, given: str) -> None:
    assert serve().post(headers={"traceparent": given}).status_code == 200
    (span,) = telemetry.wait_for_spans(1, "POST")
    assert span.parent is None
    assert span.kind is SpanKind.SERVER


@BY_STREAM
def test_failed_corrections(serve: Serve, telemetry: Telemetry, stream: bool) -> None:
    served = serve()
    served.engine.error = CorrectionError(f"failed at {CANARY}")
    served.post({"stream": stream})
    own, upstream, correction = find(telemetry)
    assert attributes(own)["error.type"] == "correction_failed"
    assert attributes(own)["http.response.status_code"] == (200 if stream else 500)
    assert own.status.status_code is StatusCode.ERROR
    assert upstream.status.status_code is StatusCode.UNSET
    assert attributes(correction)["error.type"] == "CorrectionError"
    assert CANARY not in telemetry.everything()


@BY_STREAM
def test_failed_upstreams(
    serve: Serve, upstream: FakeUpstream, telemetry: Telemetry, stream: bool
) -> None:
    upstream.error = (503, {"error": {"message": CANARY}})
    serve().post({"stream": stream})
    (own,), (asked,) = telemetry.wait_for_spans(1, "POST"), telemetry.wait_for_spans(1, "chat")
    assert attributes(own)["error.type"] == attributes(asked)["error.type"] == "upstream"
    assert asked.status.status_code is StatusCode.ERROR
    assert not telemetry.spans()
    assert CANARY not in telemetry.everything()


def test_upstream_streams_that_break_off(
    serve: Serve, upstream: FakeUpstream, telemetry: Telemetry
) -> None:
    upstream.raw = ['{"choices": [{"index": 0, "delta": {"content": "Boil"}}]}']
    serve().post({"stream": True})
    (own,), (asked,) = telemetry.wait_for_spans(1, "POST"), telemetry.wait_for_spans(1, "chat")
    assert attributes(own)["error.type"] == attributes(asked)["error.type"] == "upstream_broken"
    assert own.status.status_code is StatusCode.ERROR


@BY_STREAM
def test_clients_that_go_away(serve: Serve, telemetry: Telemetry, stream: bool) -> None:
    """All spans end, and nobody is to blame."""
    served = serve(keep_alive=0.02)
    served.engine.hold = True
    with (
        contextlib.suppress(httpx.ReadTimeout),
        httpx.stream(
            "POST", f"{served.api}/chat/completions", json=ask(stream=stream), timeout=0.5
        ) as response,
    ):
        for _ in response.iter_bytes():
            if served.engine.jobs:
                break
    own, upstream, correction = find(telemetry)
    assert attributes(correction)["aligner.outcome"] == "cancelled"
    for span in (own, upstream, correction):
        assert span.status.status_code is StatusCode.UNSET


async def test_requests_do_not_mix(serve: Serve, telemetry: Telemetry) -> None:
    served = serve()
    served.engine.hold = True
    traces = [f"{number:032x}" for number in range(1, 9)]
    async with httpx.AsyncClient(timeout=30) as client:
        posts = [
            client.post(
                f"{served.api}/chat/completions",
                json=ask(stream=bool(number % 2)),
                headers={"traceparent": f"00-{trace}-{PARENT}-01"},
            )
            for number, trace in enumerate(traces)
        ]
        asked = asyncio.gather(*posts)
        await asyncio.to_thread(wait_for, lambda: len(served.engine.jobs) == len(posts))
        served.engine.hold = False
        assert {response.status_code for response in await asked} == {200}
    own = {identify(s)[0]: s for s in telemetry.wait_for_spans(8, "POST")}
    assert set(own) == set(traces)
    for prefix in ("chat", "text_completion"):
        spans = telemetry.wait_for_spans(8, prefix)
        assert {identify(span)[0] for span in spans} == set(traces)
        for span in spans:
            parent = own[identify(span)[0]].context
            assert parent is not None
            assert identify(span)[1] == f"{parent.span_id:016x}"


def test_probes_make_no_spans(serve: Serve, telemetry: Telemetry) -> None:
    served = serve()
    for path in ("/health", "/metrics"):
        assert httpx.get(f"{served.url}{path}", headers=SENT).status_code == 200
    assert telemetry.exporter.get_finished_spans() == ()


@BY_STREAM
@pytest.mark.parametrize("n", [1, 2])
def test_nothing_private_is_told(
    serve: Serve, upstream: FakeUpstream, telemetry: Telemetry, stream: bool, n: int
) -> None:
    upstream.answers = [f"Answer {CANARY}"]
    served = serve(api_keys=(f"key-{CANARY}",))
    headers = {
        "authorization": f"Bearer key-{CANARY}",
        "x-request-id": f"{CANARY} with a space",
        "baggage": f"who={CANARY}",
        "user-agent": CANARY,
    }
    messages = [{"role": "user", "content": f"Question {CANARY}"}]
    body = {"stream": stream, "n": n, "messages": messages, "metadata": {"tag": CANARY}}
    url = f"{served.api}/chat/completions?key={CANARY}"
    assert httpx.post(url, json=ask(**body), headers=headers, timeout=30).status_code == 200
    httpx.request("PUT", f"{served.url}/{CANARY}", headers=headers)
    telemetry.wait_for_spans(n)
    telemetry.wait_for_spans(1, "PUT")
    assert CANARY not in telemetry.everything()


def test_within_an_application_that_traces(
    upstream_server: tuple[FakeUpstream, str], telemetry: Telemetry
) -> None:
    """Its span is the server's; the gateway's goes below it."""

    def trace(app: ASGIApp) -> ASGIApp:
        async def traced(scope: Any, receive: Any, send: Any) -> None:
            if scope["type"] != "http":
                await app(scope, receive, send)
                return
            with telemetry.start("theirs"):
                await app(scope, receive, send)

        return traced

    app = create_app(GatewaySettings(upstream_server[1]), CorrectionStep(Aligner(ScriptedEngine())))
    with serving(trace(app)) as url:
        wait_for(lambda: httpx.get(f"{url}/health").status_code == 200)
        httpx.post(f"{url}/v1/chat/completions", json=ask())
        (own,) = telemetry.wait_for_spans(1, "POST")
    wait_for(lambda: any(identify(s)[1] == "" for s in telemetry.spans("theirs")))
    assert own.kind is SpanKind.INTERNAL
    theirs = {s.context.span_id for s in telemetry.spans("theirs") if s.context}
    assert own.parent is not None
    assert own.parent.span_id in theirs
    assert "http.server.request.duration" not in telemetry.points()
