"""Upstream fakes, and an aligner that says what it was asked."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from typing import Any

import pytest
from langchain_core.callbacks import CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from pydantic import Field

from aligner_integrations import Aligner
from aligner_integrations.correction import CorrectionStats
from aligner_integrations.engines.base import Finished, Job


class EchoEngine:
    """Corrects every answer to ``<question> -> <answer>``, in words, so tests see both."""

    name = "echo"
    prompt = None

    def __init__(self) -> None:
        self.batches: list[int] = []
        self.error: Exception | None = None

    def read_ahead(self, question: str) -> None:
        return None

    def calibrate(self) -> None:
        pass

    def submit(self, jobs: Sequence[Job]) -> None:
        self.batches.append(len(jobs))
        for job in jobs:
            if self.error is not None:
                job.emit(self.error)
                continue
            text = f"{job.question} -> {job.answer}"
            for index, word in enumerate(text.split(" ")):
                job.emit(word if index == 0 else f" {word}")
            job.emit(Finished(text, CorrectionStats()))


CANARY = "zinnober"
"""A word that only raw answers hold."""


class CanaryEngine(EchoEngine):
    """Takes the canary out, word by word, and keeps the jobs."""

    name = "canary"

    def __init__(self) -> None:
        super().__init__()
        self.jobs: list[Job] = []

    def submit(self, jobs: Sequence[Job]) -> None:
        self.jobs += jobs
        for job in jobs:
            if self.error is not None:
                job.emit(self.error)
                continue
            text = job.answer.replace(f"{CANARY} ", "").replace(CANARY, "")
            for index, word in enumerate(text.split(" ")):
                job.emit(word if index == 0 else f" {word}")
            job.emit(Finished(text, CorrectionStats()))


class Upstream(BaseChatModel):
    """A chat model whose answer is a function of its messages."""

    answer: Callable[[list[BaseMessage]], str | AIMessage] = Field(
        default=lambda messages: f"answer to {messages[-1].text}"
    )
    delay: float = 0.0
    failures: int = 0
    fixed_id: str | None = None

    @property
    def _llm_type(self) -> str:
        return "upstream"

    def _answer(self, messages: list[BaseMessage]) -> AIMessage:
        if self.failures > 0:
            self.failures -= 1
            raise ValueError("upstream failed")
        answer = self.answer(messages)
        message = AIMessage(answer) if isinstance(answer, str) else answer
        return message.model_copy(update={"id": self.fixed_id or message.id})

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        time.sleep(self.delay)
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages))])

    async def _agenerate(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> ChatResult:
        await asyncio.sleep(self.delay)
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages))])

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        message = self._answer(messages)
        if not isinstance(message.content, str) or message.tool_calls:
            whole = AIMessageChunk(**message.model_dump(exclude={"type"}))
            yield ChatGenerationChunk(message=whole)
            return
        for word in message.content.split(" "):
            time.sleep(self.delay / 10)
            piece = AIMessageChunk(content=f"{word} ", id=message.id)
            yield ChatGenerationChunk(message=piece)
        rest = message.model_dump(exclude={"type", "content"})
        yield ChatGenerationChunk(message=AIMessageChunk(content="", **rest))

    async def _astream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            await asyncio.sleep(self.delay / 10)
            yield chunk


@pytest.fixture
def engine() -> EchoEngine:
    return EchoEngine()


@pytest.fixture
def canary() -> CanaryEngine:
    return CanaryEngine()


@pytest.fixture
def guard(canary: CanaryEngine) -> Aligner:
    """An aligner that takes the canary out."""
    return Aligner(canary)


@pytest.fixture
def echo(engine: EchoEngine) -> Aligner:
    """An aligner that answers ``<question> -> <answer>``."""
    return Aligner(engine)


MODES = ("invoke", "ainvoke", "stream", "astream", "batch", "abatch")


async def run(runnable: Any, value: Any, mode: str, **kwargs: Any) -> Any:
    """Call a runnable in one of six ways; streams are added up."""
    if mode == "invoke":
        return runnable.invoke(value, **kwargs)
    if mode == "ainvoke":
        return await runnable.ainvoke(value, **kwargs)
    if mode == "batch":
        return runnable.batch([value], **kwargs)[0]
    if mode == "abatch":
        return (await runnable.abatch([value], **kwargs))[0]
    if mode == "stream":
        chunks = list(runnable.stream(value, **kwargs))
    else:
        chunks = [chunk async for chunk in runnable.astream(value, **kwargs)]
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


def text_of(output: Any) -> str:
    """The text of a str or message, without the space that a streamed answer ends with."""
    return (output if isinstance(output, str) else str(output.text)).strip()
