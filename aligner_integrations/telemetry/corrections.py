"""A correction as OpenTelemetry's conventions for generative AI have it: a span, and metrics.

https://opentelemetry.io/docs/specs/semconv/gen-ai/ Texts of questions and answers stay out, and
so do messages of errors, which may quote them.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import threading
import time
from typing import TYPE_CHECKING, Any

from opentelemetry import context
from opentelemetry.trace import Span, SpanKind, StatusCode, set_span_in_context
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from aligner_integrations.correction import Correction
from aligner_integrations.engines.connection import Connection
from aligner_integrations.telemetry.instruments import (
    describe_address,
    find_instruments,
    find_tracer,
)
from aligner_integrations.telemetry.watch import Listener, Watch

if TYPE_CHECKING:
    from aligner_integrations.request import Request

CAPTURE = "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT"
"""The variable that allows texts in spans; OpenTelemetry's own."""

_PROPAGATOR = TraceContextTextMapPropagator()
_CAPTURES = ("true", "span_only", "span_and_event")


class CorrectionWatch(Watch):
    """A span and measurements for one correction.

    The span's parent is the one that was current where the correction was asked for, in whatever
    thread or task the rest happens.

    Args:
        request: What is corrected.
        listener: See `Watch`.
    """

    __slots__ = ("_connection", "_open", "_parent", "_request", "_started")

    def __init__(self, request: Request, listener: Listener | None = None) -> None:
        super().__init__(listener)
        self._request = request
        self._parent = context.get_current()
        self._started = 0.0
        self._open: list[Span] = []
        connection = getattr(request.engine, "connection", None)
        self._connection = connection if isinstance(connection, Connection) else None

    def begin(self) -> None:
        """See `Watch.begin`."""
        name = self._request.engine.name
        self._started = time.perf_counter()
        span = find_tracer().start_span(
            f"text_completion {name}",
            context=self._parent,
            kind=SpanKind.INTERNAL if self._connection is None else SpanKind.CLIENT,
            attributes={**_describe(name), **self._describe_options(), **self._describe_server()},
        )
        self._open.append(span)
        find_instruments().active.add(1, _describe(name))

    def carry_on(self) -> dict[str, str]:
        """See `Watch.carry_on`."""
        headers: dict[str, str] = {}
        if self._open and self._connection is not None and self._connection.trace_server:
            _PROPAGATOR.inject(headers, set_span_in_context(self._open[0]))
        return headers

    def settle(self, correction: Correction) -> None:
        """See `Watch.settle`."""
        super().settle(correction)
        if span := self._take():
            error = None if correction.error is None else correction.error.partition(":")[0]
            if span.is_recording():
                span.set_attributes(_describe_result(correction))
                if _captures_text():
                    span.set_attributes(_quote(correction))
            self._end(span, correction.outcome, error, correction)

    def fail(self, error: BaseException) -> None:
        """See `Watch.fail`."""
        failed = isinstance(error, Exception)
        if failed and not self._started:  # reading the answer failed
            self.begin()
        if span := self._take():
            name = type(error).__name__ if failed else None
            self._end(span, "failed" if failed else "cancelled", name)

    def drop(self) -> None:
        """See `Watch.drop`."""
        # The garbage collector may run while this very thread holds the lock of a span processor,
        # so the end must be told from another one. While the interpreter ends none begins any
        # more: before Python 3.12 its start would be waited for, and for ever.
        if self._open and not sys.is_finalizing():
            with contextlib.suppress(RuntimeError):
                threading.Thread(target=self.fail, args=[GeneratorExit()], daemon=True).start()

    def _take(self) -> Span | None:
        """The span, for whoever ends it first; two threads may want to at the same time."""
        try:
            return self._open.pop()
        except IndexError:
            return None

    def _end(
        self,
        span: Span,
        outcome: str,
        error: str | None,
        correction: Correction | None = None,
    ) -> None:
        find_instruments().record(
            _describe(self._request.engine.name),
            outcome,
            error,
            time.perf_counter() - self._started,
            correction,
            set_span_in_context(span),
        )
        span.set_attribute("aligner.outcome", outcome)
        if error is not None:
            span.set_attribute("error.type", error)
            span.set_status(StatusCode.ERROR)
        span.end()

    def _describe_server(self) -> dict[str, Any]:
        if self._connection is None or len(self._connection.urls) > 1:
            return {}  # which of several it is shows when they are asked
        return describe_address(self._connection.urls[0])

    def _describe_options(self) -> dict[str, Any]:
        options = self._request.options
        described: dict[str, Any] = {
            "gen_ai.output.type": "text",
            "gen_ai.request.temperature": options.temperature,
            "aligner.strength": options.strength,
        }
        if options.max_new_tokens != "auto":
            described["gen_ai.request.max_tokens"] = options.max_new_tokens
        if options.seed is not None:
            described["gen_ai.request.seed"] = options.seed
        return described


def _describe(model: str) -> dict[str, Any]:
    """What spans and metrics share."""
    return {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "aligner",
        "gen_ai.request.model": model,
    }


def _describe_result(correction: Correction) -> dict[str, Any]:
    stats = correction.stats
    described: dict[str, Any] = {
        "aligner.edit_ratio": round(1 - correction.similarity, 4),
        "aligner.lost": len(correction.lost),
    }
    if stats.stop_reason != "stop":
        return described
    return {
        **described,
        "gen_ai.response.finish_reasons": [stats.stop_reason],
        "gen_ai.usage.input_tokens": stats.prompt_tokens,
        "gen_ai.usage.output_tokens": stats.output_tokens,
        "aligner.tokens.copied": stats.copied_tokens,
        "aligner.tokens.drafted": stats.drafted_tokens,
        "aligner.tokens.accepted": stats.accepted_tokens,
        "aligner.forward_passes": stats.forward_passes,
        "aligner.queue.duration": stats.queue_seconds,
    }


def _captures_text() -> bool:
    return os.environ.get(CAPTURE, "").strip().lower() in _CAPTURES


def _quote(correction: Correction) -> dict[str, str]:
    asked = [_write("user", correction.question), _write("assistant", correction.answer)]
    written = {**_write("assistant", correction.text), "finish_reason": "stop"}
    return {
        "gen_ai.input.messages": json.dumps(asked),
        "gen_ai.output.messages": json.dumps([written]),
    }


def _write(role: str, text: str) -> dict[str, Any]:
    return {"role": role, "parts": [{"type": "text", "content": text}]}
