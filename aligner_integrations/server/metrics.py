"""Figures for Prometheus. They hold numbers and fixed names, never a text."""

from __future__ import annotations

import functools

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from aligner_integrations.correction import Correction
from aligner_integrations.server.admission import Admission
from aligner_integrations.server.errors import ApiError

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)


class Metrics:
    """The figures of one gateway.

    Args:
        admission: Says how many requests are worked on and wait.
    """

    def __init__(self, admission: Admission) -> None:
        self.registry = registry = CollectorRegistry()
        self.requests = Counter(
            "aligner_requests", "HTTP requests.", ("route", "status"), registry=registry
        )
        self.request_seconds = Histogram(
            "aligner_request_seconds",
            "Seconds from a request to the end of its response.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.upstream_seconds = Histogram(
            "aligner_upstream_seconds",
            "Seconds from a request to the end of the upstream's answer.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.correction_seconds = Histogram(
            "aligner_correction_seconds",
            "Seconds from a whole answer to the end of its correction.",
            buckets=_SECONDS,
            registry=registry,
        )
        self.corrections = Counter(
            "aligner_corrections",
            "Answers by outcome: changed, unchanged, skipped_*, or the policy that applied.",
            ("outcome",),
            registry=registry,
        )
        self.tokens = Counter(
            "aligner_tokens",
            "The aligner's tokens: of prompts, written, and of those copied from the answer.",
            ("kind",),
            registry=registry,
        )
        self.failures = Counter(
            "aligner_failures",
            "Requests that failed, by the error's code.",
            ("code",),
            registry=registry,
        )
        self.rejected = Counter(
            "aligner_queue_rejected",
            "Requests that were turned away because a queue was full.",
            registry=registry,
        )
        gauges = {
            "aligner_requests_in_flight": ("Requests that are worked on.", "working"),
            "aligner_requests_waiting": ("Requests that wait for their turn.", "waiting"),
        }
        for name, (text, attribute) in gauges.items():
            gauge = Gauge(name, text, registry=registry)
            gauge.set_function(functools.partial(getattr, admission, attribute))

    def note(self, correction: Correction) -> None:
        """Count a correction."""
        stats = correction.stats
        self.corrections.labels(correction.outcome).inc()
        if stats.stop_reason != "stop":
            return
        self.correction_seconds.observe(stats.seconds)
        self.tokens.labels("prompt").inc(stats.prompt_tokens)
        self.tokens.labels("output").inc(stats.output_tokens)
        self.tokens.labels("copied").inc(stats.copied_tokens)

    def note_failure(self, error: ApiError) -> None:
        """Count a request that failed, or a stream that broke off."""
        self.failures.labels(error.code or str(error.status)).inc()
        if error.code == "queue_full":
            self.rejected.inc()

    def note_skipped(self, reason: str) -> None:
        """Count an answer that was not even looked at."""
        self.corrections.labels(f"skipped_{reason}").inc()

    def render(self) -> bytes:
        """All figures, in Prometheus' text format."""
        return generate_latest(self.registry)
