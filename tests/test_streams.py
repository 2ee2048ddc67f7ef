"""Streams: iterators as answers, closing early, and what a stream may still do about an error."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from aligner_integrations import Aligner
from aligner_integrations.decoding.rows import Row
from aligner_integrations.errors import CorrectionError
from aligner_integrations.streams import AsyncCorrectionStream, CorrectionStream
from tests.passes import on_pass

WRITES = "Cool water, 😀 kindly."
ENDLESS = {"max_new_tokens": 400}  # what the random model writes; it never ends by itself


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each pass of any model, slowed so that a test can act between two."""
    seen: list[int] = []

    def slow(rows: list[Row]) -> None:
        seen.append(len(rows))
        time.sleep(0.01)

    on_pass(monkeypatch, slow)
    return seen


def wait_for(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def wait_for_end(aligner: Aligner) -> None:
    wait_for(lambda: f"aligner {aligner.name}" not in {t.name for t in threading.enumerate()})


async def read_all(stream: AsyncIterator[str]) -> list[str]:
    return [piece async for piece in stream]


def test_pieces_come_one_by_one(writer: Aligner) -> None:
    pieces = list(writer.stream("q", "answer"))
    assert "".join(pieces) == WRITES
    assert len(pieces) > 8
    assert all(pieces)


def test_pieces_come_before_the_end(tiny_aligner: Aligner, passes: list[int]) -> None:
    with tiny_aligner.stream("q", "answer", options=ENDLESS) as stream:
        assert next(stream)
        assert len(passes) < 20


def pieces_of(text: str) -> Iterator[str]:
    yield from text


async def apieces_of(text: str) -> AsyncIterator[str]:
    for letter in text:
        await asyncio.sleep(0)
        yield letter


@pytest.mark.parametrize("make", [str, list, pieces_of], ids=["str", "list", "generator"])
async def test_answers_may_come_in_pieces(writer: Aligner, make: Callable[[str], Any]) -> None:
    answer = "some <|im_end|> answer 😀"
    stream = writer.stream("q", make(answer))
    assert "".join(stream) == WRITES
    assert stream.correction.answer == answer
    astream = writer.astream("q", make(answer))
    assert "".join(await read_all(astream)) == WRITES
    assert astream.correction.answer == answer


async def test_answers_may_come_asynchronously(writer: Aligner) -> None:
    stream = writer.astream("q", apieces_of("an answer"))
    assert "".join(await read_all(stream)) == WRITES
    assert stream.correction.answer == "an answer"


async def test_blank_pieces_are_a_blank_answer(writer: Aligner) -> None:
    assert list(writer.stream("q", iter([" ", "\n"]))) == [" \n"]
    assert await read_all(writer.astream("q", apieces_of("\n"))) == ["\n"]
    assert list(writer.stream("q", iter([]))) == []


async def test_an_upstream_that_fails_raises_its_own_error(writer: Aligner) -> None:
    def broken() -> Iterator[str]:
        yield "half"
        raise ConnectionError("upstream hung up")

    async def abroken() -> AsyncIterator[str]:
        yield "half"
        raise ConnectionError("upstream hung up")

    with pytest.raises(ConnectionError, match="hung up"):
        list(writer.stream("q", broken(), on_error="original"))
    for answer in (broken(), abroken()):
        with pytest.raises(ConnectionError, match="hung up"):
            await read_all(writer.astream("q", answer, on_error="original"))


def test_nothing_is_read_before_it_is_asked_for(writer: Aligner) -> None:
    read: list[str] = []
    stream = writer.stream("q", (read.append(x) or x for x in "abc"))
    assert read == []
    next(stream)
    assert read == ["a", "b", "c"]


async def test_correction_is_there_after_the_end_only(writer: Aligner) -> None:
    stream, astream = writer.stream("q", "a"), writer.astream("q", "a")
    next(stream)
    await anext(astream)
    for one in (stream, astream):
        with pytest.raises(CorrectionError, match="has not ended yet; iterate to its end"):
            one.correction  # noqa: B018
    list(stream)
    await read_all(astream)
    assert stream.correction.text == astream.correction.text == WRITES


def leave_with_close(stream: CorrectionStream) -> None:
    next(stream)
    stream.close()
    assert list(stream) == []


def leave_with_block(stream: CorrectionStream) -> None:
    with stream:
        next(stream)


@pytest.mark.parametrize("leave", [leave_with_close, leave_with_block])
def test_leaving_early_frees_the_model(
    tiny_aligner: Aligner, passes: list[int], leave: Callable[[CorrectionStream], None]
) -> None:
    leave(tiny_aligner.stream("q", "answer", options=ENDLESS))
    wait_for_end(tiny_aligner)
    assert len(passes) < 20


async def test_a_broken_loop_frees_the_model(tiny_aligner: Aligner, passes: list[int]) -> None:
    gc.disable()  # nor does that take a garbage collection
    try:
        for _ in tiny_aligner.stream("q", "answer", options=ENDLESS):
            break
        await asyncio.to_thread(wait_for_end, tiny_aligner)
        async for _ in tiny_aligner.astream("q", "answer", options=ENDLESS):
            break
        await asyncio.to_thread(wait_for_end, tiny_aligner)
    finally:
        gc.enable()
    assert len(passes) < 40


async def test_leaving_early_frees_the_model_async(
    tiny_aligner: Aligner, passes: list[int]
) -> None:
    stream = tiny_aligner.astream("q", "answer", options=ENDLESS)
    await anext(stream)
    await stream.aclose()
    assert await read_all(stream) == []
    await asyncio.to_thread(wait_for_end, tiny_aligner)
    async with tiny_aligner.astream("q", "answer", options=ENDLESS) as stream:
        await anext(stream)
    await asyncio.to_thread(wait_for_end, tiny_aligner)
    assert len(passes) < 40


def test_a_stream_closed_before_it_starts_never_asks(
    writer: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer.engine, "submit", lambda jobs: pytest.fail("asked"))
    stream = writer.stream("q", "a")
    stream.close()
    assert list(stream) == []


def test_the_next_request_does_not_wait_for_a_closed_one(
    tiny_aligner: Aligner, passes: list[int]
) -> None:
    with tiny_aligner.stream("q", "answer", options={"max_new_tokens": 400}) as stream:
        next(stream)
    before = len(passes)
    assert tiny_aligner.correct("q", "a", options={"max_new_tokens": 3}, on_error="refuse").policy
    assert len(passes) - before < 10


def test_a_stream_closed_by_another_thread_ends(tiny_aligner: Aligner, passes: list[int]) -> None:
    stream = tiny_aligner.stream("q", "answer", options=ENDLESS)
    threading.Timer(0.1, stream.close).start()
    started = time.monotonic()
    with contextlib.suppress(CorrectionError):  # where it is closed while it waits
        list(stream)
    assert time.monotonic() - started < 5
    wait_for_end(tiny_aligner)


async def test_cancelling_a_task_frees_the_model(tiny_aligner: Aligner, passes: list[int]) -> None:
    tasks = [
        asyncio.create_task(tiny_aligner.acorrect("q", "answer", options=ENDLESS)),
        asyncio.create_task(tiny_aligner.acorrect_batch([("q", "a")] * 3, options=ENDLESS)),
        asyncio.create_task(read_all(tiny_aligner.astream("q", "answer", options=ENDLESS))),
    ]
    await asyncio.to_thread(wait_for, lambda: len(passes) >= 3)
    for task in tasks:
        task.cancel()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [asyncio.CancelledError] * 3
    await asyncio.to_thread(wait_for_end, tiny_aligner)
    assert len(passes) < 60


async def test_a_timeout_frees_the_model(tiny_aligner: Aligner, passes: list[int]) -> None:
    with pytest.raises((TimeoutError, asyncio.TimeoutError)):
        await asyncio.wait_for(tiny_aligner.acorrect("q", "answer", options=ENDLESS), 0.1)
    await asyncio.to_thread(wait_for_end, tiny_aligner)


def test_a_failed_batch_frees_the_model(tiny_aligner: Aligner, passes: list[int]) -> None:
    """The first error is raised, and what was still running for the others stops."""
    with pytest.raises(ValueError, match="lone surrogate"):
        tiny_aligner.correct_batch([("q", "\ud800"), ("q", "a")], options=ENDLESS)
    wait_for_end(tiny_aligner)
    assert len(passes) < 20


def test_a_loop_closed_meanwhile_frees_the_model(tiny_aligner: Aligner, passes: list[int]) -> None:
    streams: list[AsyncCorrectionStream] = []

    async def start() -> None:
        streams.append(tiny_aligner.astream("q", "answer", options=ENDLESS))
        await anext(streams[0])

    asyncio.run(start())
    wait_for_end(tiny_aligner)
    assert len(passes) < 60
