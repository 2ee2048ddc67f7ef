"""OpenTelemetry's real SDK, with everything kept in memory."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import pytest
from opentelemetry import metrics, trace
from opentelemetry.metrics import _internal as metrics_internal
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import Span
from opentelemetry.util._once import Once

from tests.server.upstream import wait_for


@contextlib.contextmanager
def restored() -> Iterator[None]:
    """Forget the providers that are set within; a process can set them only once."""
    places = [
        (trace, "_TRACER_PROVIDER", None),
        (trace, "_TRACER_PROVIDER_SET_ONCE", Once()),
        (metrics_internal, "_METER_PROVIDER", None),
        (metrics_internal, "_METER_PROVIDER_SET_ONCE", Once()),
        # It makes what other tests' gateways asked it for as soon as a provider is set.
        (metrics_internal, "_PROXY_METER_PROVIDER", metrics_internal._ProxyMeterProvider()),
    ]
    with pytest.MonkeyPatch.context() as patch:
        for module, name, value in places:
            patch.setattr(module, name, value)
        yield


class Telemetry:
    """What was told, while it is `set_up`."""

    def __init__(self) -> None:
        self.exporter = InMemorySpanExporter()
        self.reader = InMemoryMetricReader()
        self.tracers = TracerProvider(shutdown_on_exit=False)
        self.tracers.add_span_processor(SimpleSpanProcessor(self.exporter))
        self.meters = MeterProvider([self.reader], shutdown_on_exit=False)

    @contextlib.contextmanager
    def set_up(self) -> Iterator[Telemetry]:
        """Providers can be set only once in a process, but tests need fresh ones."""
        old = trace._TRACER_PROVIDER, metrics_internal._METER_PROVIDER
        trace._TRACER_PROVIDER, metrics_internal._METER_PROVIDER = self.tracers, self.meters
        assert trace.get_tracer_provider() is self.tracers
        assert metrics.get_meter_provider() is self.meters
        try:
            yield self
        finally:
            trace._TRACER_PROVIDER, metrics_internal._METER_PROVIDER = old
            self.tracers.shutdown()
            self.meters.shutdown()

    def start(self, name: str) -> contextlib.AbstractContextManager[Span]:
        """A span of the application's own."""
        return self.tracers.get_tracer("test").start_as_current_span(name)

    def spans(self, prefix: str = "text_completion ") -> list[ReadableSpan]:
        """The spans that have ended, by the beginning of their names."""
        return [span for span in self.exporter.get_finished_spans() if span.name.startswith(prefix)]

    def wait_for_spans(self, count: int, prefix: str = "text_completion ") -> list[ReadableSpan]:
        wait_for(lambda: len(self.spans(prefix)) >= count, 5)
        assert len(self.spans(prefix)) == count
        return self.spans(prefix)

    def points(self) -> dict[str, list[tuple[dict[str, Any], float, int]]]:
        """Of each metric: attributes, sum or value, and count."""
        data = self.reader.get_metrics_data()
        points: dict[str, list[tuple[dict[str, Any], float, int]]] = {}
        for resource in data.resource_metrics if data else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    points[metric.name] = [
                        (
                            dict(point.attributes),
                            getattr(point, "sum", getattr(point, "value", 0)),
                            getattr(point, "count", 1),
                        )
                        for point in metric.data.data_points
                    ]
        return points

    def everything(self) -> str:
        """All that was told, as one text."""
        spans = "".join(span.to_json() for span in self.exporter.get_finished_spans())
        data = self.reader.get_metrics_data()
        return spans + (data.to_json() if data else "")


@pytest.fixture
def telemetry() -> Iterator[Telemetry]:
    """What the SDK is told within one test; for test files to import."""
    with Telemetry().set_up() as telemetry:
        yield telemetry


def attributes(span: ReadableSpan) -> dict[str, Any]:
    return dict(span.attributes or {})
