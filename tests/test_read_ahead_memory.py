"""What was read of an answer that never became whole is let go at once.

A traceback holds the frames that the error went through, and may be held for long: by a log, by a
cycle that the garbage collector has yet to find. What it must not hold is a row's keys and values,
tens of megabytes.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from langchain_core.messages import AIMessageChunk
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.runnables import RunnableGenerator
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.llms import CompletionResponse

from aligner_integrations import AlignedChatModel, Aligner, AlignerRunnable
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.llama_index import AlignedLLM, AlignerQueryEngine
from tests.langchain.conftest import Upstream
from tests.llama_index.upstream import ScriptedLLM
from tests.server.upstream import wait_for

QUESTION = "How do I boil eggs?"
PIECES = ["Boil them in water. "] * 8


class Source:
    """Writes pieces, and breaks when the aligner has read some of them."""

    def __init__(self, engine: LocalEngine) -> None:
        self.engine = engine
        self.read = False

    def held(self) -> list[int]:
        return [one.prefix.cache.length for one in self.engine._ahead if one.prefix.cache.keys]

    def pieces(self, *_: Any) -> Iterator[str]:
        yield from PIECES
        wait_for(lambda: any(self.held()), 30)
        self.read = any(self.held())
        raise ConnectionError("the upstream hung up")

    async def apieces(self, *_: Any) -> AsyncIterator[str]:
        for piece in self.pieces():
            yield piece
            await asyncio.sleep(0)


class BrokenChatModel(Upstream):
    source: Any

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
        for piece in self.source.pieces():
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece))


class BrokenLLM(ScriptedLLM):
    source: Any

    def stream_complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> Any:
        def write() -> Iterator[CompletionResponse]:
            text = ""
            for piece in self.source.pieces():
                text += piece
                yield CompletionResponse(text=text, delta=piece)

        return write()


class BrokenQueryEngine(BaseQueryEngine):
    def __init__(self, source: Source) -> None:
        super().__init__(None)
        self.source = source

    def _get_prompt_modules(self) -> dict[str, Any]:
        return {}

    def _query(self, query_bundle: Any) -> Any:
        return StreamingResponse(self.source.pieces())

    async def _aquery(self, query_bundle: Any) -> Any:
        return AsyncStreamingResponse(self.source.apieces())


async def read_all(pieces: Any) -> None:
    async for _ in pieces:
        pass


async def stream(aligner: Aligner, source: Source) -> None:
    await asyncio.to_thread(list, aligner.stream(QUESTION, source.pieces()))


async def astream(aligner: Aligner, source: Source) -> None:
    await read_all(aligner.astream(QUESTION, source.apieces()))


async def acorrect(aligner: Aligner, source: Source) -> None:
    pairs: list[Any] = [(QUESTION, source.apieces()), (QUESTION, "Boil them.")]
    await aligner.acorrect_batch(pairs)


async def runnable(aligner: Aligner, source: Source) -> None:
    chain = RunnableGenerator(source.pieces) | AlignerRunnable(aligner).bind(question=QUESTION)
    await asyncio.to_thread(list, chain.stream(QUESTION))


async def arunnable(aligner: Aligner, source: Source) -> None:
    chain = RunnableGenerator(source.apieces) | AlignerRunnable(aligner).bind(question=QUESTION)
    await read_all(chain.astream(QUESTION))


async def chat_model(aligner: Aligner, source: Source) -> None:
    model = AlignedChatModel(BrokenChatModel(source=source), aligner=aligner)
    await asyncio.to_thread(list, model.stream(QUESTION))


async def achat_model(aligner: Aligner, source: Source) -> None:
    model = AlignedChatModel(BrokenChatModel(source=source), aligner=aligner)
    await read_all(model.astream(QUESTION))


async def llm(aligner: Aligner, source: Source) -> None:
    await asyncio.to_thread(
        list, AlignedLLM(BrokenLLM(source=source), aligner=aligner).stream_complete(QUESTION)
    )


async def allm(aligner: Aligner, source: Source) -> None:
    model = AlignedLLM(BrokenLLM(source=source), aligner=aligner)
    await read_all(await model.astream_complete(QUESTION))


async def query_engine(aligner: Aligner, source: Source) -> None:
    engine = AlignerQueryEngine(BrokenQueryEngine(source), aligner)
    response: Any = await asyncio.to_thread(engine.query, QUESTION)
    await asyncio.to_thread(list, response.response_gen)


async def aquery_engine(aligner: Aligner, source: Source) -> None:
    response: Any = await AlignerQueryEngine(BrokenQueryEngine(source), aligner).aquery(QUESTION)
    await read_all(response.async_response_gen())


WAYS = [stream, astream, acorrect, runnable, arunnable, chat_model, achat_model]
WAYS += [llm, allm, query_engine, aquery_engine]


@pytest.fixture
def engine(tiny_aligner: Aligner) -> LocalEngine:
    shared = tiny_aligner.engine
    assert isinstance(shared, LocalEngine)
    return LocalEngine(shared.loaded)


@contextlib.contextmanager
def no_collection() -> Iterator[None]:
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


@pytest.mark.parametrize("way", WAYS)
async def test_an_error_holds_no_keys_and_values(
    engine: LocalEngine, way: Callable[[Aligner, Source], Any]
) -> None:
    source = Source(engine)
    with no_collection():
        with pytest.raises(ConnectionError) as caught:
            await way(Aligner(engine, options={"max_new_tokens": 20}), source)
        assert source.read
        await asyncio.to_thread(wait_for, lambda: not engine._working, 30)
        assert source.held() == []
    assert caught.value.__traceback__ is not None  # it is held


async def test_cancelled(engine: LocalEngine) -> None:
    source, reached = Source(engine), asyncio.Event()

    async def wait() -> AsyncIterator[str]:
        for piece in PIECES:
            yield piece
        await asyncio.to_thread(wait_for, lambda: any(source.held()), 30)
        reached.set()
        await asyncio.sleep(60)

    with no_collection():
        stream = Aligner(engine).astream(QUESTION, wait())
        task = asyncio.create_task(read_all(stream))
        await asyncio.wait_for(reached.wait(), 30)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.to_thread(wait_for, lambda: not engine._working, 30)
        assert source.held() == []
        assert stream is not None  # it is held
