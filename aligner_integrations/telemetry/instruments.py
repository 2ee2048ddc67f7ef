"""The library's tracer and its instruments, one set for each provider."""

from __future__ import annotations

from functools import lru_cache
from typing import Any
from urllib.parse import urlsplit

from opentelemetry import metrics, trace
from opentelemetry.context import Context

from aligner_integrations import __version__
from aligner_integrations.correction import Correction

SCOPE = "aligner_integrations"

SECONDS = [0.01 * 2**power for power in range(14)]
"""Bounds of buckets for seconds, as the conventions have them."""

_TOKENS = [4**power for power in range(14)]


def describe_address(url: str) -> dict[str, Any]:
    """A server's host and port, as spans and metrics name them."""
    parts = urlsplit(url)
    port = parts.port or (443 if parts.scheme == "https" else 80)
    return {"server.address": parts.hostname or "", "server.port": port}


class Instruments:
    """What is measured of corrections.

    Args:
        meter: Makes them.
    """

    def __init__(self, meter: metrics.Meter) -> None:
        self.active = meter.create_up_down_counter(
            "aligner.corrections.active",
            unit="{correction}",
            description="Corrections under way, waiting ones included.",
        )
        self._corrections = meter.create_counter(
            "aligner.corrections",
            unit="{correction}",
            description="Answers by outcome.",
        )
        self.seconds = meter.create_histogram(
            "gen_ai.client.operation.duration",
            unit="s",
            description="Seconds from a whole answer to the end of its correction.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._queue = meter.create_histogram(
            "aligner.queue.duration",
            unit="s",
            description="Seconds that corrections wait before the model takes them.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            unit="{token}",
            description="Tokens that the aligner reads and writes.",
            explicit_bucket_boundaries_advisory=_TOKENS,
        )
        self._copies = meter.create_counter(
            "aligner.tokens.copied",
            unit="{token}",
            description="Output tokens that stand in the answer too.",
        )

    def record(
        self,
        described: dict[str, Any],
        outcome: str,
        error: str | None,
        seconds: float,
        correction: Correction | None,
        context: Context,
    ) -> None:
        """Measure one correction.

        Args:
            described: The attributes that all have.
            outcome: `Correction.outcome`, "failed" or "cancelled".
            error: The class of the error.
            seconds: From the whole answer to the end.
            correction: None where there is none.
            context: Holds the correction's span, for exemplars.
        """
        self.active.add(-1, described, context)
        self._corrections.add(1, {**described, "aligner.outcome": outcome}, context)
        if correction is not None and correction.skipped is not None:
            return  # no model was asked
        timed = described if error is None else {**described, "error.type": error}
        self.seconds.record(seconds, timed, context)
        if correction is None or correction.stats.stop_reason != "stop":
            return
        stats = correction.stats
        self._queue.record(stats.queue_seconds, described, context)
        self._copies.add(stats.copied_tokens, described, context)
        for kind, count in (("input", stats.prompt_tokens), ("output", stats.output_tokens)):
            self._tokens.record(count, {**described, "gen_ai.token.type": kind}, context)


def find_tracer() -> trace.Tracer:
    """The tracer of the provider that is set now."""
    return _make_tracer(trace.get_tracer_provider())


def find_instruments() -> Instruments:
    """The instruments of the provider that is set now."""
    return _make_instruments(metrics.get_meter_provider())


@lru_cache(maxsize=4)
def _make_tracer(provider: trace.TracerProvider) -> trace.Tracer:
    return provider.get_tracer(SCOPE, __version__)


@lru_cache(maxsize=4)
def _make_instruments(provider: metrics.MeterProvider) -> Instruments:
    return Instruments(provider.get_meter(SCOPE, __version__))
