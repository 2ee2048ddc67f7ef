"""`Answering`: one answer of an LLM on its way through an `AlignedLLM`."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Generic

from llama_index.core.base.llms.types import ChatResponse

from aligner_integrations.correction import Correction
from aligner_integrations.llama_index.messages import (
    LLMResponse,
    clean_message,
    finish_response,
    read_text,
    replace_text,
)
from aligner_integrations.llama_index.react import find_answer_so_far, split_scaffold
from aligner_integrations.llama_index.traced import TracedStep

THINKING = "thinking_delta"


@dataclass
class Answering(Generic[LLMResponse]):
    """What is asked, what the LLM has answered so far, and what of it a client gets.

    Args:
        step: What corrects.
        question: What was asked.
        react: Whether the LLM was told to answer in ReAct's form.
        calls_tools: Whether a response calls tools, and so is no answer.
    """

    step: TracedStep
    question: str
    react: bool
    calls_tools: Callable[[LLMResponse], bool]
    raw: list[LLMResponse] = field(default_factory=list)
    kept: str = ""
    answer: str = ""
    text: str = ""
    _deltas: str = ""
    _read: int = 0

    def push(self, response: LLMResponse) -> str:
        """Take the LLM's next response; returns what of the answer the aligner may read."""
        self.raw.append(response)
        self._deltas += response.delta or ""
        sure = find_answer_so_far(self._deltas) if self.react else self._deltas
        news, self._read = sure[self._read :], len(sure)
        return news

    def close(self) -> bool:
        """The LLM is done; returns whether there is something to correct."""
        if not self.raw or any(self.calls_tools(response) for response in self.raw):
            return False
        # A stream may give its text in deltas or whole, and end with a response that has none.
        text = max(*map(read_text, self.raw), self._deltas, key=len)
        self.kept, self.answer = split_scaffold(text) if self.react else ("", text)
        self.text = self.kept
        return bool(self.answer.strip())

    def correct(self) -> LLMResponse:
        """The one response of a call without a stream, corrected."""
        if not self.close():
            return self.raw[0]
        return self.finish(self.step.correct(self.question, self.answer), None)

    async def acorrect(self) -> LLMResponse:
        """`correct`, without blocking the event loop."""
        if not self.close():
            return self.raw[0]
        return self.finish(await self.step.acorrect(self.question, self.answer), None)

    def begin(self) -> list[LLMResponse]:
        """What goes before the correction: ReAct's scaffolding and the thoughts of the model."""
        thoughts = "".join(
            response.additional_kwargs.get(THINKING) or ""
            for response in self.raw
            if isinstance(response, ChatResponse)
        )
        more: dict[str, Any] = {THINKING: thoughts} if thoughts else {}
        if not self.kept and not more:
            return []
        return [self._show(self.kept, more)]

    def show(self, piece: str) -> LLMResponse:
        """A response with the next piece of the correction."""
        self.text += piece
        return self._show(piece, {})

    def finish(self, correction: Correction, delta: str | None = "") -> LLMResponse:
        """The last response: the whole text, usage and the record."""
        last = self.raw[-1]
        if delta is not None:  # thoughts were handed out at the beginning
            kept = {key: v for key, v in last.additional_kwargs.items() if key != THINKING}
            last = last.model_copy(update={"additional_kwargs": kept})
        return finish_response(last, self.kept + correction.text, correction, delta=delta)

    def _show(self, piece: str, more: dict[str, Any]) -> LLMResponse:
        last = clean_message(self.raw[-1], self.answer.strip())
        return replace_text(last, self.text, delta=piece, additional_kwargs=more)


def write(
    answering: Answering[LLMResponse], responses: Iterator[LLMResponse]
) -> Generator[LLMResponse, None, None]:
    """The responses of a client's stream: all of them once the LLM's stream has ended."""
    ahead = answering.step.read_ahead(answering.question)
    try:
        for response in responses:
            if (news := answering.push(response)) and ahead is not None:
                ahead.extend(news)
        if not answering.close():
            yield from answering.raw
            return
        yield from answering.begin()
        corrections: list[Correction] = []
        for piece in answering.step.stream(
            answering.question, answering.answer, ahead, corrections.append
        ):
            yield answering.show(piece)
        yield answering.finish(corrections[0])
    finally:
        if ahead is not None:
            ahead.close()


async def awrite(
    answering: Answering[LLMResponse], responses: AsyncIterator[LLMResponse]
) -> AsyncGenerator[LLMResponse, None]:
    """`write` as an async generator."""
    ahead = await answering.step.aread_ahead(answering.question)
    try:
        async for response in responses:
            if (news := answering.push(response)) and ahead is not None:
                ahead.extend(news)
        if not answering.close():
            for response in answering.raw:
                yield response
            return
        for response in answering.begin():
            yield response
        corrections: list[Correction] = []
        stream = answering.step.astream(
            answering.question, answering.answer, ahead, corrections.append
        )
        async with aclosing(stream):
            async for piece in stream:
                yield answering.show(piece)
        yield answering.finish(corrections[0])
    finally:
        if ahead is not None:
            ahead.close()
