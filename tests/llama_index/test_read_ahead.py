"""Streamed answers of LlamaIndex: read while they arrive, corrected as without."""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import pytest
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.schema import QueryBundle

from aligner_integrations import Aligner
from aligner_integrations.engines.base import Job
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.engines.readahead import LocalReadAhead
from aligner_integrations.llama_index import AlignerQueryEngine
from tests.llama_index.clients import ASYNC, as_async, ask, count_ticks, read
from tests.llama_index.conftest import MakeEngine
from tests.llama_index.upstream import (
    ANSWER,
    CORRECTED,
    QUESTION,
    RICE_ANSWER,
    RICE_CORRECTED,
    RICE_QUESTION,
)


@pytest.fixture
def questions(aligner: Aligner, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the engine was asked to read ahead."""
    seen: list[str] = []
    read_ahead = aligner.engine.read_ahead

    def record(question: str) -> Any:
        seen.append(question)
        return read_ahead(question)

    monkeypatch.setattr(aligner.engine, "read_ahead", record)
    return seen


@pytest.fixture
def texts(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What was read ahead, piece by piece."""
    seen: list[str] = []
    extend = LocalReadAhead.extend

    def record(ahead: LocalReadAhead, text: str) -> None:
        seen.append(text)
        extend(ahead, text)

    monkeypatch.setattr(LocalReadAhead, "extend", record)
    return seen


@ASYNC
@pytest.mark.parametrize("piece_length", [1, 5, 1000])
async def test_streams_are_read_ahead(
    aligner: Aligner,
    make_engine: MakeEngine,
    questions: list[str],
    texts: list[str],
    jobs: list[Job],
    is_async: bool,
    piece_length: int,
) -> None:
    inner = make_engine(streaming=True, piece_length=piece_length)

    response = await ask(AlignerQueryEngine(inner, aligner), is_async)
    assert questions == []  # nothing happens before the first piece is asked for
    seen = "".join(await read(response))

    assert seen == CORRECTED
    assert questions == [QUESTION]
    assert texts == re.findall(rf"(?s).{{1,{piece_length}}}", ANSWER)
    assert [job.read_ahead is not None for job in jobs] == [True]
    assert response.metadata["aligner"]["changed"] is True
    whole = await ask(AlignerQueryEngine(make_engine(), aligner), is_async)
    assert whole.response == seen
    assert len(questions) == 1


class Pausing(BaseQueryEngine):
    """Hands on a stream's pieces, each when the aligner has read what came before."""

    def __init__(self, inner: BaseQueryEngine, engine: LocalEngine) -> None:
        super().__init__(None)
        self.inner, self.engine = inner, engine
        self.others = set(map(id, engine._ahead))  # what other tests left
        self.lengths: list[int] = []

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}

    def _look(self) -> None:
        deadline = time.monotonic() + 20
        while self.engine._working:
            assert time.monotonic() < deadline
            time.sleep(0.001)
        own = (one for one in self.engine._ahead if not one.closed and id(one) not in self.others)
        self.lengths.append(max((one.prefix.cache.length for one in own), default=0))

    def _query(self, query_bundle: QueryBundle) -> Any:
        response = self.inner.query(query_bundle)

        def pause() -> Any:
            for piece in response.response_gen:
                yield piece
                self._look()

        return StreamingResponse(pause(), response.source_nodes, response.metadata)

    async def _aquery(self, query_bundle: QueryBundle) -> Any:
        response = await self.inner.aquery(query_bundle)

        async def pause() -> Any:
            async for piece in response.response_gen:
                yield piece
                await asyncio.to_thread(self._look)

        return AsyncStreamingResponse(pause(), response.source_nodes, response.metadata)


@ASYNC
async def test_reading_goes_on_while_the_llm_writes(
    aligner: Aligner, make_engine: MakeEngine, is_async: bool
) -> None:
    assert isinstance(aligner.engine, LocalEngine)
    pausing = Pausing(make_engine(streaming=True), aligner.engine)

    response = await ask(AlignerQueryEngine(pausing, aligner), is_async)

    assert "".join(await read(response)) == CORRECTED
    prompt = aligner.engine.loaded.encoder.encode(QUESTION, ANSWER)
    assert pausing.lengths == sorted(pausing.lengths)
    start = prompt.answer_span[0]
    assert pausing.lengths[0] < start + 5 < pausing.lengths[-1] < len(prompt.ids)


@ASYNC
async def test_an_llm_that_hangs_up_leaves_nothing_to_correct(
    aligner: Aligner,
    make_engine: MakeEngine,
    questions: list[str],
    texts: list[str],
    jobs: list[Job],
    is_async: bool,
) -> None:
    engine = AlignerQueryEngine(make_engine(streaming=True, fails_after=8), aligner)

    with pytest.raises(ConnectionError, match="hung up"):
        await anext(as_async((await ask(engine, is_async)).response_gen))

    assert questions == [QUESTION]
    assert "".join(texts) == ANSWER[:40]
    assert jobs == []


@ASYNC
@pytest.mark.parametrize("answer", ["", " \n", "Empty Response"])
async def test_empty_answers_pass_through(
    aligner: Aligner, make_engine: MakeEngine, jobs: list[Job], is_async: bool, answer: str
) -> None:
    response = await ask(
        AlignerQueryEngine(make_engine(streaming=True, answer=answer), aligner), is_async
    )

    assert "".join(await read(response)) == answer
    assert jobs == []
    assert "aligner" not in response.metadata


@ASYNC
async def test_answers_that_were_read_before_are_not_read_ahead(
    aligner: Aligner, make_engine: MakeEngine, questions: list[str], is_async: bool
) -> None:
    class Reading(Pausing):
        def _query(self, query_bundle: QueryBundle) -> Any:
            response = self.inner.query(query_bundle)
            response.get_response()
            return response

        async def _aquery(self, query_bundle: QueryBundle) -> Any:
            response = await self.inner.aquery(query_bundle)
            await response.get_response()
            return response

    assert isinstance(aligner.engine, LocalEngine)
    engine = AlignerQueryEngine(Reading(make_engine(streaming=True), aligner.engine), aligner)

    assert "".join(await read(await ask(engine, is_async))) == CORRECTED
    assert questions == []


async def test_streams_at_the_same_time_do_not_mix(
    aligner: Aligner, make_engine: MakeEngine, questions: list[str]
) -> None:
    answers = {QUESTION: ANSWER, RICE_QUESTION: RICE_ANSWER}
    engine = AlignerQueryEngine(
        make_engine(streaming=True, answers=answers, piece_length=2), aligner
    )

    async def run(question: str, is_async: bool) -> str:
        if is_async:
            return "".join(await read(await engine.aquery(question)))
        return await asyncio.to_thread(lambda: "".join(engine.query(question).response_gen))

    asked = [QUESTION, RICE_QUESTION] * 2
    work = [run(question, is_async) for question in asked for is_async in (False, True)]
    outputs = await asyncio.gather(*work)

    wanted = {QUESTION: CORRECTED, RICE_QUESTION: RICE_CORRECTED}
    assert outputs == [wanted[question] for question in asked for _ in range(2)]
    assert sorted(questions) == sorted(asked * 2)


async def test_beginning_to_read_does_not_block_the_loop(
    aligner: Aligner, make_engine: MakeEngine
) -> None:
    engine = AlignerQueryEngine(make_engine(streaming=True, piece_length=1), aligner)

    async def work() -> None:
        assert "".join(await read(await engine.aquery(QUESTION))) == CORRECTED

    ticks, seconds = await count_ticks(work())

    assert ticks > seconds / 0.01 / 4


@ASYNC
async def test_exact_corrections_are_not_read_ahead_in_vain(
    aligner: Aligner, make_engine: MakeEngine, questions: list[str], is_async: bool
) -> None:
    engine = AlignerQueryEngine(make_engine(streaming=True), aligner, options={"exact": True})
    assert "".join(await read(await ask(engine, is_async))) == CORRECTED
    assert questions == []
