from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.chat_engine import (
    CondensePlusContextChatEngine,
    CondenseQuestionChatEngine,
    ContextChatEngine,
    SimpleChatEngine,
)
from llama_index.core.chat_engine.types import BaseChatEngine
from llama_index.core.llms import ChatMessage, ChatResponse
from llama_index.core.memory import ChatMemoryBuffer, Memory

from aligner_integrations import Aligner, AlignerChatEngine, CorrectWhen
from aligner_integrations.engines.base import Job
from aligner_integrations.errors import ConfigurationError, CorrectionError, InputTypeError
from tests.llama_index.clients import ASYNC, FORMS
from tests.llama_index.leaks import find_leaks
from tests.llama_index.upstream import (
    ANSWER,
    CORRECTED,
    QUESTION,
    RICE_ANSWER,
    RICE_CORRECTED,
    RICE_QUESTION,
    CallingLLM,
    ScriptedLLM,
)

MakeChat = Callable[..., BaseChatEngine]
KINDS = pytest.mark.parametrize("kind", ["simple", "context", "condense+context", "condense"])


@pytest.fixture
def make_chat(index: VectorStoreIndex) -> MakeChat:
    """A chat engine of LlamaIndex; keywords go to the ScriptedLLM."""

    def make(kind: str = "simple", **llm: Any) -> BaseChatEngine:
        chosen = ScriptedLLM(**llm)
        # The default memory leaves its database open.
        more: Any = {"llm": chosen, "memory": ChatMemoryBuffer.from_defaults()}
        if kind == "simple":
            return SimpleChatEngine.from_defaults(**more)
        if kind == "condense":
            engine = index.as_query_engine(llm=chosen)
            return CondenseQuestionChatEngine.from_defaults(engine, **more)
        cls = ContextChatEngine if kind == "context" else CondensePlusContextChatEngine
        return cls.from_defaults(index.as_retriever(), **more)

    return make


async def say(
    chat: BaseChatEngine,
    is_async: bool,
    streaming: bool,
    question: str = QUESTION,
    history: Any = None,
) -> tuple[Any, list[str]]:
    """The response, and the pieces that a client reads."""
    if not streaming:
        response = await chat.achat(question, history) if is_async else chat.chat(question, history)
        return response, [response.response]
    if is_async:
        response = await chat.astream_chat(question, history)
        return response, [piece async for piece in response.async_response_gen()]
    response = chat.stream_chat(question, history)
    return response, list(response.response_gen)


@FORMS
@KINDS
async def test_answers_and_history_are_corrected(
    aligner: Aligner, make_chat: MakeChat, is_async: bool, streaming: bool, kind: str
) -> None:
    inner = make_chat(kind)
    raw, _ = await say(make_chat(kind), is_async, streaming)
    chat = AlignerChatEngine(inner, aligner)

    response, pieces = await say(chat, is_async, streaming)

    assert "".join(pieces) == response.response == str(response) == CORRECTED
    assert isinstance(response, type(raw))
    assert len(pieces) > 1 or not streaming
    assert find_leaks([response, pieces, inner._memory]) == []
    assert [(m.role.value, m.content) for m in chat.chat_history] == [
        ("user", QUESTION),
        ("assistant", CORRECTED),
    ]
    assert response.metadata["aligner"]["changed"] is True
    if (kind, is_async, streaming) != ("condense", True, True):  # LlamaIndex forgets them there
        assert [n.node_id for n in response.source_nodes] == [n.node_id for n in raw.source_nodes]
    assert [s.tool_name for s in response.sources] == [s.tool_name for s in raw.sources]
    if streaming:
        assert response.unformatted_response == CORRECTED
        assert response.queue.empty()


@FORMS
@KINDS
async def test_second_turn_sees_the_corrected_first(
    aligner: Aligner, make_chat: MakeChat, is_async: bool, streaming: bool, kind: str
) -> None:
    prompts: list[str] = []

    class Recording(ScriptedLLM):
        def _find_answer(self, prompt: str) -> str:
            prompts.append(prompt)
            return super()._find_answer(prompt)

    inner = make_chat(kind)
    inner._llm = Recording()
    chat = AlignerChatEngine(inner, aligner)
    await say(chat, is_async, streaming)
    await say(chat, is_async, streaming, RICE_QUESTION)

    assert find_leaks(prompts) == []
    assert CORRECTED in "".join(prompts[-2:])
    assert len(chat.chat_history) == 4
    chat.reset()
    assert chat.chat_history == inner.chat_history == []


@ASYNC
@KINDS
async def test_nothing_raw_stays_of_a_stream_that_is_left(
    aligner: Aligner, make_chat: MakeChat, jobs: list[Job], is_async: bool, kind: str
) -> None:
    chat = AlignerChatEngine(make_chat(kind), aligner)
    if is_async:
        response = await chat.astream_chat(QUESTION)
        pieces = response.async_response_gen()
        await anext(pieces)
        await pieces.aclose()
        await response.achat_stream.aclose()
    else:
        response = chat.stream_chat(QUESTION)
        pieces = response.response_gen
        next(pieces)
        pieces.close()
        response.chat_stream.close()
    await asyncio.sleep(0.2)

    assert [(m.role.value, m.content) for m in chat.chat_history] == [("user", QUESTION)]
    assert find_leaks(response) == []
    assert [job.cancelled for job in jobs] == [True]
    assert response.metadata is None


@ASYNC
async def test_a_stream_that_nobody_reads(
    aligner: Aligner, make_chat: MakeChat, is_async: bool
) -> None:
    chat = AlignerChatEngine(make_chat(), aligner)
    response = await chat.astream_chat(QUESTION) if is_async else chat.stream_chat(QUESTION)
    await asyncio.sleep(0.3)
    assert find_leaks([response, chat._chat_engine._memory]) == []
    assert str(response) == ""
    assert len(chat.chat_history) == 1


async def test_cancelling_an_async_stream(aligner: Aligner, make_chat: MakeChat) -> None:
    class Slow(ScriptedLLM):
        async def astream_chat(self, messages: Any, **kwargs: Any) -> Any:
            gen = await super().astream_chat(messages, **kwargs)

            async def write() -> Any:
                async for piece in gen:
                    await asyncio.sleep(0.5)
                    yield piece

            return write()

    inner = make_chat()
    inner._llm = Slow()
    chat = AlignerChatEngine(inner, aligner)
    started = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(say(chat, True, True), 0.7)
    assert time.monotonic() - started < 3
    assert len(chat.chat_history) == 1


@ASYNC
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
async def test_errors_of_the_wrapped_engine_are_its_own(
    aligner: Aligner, make_chat: MakeChat, jobs: list[Job], is_async: bool
) -> None:
    chat = AlignerChatEngine(make_chat(fails_after=3), aligner, on_error="original")
    with pytest.raises(ConnectionError, match="hung up"):
        await say(chat, is_async, True)
    assert jobs == []
    assert len(chat.chat_history) == 1


@FORMS
async def test_failed_corrections(
    aligner: Aligner,
    make_chat: MakeChat,
    silence: Callable[[Aligner], None],
    is_async: bool,
    streaming: bool,
) -> None:
    silence(aligner)
    chat = AlignerChatEngine(make_chat(), aligner, max_latency=1e-9)
    with pytest.raises(CorrectionError, match="max_latency"):
        await say(chat, is_async, streaming)
    assert len(chat.chat_history) == 1

    chat = AlignerChatEngine(make_chat(), aligner, max_latency=1e-9, on_error="refuse")
    response, pieces = await say(chat, is_async, streaming)
    assert response.metadata["aligner"]["policy"] == "refuse"
    assert find_leaks([response, pieces, chat.chat_history]) == []

    chat = AlignerChatEngine(make_chat(), aligner, correct_when=CorrectWhen(matches="rice"))
    response, pieces = await say(chat, is_async, streaming)
    assert "".join(pieces) == ANSWER == chat.chat_history[-1].content
    assert response.metadata["aligner"]["skipped"] == "correct_when"


@FORMS
async def test_history(
    aligner: Aligner, make_chat: MakeChat, jobs: list[Job], is_async: bool, streaming: bool
) -> None:
    given = [ChatMessage("Hi!"), ChatMessage("Hello!", role="assistant")]
    for history in ("last", "all", lambda messages: f"{len(messages)}: {messages[-1].content}"):
        chat = AlignerChatEngine(make_chat(), aligner, history=history)
        await say(chat, is_async, streaming, QUESTION, list(given))  # the store keeps the list
    await say(chat, is_async, streaming, RICE_QUESTION)

    everything = f"User: Hi!\nAssistant: Hello!\nUser: {QUESTION}"
    assert [job.question for job in jobs] == [
        QUESTION,
        everything,
        f"3: {QUESTION}",
        f"5: {RICE_QUESTION}",
    ]


@FORMS
@pytest.mark.parametrize("answer", ["", "Empty Response"])
async def test_empty_answers_pass_through(
    aligner: Aligner,
    make_chat: MakeChat,
    jobs: list[Job],
    is_async: bool,
    streaming: bool,
    answer: str,
) -> None:
    chat = AlignerChatEngine(make_chat("context", answer=answer), aligner)
    _, pieces = await say(chat, is_async, streaming)
    assert "".join(pieces) in (answer, "Empty Response")
    assert jobs == []


async def test_turns_at_the_same_time_do_not_mix(aligner: Aligner, make_chat: MakeChat) -> None:
    answers = {QUESTION: ANSWER, RICE_QUESTION: RICE_ANSWER}
    chats = {
        q: AlignerChatEngine(make_chat(answers=answers), aligner) for q in (QUESTION, RICE_QUESTION)
    }
    forms = [(True, True), (True, False)]
    asked = [(q, form) for q in chats for form in forms]
    found = await asyncio.gather(*(say(chats[q], *form, q, []) for q, form in asked))
    wanted = {QUESTION: CORRECTED, RICE_QUESTION: RICE_CORRECTED}
    assert ["".join(pieces) for _, pieces in found] == [wanted[q] for q, _ in asked]
    assert find_leaks([chat.chat_history for chat in chats.values()]) == []


@FORMS
@pytest.mark.filterwarnings("ignore::ResourceWarning")
async def test_the_default_memory(aligner: Aligner, is_async: bool, streaming: bool) -> None:
    inner = SimpleChatEngine.from_defaults(llm=ScriptedLLM(), memory=Memory.from_defaults())
    chat = AlignerChatEngine(inner, aligner, history="all")
    await say(chat, is_async, streaming)
    await say(chat, is_async, streaming)
    history = await inner._memory.aget_all()
    assert [m.role.value for m in history] == ["user", "assistant"] * 2
    assert find_leaks(history) == []
    await inner._memory.sql_store._async_engine.dispose()


@ASYNC
async def test_messages_without_text(aligner: Aligner, is_async: bool, jobs: list[Job]) -> None:
    class Silent(CallingLLM):
        def _answer(self, messages: Any) -> ChatResponse:
            return ChatResponse(message=ChatMessage(role="assistant"))

    inner = SimpleChatEngine.from_defaults(llm=Silent(), memory=ChatMemoryBuffer.from_defaults())
    response, _ = await say(AlignerChatEngine(inner, aligner), is_async, False)
    assert response.response == "None"
    assert jobs == []


def test_print_response_stream(
    aligner: Aligner, make_chat: MakeChat, capsys: pytest.CaptureFixture[str]
) -> None:
    AlignerChatEngine(make_chat(), aligner).stream_chat(QUESTION).print_response_stream()
    assert capsys.readouterr().out == CORRECTED


def test_wrong_arguments(aligner: Aligner, make_chat: MakeChat) -> None:
    with pytest.raises(InputTypeError, match="as_chat_engine"):
        AlignerChatEngine(ScriptedLLM(), aligner)
    with pytest.raises(ConfigurationError, match="history='first'"):
        AlignerChatEngine(make_chat(), aligner, history="first")
    engine = make_chat()
    engine._memory = None
    with pytest.raises(InputTypeError, match="AlignedLLM"):
        AlignerChatEngine(engine, aligner)
    assert AlignerChatEngine.class_name() == "AlignerChatEngine"
