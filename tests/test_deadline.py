"""`max_latency`: what is late is given up, and takes nobody along."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest

from aligner_integrations import Aligner, Correction
from aligner_integrations.correction import CorrectionStats
from aligner_integrations.engines.base import Finished, Job, ReadAhead
from aligner_integrations.errors import LatencyError
from aligner_integrations.prompts import PromptFormat
from tests.test_aligner import every_way

LIMIT = 0.05


class FakeEngine:
    """Answers a job with what its question says: pieces, "end", or nothing for "never"."""

    name = "fake"
    prompt: PromptFormat | None = None

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def submit(self, jobs: Sequence[Job]) -> None:
        self.jobs += jobs
        for job in jobs:
            words = job.question.split()
            for word in words:
                if word == "end":
                    text = "".join(word for word in words if word != "end")
                    job.emit(Finished(text, CorrectionStats()))
                elif word != "never":
                    job.emit(word)

    def read_ahead(self, question: str) -> ReadAhead | None:
        return None

    def calibrate(self) -> None:
        return None


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@every_way
def test_late_is_an_error(engine: FakeEngine, ask: Callable[..., Correction]) -> None:
    started = time.monotonic()
    with pytest.raises(LatencyError, match=r"longer than max_latency=0.05 s; allow it more time"):
        ask(Aligner(engine), "never", "answer", max_latency=LIMIT)
    assert LIMIT * 0.9 <= time.monotonic() - started < 5
    assert [job.cancelled for job in engine.jobs] == [True]


@every_way
@pytest.mark.parametrize("policy", ["original", "refuse"])
def test_policies(engine: FakeEngine, ask: Callable[..., Correction], policy: str) -> None:
    aligner = Aligner(engine, options={"max_latency": LIMIT})
    correction = ask(aligner, "never", "answer", on_error=policy)
    assert correction.text == ("answer" if policy == "original" else aligner.refusal_text)
    assert correction.policy == policy
    assert (correction.error or "").startswith("LatencyError: ")
    assert correction.stats.stop_reason == "policy"
    assert engine.jobs[0].cancelled


@every_way
def test_in_time(engine: FakeEngine, ask: Callable[..., Correction]) -> None:
    for limit in (5, 1e12, float("inf")):  # more seconds than a lock can wait for
        assert ask(Aligner(engine), "a b end", "answer", max_latency=limit).text == "ab"


@every_way
def test_what_was_handed_out_stays(engine: FakeEngine, ask: Callable[..., Correction]) -> None:
    call: dict[str, Any] = {"max_latency": LIMIT, "on_error": "original"}
    if "stream" in ask.__name__:
        with pytest.raises(LatencyError):
            ask(Aligner(engine), "a never", "answer", **call)
        # Held text was not handed out.
        call["options"] = {"stream_by": "word"}
    assert ask(Aligner(engine), "a never", "answer", **call).text == "answer"


@pytest.mark.parametrize("is_async", [False, True])
def test_a_late_answer_takes_no_others_along(engine: FakeEngine, is_async: bool) -> None:
    """The first uses up everyone's time, but the others were done, and are only read late."""
    aligner = Aligner(engine)
    pairs = [("never", "1"), ("a b c end", "2"), ("a never", "3"), ("d end", "4")]
    call: dict[str, Any] = {"max_latency": LIMIT, "return_exceptions": True}
    if is_async:
        results = asyncio.run(aligner.acorrect_batch(pairs, **call))
    else:
        results = aligner.correct_batch(pairs, **call)
    assert [getattr(result, "text", None) for result in results] == [None, "abc", None, "d"]
    assert [isinstance(result, LatencyError) for result in results] == [True, False, True, False]


def test_pieces_may_take_their_time(engine: FakeEngine) -> None:
    def answer() -> Iterator[str]:
        for piece in ("an", "swer"):
            time.sleep(3 * LIMIT)
            yield piece

    async def aanswer() -> AsyncIterator[str]:
        for piece in ("an", "swer"):
            await asyncio.sleep(3 * LIMIT)
            yield piece

    async def read(source: Any) -> str:
        stream = Aligner(engine).astream("a end", source, max_latency=LIMIT)
        return "".join([piece async for piece in stream])

    assert list(Aligner(engine).stream("a end", answer(), max_latency=LIMIT)) == ["a"]
    assert asyncio.run(read(aanswer())) == asyncio.run(read(answer())) == "a"


def test_a_slow_reader_is_not_late(engine: FakeEngine) -> None:
    pieces = []
    for piece in Aligner(engine).stream("a b c end", "answer", max_latency=LIMIT):
        time.sleep(LIMIT)
        pieces.append(piece)
    assert pieces == ["a", "b", "c"]


async def test_the_loop_goes_on(engine: FakeEngine) -> None:
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    with pytest.raises(LatencyError):
        await Aligner(engine).acorrect("never", "answer", max_latency=0.3)
    ticking.cancel()
    assert ticks >= 5


async def test_a_busy_loop_is_not_the_models_fault() -> None:
    """The answer is there in time; the loop sees it and the deadline at once."""

    class Slow(FakeEngine):
        def submit(self, jobs: Sequence[Job]) -> None:
            threading.Timer(0.1, super().submit, [jobs]).start()

    correcting = asyncio.create_task(Aligner(Slow()).acorrect("a b end", "answer", max_latency=0.3))
    await asyncio.sleep(0.05)
    time.sleep(0.5)  # noqa: ASYNC251
    assert (await correcting).text == "ab"


def test_a_real_model_stops(tiny_aligner: Aligner) -> None:
    with pytest.raises(LatencyError):
        tiny_aligner.correct("q", "some answer", max_latency=1e-9)
    assert tiny_aligner.correct("q", "x", max_latency=1e-9, on_error="original").text == "x"
