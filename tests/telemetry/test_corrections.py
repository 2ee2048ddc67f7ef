"""Spans and metrics of corrections, with OpenTelemetry's real SDK."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest
from opentelemetry.trace import SpanKind, StatusCode

from aligner_integrations import Aligner
from aligner_integrations.errors import CorrectionError, InputTypeError, TruncatedCorrectionError
from aligner_integrations.telemetry.corrections import CAPTURE
from tests.otel import Telemetry, attributes, telemetry

__all__ = ["telemetry"]  # a fixture

WRITES = "Cool water, 😀 kindly."
CANARY = "XyzzyCanary"


async def _read(aligner: Aligner, *pair: Any, **call: Any) -> None:
    async for _ in aligner.astream(*pair, **call):
        pass


WAYS: dict[str, Callable[..., Awaitable[Any] | Any]] = {
    "correct": lambda aligner, *pair, **call: aligner.correct(*pair, **call),
    "acorrect": lambda aligner, *pair, **call: aligner.acorrect(*pair, **call),
    "correct_batch": lambda aligner, *pair, **call: aligner.correct_batch([pair], **call),
    "acorrect_batch": lambda aligner, *pair, **call: aligner.acorrect_batch([pair], **call),
    "stream": lambda aligner, *pair, **call: list(aligner.stream(*pair, **call)),
    "astream": _read,
}
BY_WAY = pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)


async def ask(way: Callable[..., Any], *arguments: Any, **call: Any) -> None:
    asked = way(*arguments, **call)
    if asyncio.iscoroutine(asked):
        await asked


@BY_WAY
async def test_span(writer: Aligner, telemetry: Telemetry, way: Callable[..., Any]) -> None:
    """The same whatever the way, below the caller's span."""
    with telemetry.start("caller") as caller:
        await ask(way, writer, "q", "Cool water.", options={"seed": 7, "max_new_tokens": 50})
    (span,) = telemetry.spans()
    assert span.name == f"text_completion {writer.name}"
    assert span.kind is SpanKind.INTERNAL
    assert span.status.status_code is StatusCode.UNSET
    assert span.parent is not None
    assert span.parent.span_id == caller.get_span_context().span_id
    told = attributes(span)
    assert told.pop("aligner.forward_passes") > 0
    assert told.pop("aligner.queue.duration") > 0
    assert 0 < told.pop("aligner.tokens.accepted") <= told.pop("aligner.tokens.drafted")
    assert 0 < told.pop("aligner.tokens.copied") <= told.pop("gen_ai.usage.output_tokens")
    assert told.pop("gen_ai.usage.input_tokens") > 10
    assert told.pop("aligner.edit_ratio") == 0.3125
    assert told == {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "aligner",
        "gen_ai.request.model": writer.name,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.max_tokens": 50,
        "gen_ai.request.seed": 7,
        "gen_ai.output.type": "text",
        "gen_ai.response.finish_reasons": ("stop",),
        "aligner.strength": 0.0,
        "aligner.outcome": "changed",
        "aligner.lost": 0,
    }


@BY_WAY
async def test_metrics(writer: Aligner, telemetry: Telemetry, way: Callable[..., Any]) -> None:
    await ask(way, writer, "q", WRITES)
    (span,) = telemetry.spans()
    told, points = attributes(span), telemetry.points()
    shared = {
        "gen_ai.operation.name": "text_completion",
        "gen_ai.provider.name": "aligner",
        "gen_ai.request.model": writer.name,
    }
    assert points["aligner.corrections"] == [({**shared, "aligner.outcome": "unchanged"}, 1, 1)]
    assert points["aligner.corrections.active"] == [(shared, 0, 1)]
    assert points["aligner.tokens.copied"] == [(shared, told["aligner.tokens.copied"], 1)]
    assert points["gen_ai.client.token.usage"] == [
        ({**shared, "gen_ai.token.type": kind}, told[f"gen_ai.usage.{kind}_tokens"], 1)
        for kind in ("input", "output")
    ]
    ((described, seconds, count),) = points["gen_ai.client.operation.duration"]
    assert (described, count) == (shared, 1)
    assert span.end_time is not None
    assert span.start_time is not None
    assert seconds == pytest.approx((span.end_time - span.start_time) / 1e9, abs=0.01)
    ((described, waited, count),) = points["aligner.queue.duration"]
    assert (described, count) == (shared, 1)
    assert waited == told["aligner.queue.duration"] < seconds


@BY_WAY
async def test_errors(writer: Aligner, telemetry: Telemetry, way: Callable[..., Any]) -> None:
    """The span has the error's class and no more; its message may quote."""
    with pytest.raises(TruncatedCorrectionError):
        await ask(way, writer, CANARY, CANARY, options={"max_new_tokens": 2})
    (span,) = telemetry.spans()
    assert span.status.status_code is StatusCode.ERROR
    assert span.status.description is None
    assert span.events == ()
    assert attributes(span)["error.type"] == "TruncatedCorrectionError"
    assert attributes(span)["aligner.outcome"] == "failed"
    ((described, _, _),) = telemetry.points()["gen_ai.client.operation.duration"]
    assert described["error.type"] == "TruncatedCorrectionError"
    assert CANARY not in telemetry.everything()


@BY_WAY
@pytest.mark.parametrize("policy", ["original", "refuse"])
async def test_policies(
    writer: Aligner,
    telemetry: Telemetry,
    silence: Callable[[Aligner], None],
    way: Callable[..., Any],
    policy: str,
) -> None:
    """Nobody saw the error, but correcting failed."""
    silence(writer)
    await ask(way, writer, "q", "answer", max_latency=1e-9, on_error=policy)
    (span,) = telemetry.spans()
    assert attributes(span)["aligner.outcome"] == policy
    assert attributes(span)["error.type"] == "LatencyError"
    assert span.status.status_code is StatusCode.ERROR


@BY_WAY
async def test_skipped(writer: Aligner, telemetry: Telemetry, way: Callable[..., Any]) -> None:
    await ask(way, writer, "q", '{"a": 1}')
    (span,) = telemetry.spans()
    assert attributes(span)["aligner.outcome"] == "skipped_json"
    assert attributes(span)["aligner.edit_ratio"] == 0
    assert "gen_ai.usage.input_tokens" not in attributes(span)
    points = telemetry.points()
    assert set(points) == {"aligner.corrections", "aligner.corrections.active"}


def test_an_answer_that_cannot_be_read(writer: Aligner, telemetry: Telemetry) -> None:
    def break_off() -> Iterator[str]:
        yield CANARY
        raise RuntimeError(CANARY)

    with pytest.raises(RuntimeError):
        list(writer.stream("q", break_off()))
    with pytest.raises(InputTypeError):
        list(writer.stream("q", [CANARY, 1]))  # type: ignore[list-item]
    assert [attributes(span)["error.type"] for span in telemetry.spans()] == [
        "RuntimeError",
        "InputTypeError",
    ]
    assert CANARY not in telemetry.everything()


def test_batch_with_errors(writer: Aligner, telemetry: Telemetry) -> None:
    pairs = [("q", "fine"), ("q", "\ud800"), ("q", " ")]
    writer.correct_batch(pairs, return_exceptions=True)
    outcomes = [attributes(span)["aligner.outcome"] for span in telemetry.spans()]
    assert sorted(outcomes) == ["changed", "failed", "skipped_blank"]


def test_closed_streams_end_their_span(writer: Aligner, telemetry: Telemetry) -> None:
    with writer.stream("q", "answer") as stream:
        next(stream)
    (span,) = telemetry.spans()
    assert attributes(span)["aligner.outcome"] == "cancelled"
    assert span.status.status_code is StatusCode.UNSET
    stream.close()
    for _ in writer.stream("q", "answer"):
        break
    telemetry.wait_for_spans(2)
    writer.stream("q", "never begun").close()
    telemetry.wait_for_spans(2)
    assert telemetry.points()["aligner.corrections.active"][0][1] == 0


async def test_cancelled_corrections_end_their_span(
    tiny_aligner: Aligner, telemetry: Telemetry
) -> None:
    task = asyncio.create_task(
        tiny_aligner.acorrect("q", "answer", options={"max_new_tokens": 400})
    )
    await asyncio.sleep(0.02)
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError, CorrectionError):
        await task
    stream = tiny_aligner.astream("q", "answer", options={"max_new_tokens": 400})
    await anext(stream)
    await stream.aclose()
    await stream.aclose()
    outcomes = [attributes(span)["aligner.outcome"] for span in telemetry.wait_for_spans(2)]
    assert outcomes == ["cancelled", "cancelled"]


def test_threads_do_not_mix(writer: Aligner, telemetry: Telemetry) -> None:
    """Corrections share the scheduler's thread, and each stays below its caller's span."""
    parents: dict[int, int] = {}

    def work(seed: int) -> None:
        with telemetry.start(f"caller {seed}") as caller:
            parents[seed] = caller.get_span_context().span_id
            writer.correct("q", "answer " * seed, options={"seed": seed})

    threads = [threading.Thread(target=work, args=[seed]) for seed in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    check_parents(telemetry, parents)


async def test_tasks_do_not_mix(writer: Aligner, telemetry: Telemetry) -> None:
    parents: dict[int, int] = {}

    async def work(seed: int, way: Callable[..., Any]) -> None:
        with telemetry.start(f"caller {seed}") as caller:
            parents[seed] = caller.get_span_context().span_id
            await ask(way, writer, "q", "answer " * seed, options={"seed": seed})

    ways = [WAYS["acorrect"], WAYS["astream"], WAYS["acorrect_batch"]]
    await asyncio.gather(*(work(seed, ways[seed % 3]) for seed in range(9)))
    check_parents(telemetry, parents)


def test_stream_read_elsewhere(writer: Aligner, telemetry: Telemetry) -> None:
    """The parent is the span in which the stream was asked for, not the one where it is read."""
    with telemetry.start("caller") as caller:
        stream = writer.stream("q", "answer", options={"seed": 1})
    thread = threading.Thread(target=list, args=[stream])
    thread.start()
    thread.join()
    check_parents(telemetry, {1: caller.get_span_context().span_id})


def check_parents(telemetry: Telemetry, parents: dict[int, int]) -> None:
    spans = telemetry.spans()
    found = {attributes(s)["gen_ai.request.seed"]: s.parent and s.parent.span_id for s in spans}
    assert found == parents
    assert len(spans) == len(parents)


@BY_WAY
@pytest.mark.parametrize("captured", [None, "false", "event_only", "true", "SPAN_ONLY"])
async def test_texts_only_where_they_are_asked_for(
    writer: Aligner,
    telemetry: Telemetry,
    monkeypatch: pytest.MonkeyPatch,
    way: Callable[..., Any],
    captured: str | None,
) -> None:
    monkeypatch.delenv(CAPTURE, raising=False)
    if captured is not None:
        monkeypatch.setenv(CAPTURE, captured)
    await ask(way, writer, f"q {CANARY}", f"a {CANARY}")
    (span,) = telemetry.spans()
    if captured in ("true", "SPAN_ONLY"):
        asked = json.loads(str(attributes(span)["gen_ai.input.messages"]))
        (written,) = json.loads(str(attributes(span)["gen_ai.output.messages"]))
        assert [message["role"] for message in asked] == ["user", "assistant"]
        assert [m["parts"][0]["content"] for m in asked] == [f"q {CANARY}", f"a {CANARY}"]
        assert written["parts"] == [{"type": "text", "content": WRITES}]
    else:
        everything = telemetry.everything()
        assert CANARY not in everything
        assert "kindly" not in everything


SCRIPT = """
import sys
if {missing}:
    sys.modules["opentelemetry"] = None
from aligner_integrations import Aligner, CorrectionStats
from aligner_integrations.engines.base import Finished

class Engine:
    name = "fake"
    prompt = None
    def submit(self, jobs):
        for job in jobs:
            job.emit("text")
            job.emit(Finished("text", CorrectionStats()))
    def read_ahead(self, question):
        return None

aligner = Aligner(Engine())
print(aligner.correct("q", "a"), *aligner.stream("q", "a"))
print([name for name in sys.modules if name.startswith("opentelemetry.")])
"""


@pytest.mark.parametrize("missing", [True, False])
def test_nothing_is_imported_where_nobody_watches(missing: bool) -> None:
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", SCRIPT.format(missing=missing)],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == "text text\n[]\n"


def test_no_provider_is_no_trouble(writer: Aligner) -> None:
    """Its API alone is installed with other packages; then it is asked in vain."""
    assert writer.correct("q", "a").text == WRITES
