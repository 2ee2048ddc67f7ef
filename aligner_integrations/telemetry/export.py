"""Sending spans and metrics off, for a process of ours that nobody else sets up."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aligner_integrations import __version__
from aligner_integrations.errors import MissingExtraError

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource


def start_export(service: str) -> None:
    """Send spans and metrics by OTLP over HTTP, where OpenTelemetry's own variables say.

    ``OTEL_EXPORTER_OTLP_ENDPOINT`` (by default this machine's port 4318), ``OTEL_SERVICE_NAME``,
    ``OTEL_RESOURCE_ATTRIBUTES``, ``OTEL_TRACES_SAMPLER``, ``OTEL_METRIC_EXPORT_INTERVAL`` and so
    on. What is left when the process ends is sent then.

    Args:
        service: The name under which the process is known, unless the variables give one.

    Raises:
        MissingExtraError: The extra ``[otel]`` is not installed.
    """
    try:
        from opentelemetry import metrics, trace
        from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise MissingExtraError(error.name or "opentelemetry", "otel") from None

    resource = make_resource(service)
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(tracers)
    reader = PeriodicExportingMetricReader(OTLPMetricExporter())
    metrics.set_meter_provider(MeterProvider([reader], resource))


def make_resource(service: str) -> Resource:
    """What all spans and metrics of the process say of it; the variables win."""
    from opentelemetry.sdk.resources import OTELResourceDetector, Resource

    named = Resource.create({"service.name": service, "service.version": __version__})
    return named.merge(OTELResourceDetector().detect())
