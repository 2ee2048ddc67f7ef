"""Spans of corrections whose aligner runs on a server, and the trace that the server is told of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from opentelemetry.trace import SpanKind

from aligner_integrations import Aligner
from tests.engines.faulty import drop_midway, run_server
from tests.otel import Telemetry, attributes, telemetry
from tests.telemetry.test_corrections import BY_WAY, ask

__all__ = ["telemetry"]  # a fixture

TOLD = {"traceparent", "tracestate"}


@BY_WAY
async def test_the_server_is_told(telemetry: Telemetry, way: Callable[..., Any]) -> None:
    """Each attempt carries the correction's own span, whatever thread sends it."""
    with run_server(drop_midway) as server:
        aligner = Aligner.from_server(server.url, trace_server=True)
        with telemetry.start("caller") as caller:
            await ask(way, aligner, "Eggs?", "Boil them.")
        (span,) = telemetry.wait_for_spans(1)
        aligner.engine.close()  # type: ignore[attr-defined]
    assert span.kind is SpanKind.CLIENT
    told = attributes(span)
    assert (told["server.address"], told["server.port"]) == ("127.0.0.1", server.port)
    trace, own = caller.get_span_context().trace_id, span.context.span_id
    sent = [request.headers["traceparent"].rpartition("-")[0] for request in server.requests]
    assert sent == [f"00-{trace:032x}-{own:016x}"] * 2


async def test_requests_at_the_same_time_do_not_mix(telemetry: Telemetry) -> None:
    with run_server(pace=0.01) as server:
        aligner = Aligner.from_server(server.url, trace_server=True)
        await aligner.acorrect_batch([(f"Q{i}?", f"A{i}.") for i in range(20)])
        spans = telemetry.wait_for_spans(20)
        aligner.engine.close()  # type: ignore[attr-defined]
    parents = {request.headers["traceparent"].split("-")[2] for request in server.requests}
    assert parents == {f"{span.context.span_id:016x}" for span in spans}


async def test_nobody_is_told_unasked(telemetry: Telemetry) -> None:
    with run_server() as one, run_server() as two:
        aligner = Aligner.from_server([one.url, two.url])
        with telemetry.start("caller"):
            aligner.correct_batch([("Eggs?", "Boil them.")] * 4)
        aligner.engine.close()  # type: ignore[attr-defined]
    assert len(one.requests) + len(two.requests) == 4
    assert not any(TOLD & set(request.headers) for request in (*one.requests, *two.requests))
    spans = telemetry.wait_for_spans(4)
    assert {span.kind for span in spans} == {SpanKind.CLIENT}
    assert not any("server.address" in attributes(span) for span in spans)  # it may be either


def test_without_opentelemetry_there_is_no_trace() -> None:
    with run_server() as server:
        aligner = Aligner.from_server(server.url, trace_server=True)
        assert aligner.correct("Eggs?", "Boil them.").text == "Boil them.!"
        aligner.engine.close()  # type: ignore[attr-defined]
    assert not TOLD & set(server.requests[0].headers)
