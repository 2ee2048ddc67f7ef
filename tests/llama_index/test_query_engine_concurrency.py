from __future__ import annotations

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from llama_index.core.base.base_query_engine import BaseQueryEngine

from aligner_integrations import Aligner
from aligner_integrations.engines.base import Job
from aligner_integrations.llama_index import AlignerQueryEngine
from tests.llama_index.clients import ASYNC, ask, count_ticks, read
from tests.llama_index.conftest import MakeEngine
from tests.llama_index.upstream import (
    ANSWER,
    CORRECTED,
    QUESTION,
    RICE_ANSWER,
    RICE_CORRECTED,
    RICE_QUESTION,
)


async def test_cancelling_a_query_frees_the_aligner(
    aligner: Aligner, make_engine: MakeEngine, jobs: list[Job]
) -> None:
    query = asyncio.create_task(AlignerQueryEngine(make_engine(), aligner).aquery(QUESTION))
    while not jobs:  # noqa: ASYNC110 - the engine has no event to wait for
        await asyncio.sleep(0.001)

    query.cancel()
    with pytest.raises(asyncio.CancelledError):
        await query

    assert [job.cancelled for job in jobs] == [True]


async def test_two_queries_at_once_do_not_mix(aligner: Aligner, make_engine: MakeEngine) -> None:
    answers = {QUESTION: ANSWER, RICE_QUESTION: RICE_ANSWER}
    plain = AlignerQueryEngine(make_engine(answers=answers), aligner)
    stream = AlignerQueryEngine(make_engine(answers=answers, streaming=True), aligner)

    async def run(engine: BaseQueryEngine, question: str) -> str:
        return "".join(await read(await engine.aquery(question)))

    with ThreadPoolExecutor() as pool:
        loop = asyncio.get_running_loop()
        texts = await asyncio.gather(
            run(plain, QUESTION),
            run(stream, RICE_QUESTION),
            run(plain, RICE_QUESTION),
            run(stream, QUESTION),
            loop.run_in_executor(pool, lambda: str(plain.query(QUESTION))),
            loop.run_in_executor(pool, lambda: str(stream.query(RICE_QUESTION))),
        )

    eggs, rice = CORRECTED, RICE_CORRECTED
    assert texts == [eggs, rice, rice, eggs, eggs, rice]


@pytest.mark.parametrize("streaming", [False, True])
async def test_event_loop_keeps_running(
    aligner: Aligner, make_engine: MakeEngine, streaming: bool
) -> None:
    engine = AlignerQueryEngine(make_engine(streaming=streaming), aligner)

    async def ask_and_read() -> None:
        await read(await engine.aquery(QUESTION))

    ticks, seconds = await count_ticks(ask_and_read())

    assert ticks > 20 * seconds  # of 100 a second, were the machine idle


@ASYNC
async def test_aligner_is_loaded_at_the_first_query(
    loads: list[tuple[Any, str]], make_engine: MakeEngine, is_async: bool
) -> None:
    bundled = AlignerQueryEngine(make_engine(answer="Ok."))
    named = AlignerQueryEngine(make_engine(answer="Ok."), model="some/model")
    assert loads == []

    await ask(bundled, is_async)
    await ask(named, is_async)

    assert [source for source, _ in loads] == [
        {},
        {},
        {"model": "some/model"},
        {"model": "some/model"},
    ]
    on_loop = threading.current_thread().name
    assert all((thread != on_loop) is is_async for _, thread in loads)


def test_model_that_is_missing_is_known_before_the_llm_runs(make_engine: MakeEngine) -> None:
    inner = make_engine()
    engine = AlignerQueryEngine(inner, model="/no/such/directory")

    with pytest.raises(FileNotFoundError):
        engine.query(QUESTION)

    assert inner._response_synthesizer._llm.calls == 0
