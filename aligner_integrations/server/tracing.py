"""Requests as OpenTelemetry sees them: a server span each, one for the upstream, metrics.

As in `records`, nothing that a client may choose freely gets in, except a short model name.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from contextvars import Token
from functools import lru_cache
from typing import Any

from opentelemetry import context, metrics, trace
from opentelemetry.metrics import CallbackOptions, Observation
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator
from starlette.datastructures import Headers
from starlette.types import Scope

from aligner_integrations import __version__
from aligner_integrations.server.admission import ALL
from aligner_integrations.server.errors import ApiError
from aligner_integrations.server.records import TRACE_HEADERS, Record, UpstreamRecord
from aligner_integrations.server.settings import GatewaySettings
from aligner_integrations.telemetry.instruments import (
    SCOPE,
    describe_address,
    find_instruments,
    find_tracer,
)

# Only this, whatever the environment says: baggage, which others offer, may hold anything.
_PROPAGATOR = TraceContextTextMapPropagator()
_SECONDS = [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 30, 60]
_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE"})


class TracedRecord(Record):
    """A request with a span.

    The span continues the trace that the client named, unless one is going on already, as in an
    application that mounts the gateway and traces its requests itself.
    """

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        known = self.method in _METHODS
        self._name = self.method if known else "HTTP"
        self._attributes: dict[str, Any] = {
            "http.request.method": self.method if known else "_OTHER",
            "url.scheme": scope.get("scheme", "http"),
        }
        parent, self._is_outermost = _find_parent(Headers(scope=scope))
        self._span = find_tracer().start_span(
            self._name,
            parent,
            SpanKind.SERVER if self._is_outermost else SpanKind.INTERNAL,
            {**self._attributes, "aligner.request.id": self.id},
        )
        told = self._span.get_span_context()
        self.trace_id = trace.format_trace_id(told.trace_id) if told.is_valid else None
        self._attached: Token[context.Context] | None = None

    def __enter__(self) -> Record:
        self._attached = context.attach(set_span_in_context(self._span))
        return super().__enter__()

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        if self._attached is not None:
            context.detach(self._attached)

    def ask_upstream(self, settings: GatewaySettings, model: str | None) -> UpstreamRecord:
        """See `Record.ask_upstream`."""
        return TracedUpstream(settings, model)

    def end(self) -> None:
        """See `Record.end`."""
        told = {**self._attributes, "http.response.status_code": self.status}
        if self.route != "other":
            told["http.route"] = self.route
            self._span.update_name(f"{self._name} {self.route}")
        if self.status >= 500 or (self.code and self.status < 400):  # a stream that broke off
            told["error.type"] = self.code or str(self.status)
            self._span.set_status(StatusCode.ERROR)
        if self._is_outermost:  # else it is measured there already
            _find_seconds().record(self.seconds, told, set_span_in_context(self._span))
        self._span.set_attributes(told)
        if self.outcome is not None:
            self._span.set_attribute("aligner.outcome", self.outcome)
        self._span.end()


class TracedUpstream(UpstreamRecord):
    """The upstream's part, as the conventions for generative AI have it.

    Args:
        settings: Where the upstream is.
        model: What the client asked for.
    """

    def __init__(self, settings: GatewaySettings, model: str | None) -> None:
        self._attributes: dict[str, Any] = {
            "gen_ai.operation.name": "chat",
            "gen_ai.provider.name": "openai",  # the API's; who is behind it, the address says
            **describe_address(settings.upstream),
        }
        if settings.model is not None:  # else clients could make as many series as they like
            self._attributes["gen_ai.request.model"] = settings.model
        named = {} if model is None else {"gen_ai.request.model": model[:80]}
        self._span: Span | None = find_tracer().start_span(
            f"chat {model[:80]}" if model else "chat",
            kind=SpanKind.CLIENT,
            attributes={**self._attributes, **named},
        )
        self._started = time.perf_counter()

    def add_trace(self, headers: dict[str, str]) -> None:
        """See `UpstreamRecord.add_trace`."""
        if self._span is not None and self._span.get_span_context().is_valid:
            headers.pop("tracestate", None)
            _PROPAGATOR.inject(headers, set_span_in_context(self._span))

    def read(self, part: Mapping[str, Any]) -> None:
        """See `UpstreamRecord.read`."""
        if self._span is None or not self._span.is_recording():
            return
        told: dict[str, Any] = {}
        if isinstance(model := part.get("model"), str):
            told["gen_ai.response.model"] = model[:80]
        if isinstance(usage := part.get("usage"), dict):
            for name, key in (("input", "prompt_tokens"), ("output", "completion_tokens")):
                if isinstance(usage.get(key), int):
                    told[f"gen_ai.usage.{name}_tokens"] = usage[key]
        self._span.set_attributes(told)

    def end(self, error: BaseException | None = None) -> None:
        """See `UpstreamRecord.end`."""
        span, self._span = self._span, None
        if span is None:
            return
        told = dict(self._attributes)
        if isinstance(error, Exception):
            code = error.code if isinstance(error, ApiError) else None
            told["error.type"] = code or type(error).__name__
            span.set_attribute("error.type", told["error.type"])
            span.set_status(StatusCode.ERROR)
        seconds = time.perf_counter() - self._started
        find_instruments().seconds.record(seconds, told, set_span_in_context(span))
        span.end()


def _find_parent(headers: Headers) -> tuple[context.Context, bool]:
    """The context of a request's span, and whether it is the first of this process."""
    here = context.get_current()
    carrier = {name: headers[name] for name in TRACE_HEADERS if name in headers}
    sent = _PROPAGATOR.extract(carrier, context.Context())
    theirs = trace.get_current_span(sent).get_span_context()
    own = trace.get_current_span(here).get_span_context()
    # A span that was going on when the server was started is none of the request's.
    if own.is_valid and theirs.trace_id in (0, own.trace_id):
        return here, False
    return _PROPAGATOR.extract(carrier, here), True


@lru_cache(maxsize=4)
def _make_seconds(provider: metrics.MeterProvider) -> metrics.Histogram:
    meter = provider.get_meter(SCOPE, __version__)
    meter.create_observable_gauge(
        "aligner.gateway.requests",
        [_count_requests],
        unit="{request}",
        description="Requests that are worked on, and that wait for their turn.",
    )
    return meter.create_histogram(
        "http.server.request.duration",
        unit="s",
        description="Seconds from a request to the end of its response.",
        explicit_bucket_boundaries_advisory=_SECONDS,
    )


def _find_seconds() -> metrics.Histogram:
    return _make_seconds(metrics.get_meter_provider())


def _count_requests(options: CallbackOptions) -> Iterable[Observation]:
    gateways = list(ALL)
    for state in ("working", "waiting"):
        yield Observation(sum(getattr(one, state) for one in gateways), {"aligner.state": state})
