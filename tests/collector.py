"""An OpenTelemetry collector: keeps what other processes send it by OTLP over HTTP."""

from __future__ import annotations

import contextlib
import gzip
from collections.abc import Iterator

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from opentelemetry.proto.trace.v1.trace_pb2 import Span
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tests.server.upstream import serving, wait_for


class Collector:
    """What was sent."""

    def __init__(self) -> None:
        self.url = ""
        self.spans: list[Span] = []
        self.metrics: list[Metric] = []

    async def take(self, request: Request) -> Response:
        content = await request.body()
        if request.headers.get("content-encoding") == "gzip":
            content = gzip.decompress(content)
        if request.url.path == "/v1/traces":
            for traces in ExportTraceServiceRequest.FromString(content).resource_spans:
                self.spans += [span for scope in traces.scope_spans for span in scope.spans]
        else:
            for figures in ExportMetricsServiceRequest.FromString(content).resource_metrics:
                self.metrics += [one for scope in figures.scope_metrics for one in scope.metrics]
        return Response(media_type="application/x-protobuf")

    def wait_for_span(self, name: str) -> Span:
        """The one span of this name."""
        wait_for(lambda: any(span.name == name for span in self.spans), 30)
        (found,) = [span for span in self.spans if span.name == name]
        return found


@contextlib.contextmanager
def run_collector() -> Iterator[Collector]:
    collector = Collector()
    routes = [
        Route("/v1/traces", collector.take, methods=["POST"]),
        Route("/v1/metrics", collector.take, methods=["POST"]),
    ]
    with serving(Starlette(routes=routes)) as collector.url:
        yield collector
