"""One aligner, many threads and event loops at once."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Coroutine
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from aligner_integrations import Aligner
from aligner_integrations.decoding.rows import Row
from tests.passes import on_pass

WRITES = "Cool water, 😀 kindly."
PAIRS = [(f"Which number comes before {n + 1}?", f"It is {n}.") for n in range(11, 43)]
INSULT = ("Capital of France?", "Paris. Only an idiot would ask that.")


def test_threads_each_get_their_own_answer(aligner: Aligner) -> None:
    barrier = threading.Barrier(len(PAIRS))

    def ask(pair: tuple[str, str]) -> str:
        barrier.wait()
        return aligner.correct(*pair).text

    with ThreadPoolExecutor(len(PAIRS)) as pool:
        assert list(pool.map(ask, PAIRS)) == [answer for _, answer in PAIRS]


async def test_tasks_each_get_their_own_answer(aligner: Aligner) -> None:
    corrections = await asyncio.gather(*(aligner.acorrect(*pair) for pair in PAIRS[:16]))
    assert [c.text for c in corrections] == [answer for _, answer in PAIRS[:16]]
    assert [c.question for c in corrections] == [question for question, _ in PAIRS[:16]]


def test_all_ways_at_once(writer: Aligner) -> None:
    """Threads, loops in threads, streams, batches and failures, mixed, many times."""

    async def ask_async() -> list[str]:
        corrections = await asyncio.gather(*(writer.acorrect("q", f"a {n}") for n in range(5)))
        batch = await writer.acorrect_batch([("q", "a"), ("q", "b b")])
        return [c.text for c in [*corrections, *batch]]

    def ask(n: int) -> set[str]:
        match n % 5:
            case 0:
                return {writer.correct("q", "a " * n).text}
            case 1:
                return set(asyncio.run(ask_async()))
            case 2:
                return {"".join(writer.stream("q", iter("a " * n)))}
            case 3:
                with writer.stream("q", "left early") as stream:
                    next(stream)
                return {WRITES}
            case _:
                results = writer.correct_batch(
                    [("q", "a"), ("q", "\ud800"), ("q", "b " * n)], return_exceptions=True
                )
                assert isinstance(results[1], ValueError)
                return {results[0].text, results[2].text}

    with ThreadPoolExecutor(20) as pool:
        assert set().union(*pool.map(ask, range(1, 101))) == {WRITES}


def test_requests_at_the_same_time_share_batches(
    writer: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes: list[int] = []

    def slow(rows: list[Row]) -> None:
        sizes.append(len(rows))
        time.sleep(0.005)

    on_pass(monkeypatch, slow)
    with ThreadPoolExecutor(12) as pool:
        assert set(pool.map(lambda n: writer.correct("q", f"a {n}").text, range(12))) == {WRITES}
    assert max(sizes) > 1
    assert len(sizes) < 12 * 16


async def tick_during(work: Coroutine[Any, Any, Any]) -> tuple[int, float]:
    """How often a task of 5 ms naps woke up meanwhile, and its longest wait."""
    gaps: list[float] = []

    async def tick() -> None:
        while True:
            before = time.perf_counter()
            await asyncio.sleep(0.005)
            gaps.append(time.perf_counter() - before)

    ticker = asyncio.create_task(tick())
    await asyncio.sleep(0.02)
    gaps.clear()
    await work
    ticker.cancel()
    return len(gaps), max(gaps)


async def read_all(aligner: Aligner, answer: Any) -> None:
    async for _ in aligner.astream("q", answer):
        pass


@pytest.mark.parametrize("way", ["acorrect", "acorrect_batch", "astream", "astream from iterator"])
async def test_the_event_loop_goes_on(
    writer: Aligner, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    """With passes of 50 ms (and an upstream iterator that blocks as long)."""

    def upstream() -> Any:
        for _ in range(10):
            time.sleep(0.05)
            yield "a "

    on_pass(monkeypatch, lambda rows: time.sleep(0.05))
    work: Coroutine[Any, Any, Any]
    match way:
        case "acorrect":
            work = writer.acorrect("q", "a")
        case "acorrect_batch":
            work = writer.acorrect_batch([("q", "a"), ("q", "b")])
        case "astream":
            work = read_all(writer, "a")
        case _:
            work = read_all(writer, upstream())
    ticks, longest = await tick_during(work)
    assert ticks > 30
    assert longest < 0.5


async def test_the_event_loop_goes_on_with_the_real_model(aligner: Aligner) -> None:
    ticks, _ = await tick_during(aligner.acorrect(*INSULT))
    assert ticks > 10
