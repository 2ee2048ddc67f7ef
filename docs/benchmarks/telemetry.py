"""What the hooks for OpenTelemetry cost: seconds of a correction without, and with them.

    OMP_NUM_THREADS=1 python -m docs.benchmarks.telemetry

First with an engine that answers at once, so that all the time is ours; then with a tiny model that
writes a few words and takes milliseconds: with a real one the ratio is nearer to 1 still. Counted
are the seconds that the process has a processor, the exporter's thread included, since those don't
depend as much on what else the machine does. The ways take turns, in an order that is drawn anew
each time, and each figure is the median of all rounds.
"""

from __future__ import annotations

import argparse
import contextlib
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from opentelemetry import trace
from opentelemetry.metrics import _internal as metrics
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from rich.console import Console
from rich.table import Table

from aligner_integrations import Aligner, CorrectionStats, streams
from aligner_integrations.engines.base import Finished, Job
from aligner_integrations.telemetry.watch import Watch, watch
from tests.tiny import save_model

QUESTION, ANSWER = "How do I cool an egg?", "Put it into cool water, you fool."


class Nowhere(SpanExporter):
    """Takes spans and drops them, so that no network is measured."""

    def export(self, spans: object) -> SpanExportResult:
        """See `SpanExporter.export`."""
        return SpanExportResult.SUCCESS


class AtOnce:
    """An engine without a model."""

    name = "at once"
    prompt = None

    def submit(self, jobs: Sequence[Job]) -> None:
        """See `Engine.submit`."""
        for job in jobs:
            job.emit(Finished("Put it into cool water.", CorrectionStats(60, 6, 6, 2)))

    def read_ahead(self, question: str) -> None:
        """See `Engine.read_ahead`."""

    def calibrate(self) -> None:
        """See `Engine.calibrate`."""


@contextlib.contextmanager
def without_hooks() -> Iterator[None]:
    """As if there were none."""
    silent = Watch()
    streams.watch = lambda request: silent  # type: ignore[attr-defined]
    try:
        yield
    finally:
        streams.watch = watch  # type: ignore[attr-defined]


@contextlib.contextmanager
def not_imported() -> Iterator[None]:
    """As in a process that has not imported OpenTelemetry."""
    module = sys.modules.pop("opentelemetry.trace")
    try:
        yield
    finally:
        sys.modules["opentelemetry.trace"] = module


@contextlib.contextmanager
def exported() -> Iterator[None]:
    """Spans in batches, and metrics."""
    old = trace._TRACER_PROVIDER, metrics._METER_PROVIDER
    trace._TRACER_PROVIDER, metrics._METER_PROVIDER = TRACERS, METERS
    try:
        yield
    finally:
        trace._TRACER_PROVIDER, metrics._METER_PROVIDER = old


TRACERS = TracerProvider()
TRACERS.add_span_processor(BatchSpanProcessor(Nowhere()))
METERS = MeterProvider([InMemoryMetricReader()])
WAYS: dict[str, Callable[[], contextlib.AbstractContextManager[None]]] = {
    "no hooks at all": without_hooks,
    "OpenTelemetry is not imported": not_imported,
    "imported, but not set up": contextlib.nullcontext,
    "spans and metrics": exported,
}


def measure(aligner: Aligner, rounds: int, corrections: int) -> dict[str, list[float]]:
    """Processor seconds per correction, of each way in each round."""
    seconds: dict[str, list[float]] = {name: [] for name in WAYS}
    for _ in range(rounds):
        for name in random.sample(list(WAYS), len(WAYS)):
            with WAYS[name]():
                started = time.process_time()
                for _ in range(corrections):
                    aligner.correct(QUESTION, ANSWER)
                seconds[name].append((time.process_time() - started) / corrections)
    return seconds


def main(arguments: list[str] | None = None) -> None:
    """Measure, and show a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=24)
    parser.add_argument("--corrections", type=int, default=20)
    chosen = parser.parse_args(arguments)
    measure(Aligner(AtOnce()), 2, 50)
    alone = measure(Aligner(AtOnce()), chosen.rounds, 50)
    with tempfile.TemporaryDirectory() as folder:
        writes = "Cool water, kindly."
        directory = save_model(Path(folder), "llama", prompt="aligner-smol", writes=writes)
        aligner = Aligner.from_pretrained(str(directory), device="cpu")
        measure(aligner, 2, chosen.corrections)
        seconds = measure(aligner, chosen.rounds, chosen.corrections)
    bare = seconds["no hooks at all"]
    table = Table("", "at once: CPU µs", "tiny model: CPU ms", "ratio", "quartiles of the ratio")
    for name, own in seconds.items():
        ratios = [one / other for one, other in zip(own, bare, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        table.add_row(
            name,
            f"{statistics.median(alone[name]) * 1e6:.0f}",
            f"{statistics.median(own) * 1e3:.1f}",
            f"{middle:.3f}",
            f"{low:.3f}, {high:.3f}",
        )
    Console().print(table)


if __name__ == "__main__":
    main()
