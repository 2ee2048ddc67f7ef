from __future__ import annotations

from typing import Any

import pytest
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.chat_engine import CondenseQuestionChatEngine
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.schema import QueryBundle

from aligner_integrations import Aligner
from aligner_integrations.engines.base import Job
from aligner_integrations.llama_index import AlignerQueryEngine
from tests.llama_index.clients import ASYNC, as_async, ask, read
from tests.llama_index.conftest import MakeEngine
from tests.llama_index.upstream import CORRECTED, QUESTION, ScriptedLLM


@ASYNC
@pytest.mark.parametrize("piece_length", [1, 1000])
async def test_raw_text_never_reaches_a_streaming_client(
    aligner: Aligner, make_engine: MakeEngine, is_async: bool, piece_length: int
) -> None:
    engine = AlignerQueryEngine(make_engine(streaming=True, piece_length=piece_length), aligner)

    response = await ask(engine, is_async)

    seen = ""
    async for piece in as_async(response.response_gen):
        seen += piece
        assert CORRECTED.startswith(seen)
    assert seen == CORRECTED
    assert "stupid" not in f"{vars(response)}"


@ASYNC
async def test_stream_is_a_generator_and_writes_its_record_at_the_end(
    aligner: Aligner, make_engine: MakeEngine, is_async: bool
) -> None:
    response = await ask(AlignerQueryEngine(make_engine(streaming=True), aligner), is_async)
    response.metadata = {"outer engine": "puts its own metadata here"}

    pieces = as_async(response.response_gen)
    await anext(pieces)
    assert "aligner" not in response.metadata
    async for _ in pieces:
        pass

    assert response.metadata["aligner"]["changed"] is True
    assert response.metadata["outer engine"]


def test_streaming_response_as_a_whole(aligner: Aligner, make_engine: MakeEngine) -> None:
    engine = AlignerQueryEngine(make_engine(streaming=True), aligner)

    whole = engine.query(QUESTION).get_response()

    assert whole.response == CORRECTED
    assert whole.metadata["aligner"]["changed"] is True
    assert len(whole.source_nodes) == 2


async def test_async_streaming_response_as_a_whole(
    aligner: Aligner, make_engine: MakeEngine
) -> None:
    engine = AlignerQueryEngine(make_engine(streaming=True), aligner)

    whole = await (await engine.aquery(QUESTION)).get_response()

    assert whole.response == CORRECTED
    assert whole.metadata["aligner"]["changed"] is True


@ASYNC
async def test_stream_that_was_read_before_is_corrected_too(
    aligner: Aligner, make_engine: MakeEngine, is_async: bool
) -> None:
    class ReadingEngine(BaseQueryEngine):
        """Like an engine that logs the answers it hands on."""

        def _get_prompt_modules(self) -> dict[str, Any]:
            return {}

        def _query(self, query_bundle: QueryBundle) -> Any:
            response = make_engine(streaming=True).query(query_bundle)
            response.get_response()
            return response

        async def _aquery(self, query_bundle: QueryBundle) -> Any:
            response = await make_engine(streaming=True).aquery(query_bundle)
            await response.get_response()
            return response

    response = await ask(AlignerQueryEngine(ReadingEngine(None), aligner), is_async)

    assert "".join(await read(response)) == CORRECTED


@ASYNC
async def test_closing_a_stream_frees_the_aligner(
    aligner: Aligner, make_engine: MakeEngine, jobs: list[Job], is_async: bool
) -> None:
    response = await ask(AlignerQueryEngine(make_engine(streaming=True), aligner), is_async)

    if is_async:
        await anext(response.response_gen)
        await response.response_gen.aclose()
    else:
        next(response.response_gen)
        response.response_gen.close()

    assert [job.cancelled for job in jobs] == [True]
    assert "aligner" not in response.metadata


@ASYNC
async def test_errors_of_the_wrapped_engine_are_its_own(
    aligner: Aligner, make_engine: MakeEngine, is_async: bool
) -> None:
    inner = make_engine(streaming=True, fails_after=3)
    engine = AlignerQueryEngine(inner, aligner, on_error="original")
    with pytest.raises(ConnectionError, match="hung up"):
        await anext(as_async((await ask(engine, is_async)).response_gen))


def test_inside_a_streaming_chat_engine(aligner: Aligner, make_engine: MakeEngine) -> None:
    chat = CondenseQuestionChatEngine.from_defaults(
        AlignerQueryEngine(make_engine(streaming=True), aligner),
        llm=ScriptedLLM(),
        memory=ChatMemoryBuffer.from_defaults(),  # the default leaves its database open
    )

    response = chat.stream_chat(QUESTION)

    assert "".join(response.response_gen) == CORRECTED
    assert [message.content for message in chat.chat_history] == [QUESTION, CORRECTED]
