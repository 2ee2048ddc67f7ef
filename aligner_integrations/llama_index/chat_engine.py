"""`AlignerChatEngine`: corrects the answers of any LlamaIndex chat engine."""

from __future__ import annotations

import asyncio
import copy
from collections.abc import AsyncGenerator, AsyncIterator, Generator
from contextlib import aclosing, asynccontextmanager
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, ChatResponse, MessageRole
from llama_index.core.chat_engine.types import (
    AgentChatResponse,
    BaseChatEngine,
    StreamingAgentChatResponse,
)
from llama_index.core.memory import BaseMemory
from typing_extensions import Unpack

from aligner_integrations.aligner import Aligner
from aligner_integrations.conversation import History, check_history, find_question
from aligner_integrations.correction import Correction
from aligner_integrations.errors import InputTypeError
from aligner_integrations.llama_index.chat_response import (
    AlignedChatStream,
    replace_answer,
    replace_sources,
)
from aligner_integrations.llama_index.memory import HeldMemory
from aligner_integrations.llama_index.messages import read_turns
from aligner_integrations.llama_index.responses import is_no_answer
from aligner_integrations.llama_index.traced import TracedStep
from aligner_integrations.step import RECORD_KEY, CorrectionStep, StepArguments


class AlignerChatEngine(BaseChatEngine):  # type: ignore[misc]
    """A chat engine whose answers were read and corrected by an aligner.

    ``chat``, ``stream_chat`` and their async forms answer corrected, and the chat history holds
    the corrected answers: each turn runs on a copy of the wrapped engine whose memory keeps the
    answer back until it is corrected, so the raw one never stands in the history, not even for a
    moment. The answer of a stream joins it at the stream's end; one that is left midway leaves the
    user's message there, and no answer.

    Sources, source nodes and metadata are kept; the record of the correction joins the metadata
    under ``"aligner"``, of a stream when it ends.

    Args:
        chat_engine: The engine whose answers are corrected. It must keep its memory in
            ``_memory``, as all engines of LlamaIndex do.
        aligner: The aligner; by default one is loaded at the first message.
        history: Which turns of the conversation the question holds: the user's ``"last"`` one,
            ``"all"``, or what a function picks from the messages.
        **step: See `CorrectionStep`. Errors of the wrapped engine are raised whatever the
            policies say.

    Raises:
        InputTypeError: ``chat_engine`` is no LlamaIndex chat engine, or has no such memory.
        ConfigurationError: Another argument has a value that cannot work.

    Example:
        >>> from aligner_integrations.llama_index import AlignerChatEngine
        >>> from llama_index.core.chat_engine import SimpleChatEngine
        >>> from llama_index.core.llms import MockLLM
        >>> from llama_index.core.memory import ChatMemoryBuffer
        >>> memory = ChatMemoryBuffer.from_defaults()
        >>> engine = SimpleChatEngine.from_defaults(llm=MockLLM(), memory=memory)
        >>> chat = AlignerChatEngine(engine)
        >>> chat.chat("How do I boil eggs?").metadata["aligner"]["model"]
        'aligner-smol'
    """

    def __init__(
        self,
        chat_engine: BaseChatEngine,
        aligner: Aligner | None = None,
        *,
        history: History = "last",
        **step: Unpack[StepArguments],
    ) -> None:
        if not isinstance(chat_engine, BaseChatEngine):
            raise InputTypeError(
                f"chat_engine must be a LlamaIndex chat engine, not {type(chat_engine).__name__}; "
                "an index makes one with as_chat_engine()"
            )
        if not isinstance(getattr(chat_engine, "_memory", None), BaseMemory):
            raise InputTypeError(
                f"{type(chat_engine).__name__} has no memory in ._memory, so raw answers could not "
                "be kept out of its history; give it an AlignedLLM instead"
            )
        check_history(history)
        self._chat_engine = chat_engine
        self._history = history
        self._step = CorrectionStep(aligner, **step)

    @classmethod
    def class_name(cls) -> str:
        """The name under which events report this engine."""
        return "AlignerChatEngine"

    @property
    def chat_history(self) -> list[ChatMessage]:
        """The wrapped engine's history, in which the answers are corrected ones."""
        messages: list[ChatMessage] = self._chat_engine.chat_history
        return messages

    def reset(self) -> None:
        """Forget the conversation."""
        self._chat_engine.reset()

    def chat(
        self, message: str, chat_history: list[ChatMessage] | None = None, **kwargs: Any
    ) -> AgentChatResponse:
        """The wrapped engine's answer, corrected."""
        self._step.load()  # a model that can't be loaded is known before the LLM runs
        question = self._find_question(message, self._read_earlier(chat_history))
        engine, memory = self._open()
        response = engine.chat(message, chat_history, **kwargs)
        correction = None
        if _has_answer(response):
            correction = self._traced().correct(question, response.response)
        memory.release(correction)
        return replace_answer(response, correction) if correction else response

    async def achat(
        self, message: str, chat_history: list[ChatMessage] | None = None, **kwargs: Any
    ) -> AgentChatResponse:
        """`chat`, without blocking the event loop."""
        await self._step.aload()
        question = self._find_question(message, await self._aread_earlier(chat_history))
        engine, memory = self._open()
        response = await engine.achat(message, chat_history, **kwargs)
        correction = None
        if _has_answer(response):
            correction = await self._traced().acorrect(question, response.response)
        await memory.arelease(correction)
        return replace_answer(response, correction) if correction else response

    def stream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None, **kwargs: Any
    ) -> AlignedChatStream:
        """`chat`, piece by piece: read ``response_gen``."""
        self._step.load()
        question = self._find_question(message, self._read_earlier(chat_history))
        engine, memory = self._open()
        raw = engine.stream_chat(message, chat_history, **kwargs)
        response = _make_stream(raw)
        response.chat_stream = self._write(self._traced(), question, raw, memory, response)
        return response

    async def astream_chat(
        self, message: str, chat_history: list[ChatMessage] | None = None, **kwargs: Any
    ) -> AlignedChatStream:
        """`stream_chat`, to be read with ``async_response_gen()``."""
        await self._step.aload()
        question = self._find_question(message, await self._aread_earlier(chat_history))
        engine, memory = self._open()
        raw = await engine.astream_chat(message, chat_history, **kwargs)
        response = _make_stream(raw)
        response.achat_stream = self._awrite(self._traced(), question, raw, memory, response)
        return response

    def _read_earlier(self, chat_history: list[ChatMessage] | None) -> list[ChatMessage]:
        if self._history == "last":
            return []
        return self.chat_history if chat_history is None else chat_history

    async def _aread_earlier(self, chat_history: list[ChatMessage] | None) -> list[ChatMessage]:
        if self._history == "last" or chat_history is not None:
            return self._read_earlier(chat_history)
        messages: list[ChatMessage] = await self._chat_engine._memory.aget_all()
        return messages

    def _find_question(self, message: str, earlier: list[ChatMessage]) -> str:
        messages = [*earlier, ChatMessage(role=MessageRole.USER, content=str(message))]
        return find_question(messages, self._history, read_turns, self._step.render)

    def _traced(self) -> TracedStep:
        return TracedStep(self.class_name(), self._step)

    def _open(self) -> tuple[BaseChatEngine, HeldMemory]:
        """A copy of the engine for one turn, and its memory; turns at the same time don't mix."""
        engine = copy.copy(self._chat_engine)
        engine._memory = HeldMemory(self._chat_engine._memory)
        return engine, engine._memory

    def _write(
        self,
        step: TracedStep,
        question: str,
        raw: StreamingAgentChatResponse,
        memory: HeldMemory,
        response: AlignedChatStream,
    ) -> Generator[ChatResponse, None, None]:
        answer, ahead = step.read_along(question, raw.response_gen)
        corrections: list[Correction] = []
        if is_no_answer(answer):
            yield _show(answer, answer)
        else:
            text = ""
            for piece in step.stream(question, answer, ahead, corrections.append):
                text += piece
                yield _show(text, piece)
        correction = corrections[0] if corrections else None
        memory.release(correction)
        _finish(response, raw, answer, correction)

    async def _awrite(
        self,
        step: TracedStep,
        question: str,
        raw: StreamingAgentChatResponse,
        memory: HeldMemory,
        response: AlignedChatStream,
    ) -> AsyncGenerator[ChatResponse, None]:
        async with _writer(raw):
            answer, ahead = await step.aread_along(question, raw.async_response_gen())
        corrections: list[Correction] = []
        if is_no_answer(answer):
            yield _show(answer, answer)
        else:
            text = ""
            stream = step.astream(question, answer, ahead, corrections.append)
            async with aclosing(stream):
                async for piece in stream:
                    text += piece
                    yield _show(text, piece)
        correction = corrections[0] if corrections else None
        await memory.arelease(correction)
        _finish(response, raw, answer, correction)


@asynccontextmanager
async def _writer(raw: StreamingAgentChatResponse) -> AsyncIterator[None]:
    """The task that runs an async stream: awaited at its end, cancelled if we are."""
    # Taken from the response, which would wait for it to finish even when it is cancelled.
    task, raw.awrite_response_to_history_task = raw.awrite_response_to_history_task, None
    try:
        yield
    except BaseException:
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        raise
    if task is not None:
        await task


def _has_answer(response: Any) -> bool:
    """Whether a response holds something to correct.

    Raises:
        InputTypeError: It is of a kind that we don't know; what it holds must not get through.
    """
    if not isinstance(response, AgentChatResponse):
        raise InputTypeError(
            f"the chat engine answered with a {type(response).__name__}; AlignerChatEngine "
            "corrects AgentChatResponse, and streams from stream_chat"
        )
    # "None" is what LlamaIndex makes of a message without text.
    return response.response != "None" and not is_no_answer(response.response)


def _make_stream(raw: StreamingAgentChatResponse) -> AlignedChatStream:
    return AlignedChatStream(
        sources=replace_sources(raw.sources, None, None), source_nodes=list(raw.source_nodes)
    )


def _finish(
    response: AlignedChatStream,
    raw: StreamingAgentChatResponse,
    answer: str,
    correction: Correction | None,
) -> None:
    text = correction.text if correction else answer
    record = {RECORD_KEY: correction.record()} if correction else {}
    response.finish(text, replace_sources(raw.sources, answer, text), record)


def _show(text: str, delta: str) -> ChatResponse:
    return ChatResponse(message=ChatMessage(role=MessageRole.ASSISTANT, content=text), delta=delta)
