"""Figures for Prometheus. They hold numbers and fixed names, never a text."""

from __future__ import annotations

import functools

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from aligner_integrations.correction import Correction
from aligner_integrations.server.admission import Admission
from aligner_integrations.server.errors import ApiError
from aligner_integrations.server.records import CURRENT, Record

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
        self.queue_seconds = Histogram(
            "aligner_queue_seconds",
            "Seconds that a request waits for its turn.",
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

    def note_request(self, record: Record) -> None:
        """Count a request whose response has ended."""
        self.requests.labels(record.route, str(record.status)).inc()
        self.request_seconds.labels(record.route).observe(record.seconds)

    def note_wait(self, seconds: float) -> None:
        """Count the time that a request waited for its turn."""
        self.queue_seconds.observe(seconds)

    def note_upstream(self, seconds: float) -> None:
        """Count an answer of the upstream, whole by now."""
        self.upstream_seconds.observe(seconds)
        if record := CURRENT.get():
            record.upstream_seconds = seconds

    def note(self, correction: Correction) -> None:
        """Count a correction."""
        if record := CURRENT.get():
            record.note(correction)
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
        code = error.code or str(error.status)
        self.failures.labels(code).inc()
        if record := CURRENT.get():
            record.code = code
        if error.code == "queue_full":
            self.rejected.inc()

    def note_skipped(self, reason: str) -> None:
        """Count an answer that was not even looked at."""
        self.corrections.labels(f"skipped_{reason}").inc()
        if record := CURRENT.get():
            record.outcomes.append(f"skipped_{reason}")

    def render(self) -> bytes:
        """All figures, in Prometheus' text format."""
        return generate_latest(self.registry)
