"""The only fake of these tests: an upstream LLM that says what it is told to say."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Sequence
from typing import Any

from llama_index.core.base.llms.generic_utils import chat_response_to_completion_response
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
    LogProb,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import Field
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_chat_callback, llm_completion_callback
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import ToolSelection

QUESTION = "How do I boil eggs?"
CANARY = "You are clearly too stupid to cook."
ANSWER = f"Boil them for 8 minutes. {CANARY} Then cool them in cold water."
CORRECTED = "Boil them for 8 minutes.  Then cool them in cold water."


class ScriptedLLM(CustomLLM):
    """Answers every prompt with ``answer``, or with the answer of the question that it holds."""

    answer: str = ANSWER
    answers: dict[str, str] = Field(default_factory=dict)
    piece_length: int = 5
    fails_after: int | None = None  # pieces; then the stream breaks
    calls: int = 0

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="scripted")

    def _find_answer(self, prompt: str) -> str:
        self.calls += 1
        found = [answer for question, answer in self.answers.items() if question in prompt]
        return found[0] if found else self.answer

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self._find_answer(prompt))

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        answer = self._find_answer(prompt)

        def write() -> CompletionResponseGen:
            pieces = re.findall(rf"(?s).{{1,{self.piece_length}}}", answer) or [""]
            for number, piece in enumerate(pieces):
                if number == self.fails_after:
                    raise ConnectionError("the upstream LLM hung up")
                yield CompletionResponse(text="".join(pieces[: number + 1]), delta=piece)

        return write()


RICE_QUESTION = "How do I cook rice?"
RICE_ANSWER = "Cook the rice for 15 minutes. You are a complete idiot. Then let it rest."
RICE_CORRECTED = "Cook the rice for 15 minutes. Then let it rest."


class CallingLLM(FunctionCallingLLM):
    """Takes the steps of a script: texts to answer with, or calls of tools.

    Which step comes next is read from the messages, so runs at the same time don't mix. The steps
    of a question that is in ``scripts`` come from there.
    """

    steps: list[Any] = Field(default_factory=list)
    scripts: dict[str, list[Any]] = Field(default_factory=dict)
    piece_length: int = 5
    asked: list[Any] = Field(default_factory=list)

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="calling", is_chat_model=True, is_function_calling_model=True)

    def _answer(self, messages: Sequence[ChatMessage]) -> ChatResponse:
        self.asked.append(list(messages))
        users = [m.content or "" for m in messages if m.role == "user"]
        steps = self.steps
        for text in users:
            steps = next((s for q, s in self.scripts.items() if q in text), steps)
        start = max((i for i, m in enumerate(messages) if _is_users(m)), default=0)
        step = steps[sum(_is_result(m) for m in messages[start:])]
        raw = {"choices": [str(step)], "usage": {"total_tokens": 7}, "model": "calling"}
        more = {"prompt_tokens": 3, "echo": {"text": [str(step)]}}
        if isinstance(step, str):
            message = ChatMessage(role="assistant", content=step, additional_kwargs={"echo": step})
            logprobs = [[LogProb(token=step)]]
            return ChatResponse(message=message, raw=raw, additional_kwargs=more, logprobs=logprobs)
        call = ToolCallBlock(tool_call_id="1", tool_name=step[0], tool_kwargs=step[1])
        remark = TextBlock(text="Let me see.")
        return ChatResponse(message=ChatMessage(role="assistant", blocks=[remark, call]), raw=raw)

    @llm_chat_callback()
    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._answer(messages)

    @llm_chat_callback()
    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        return self._answer(messages)

    def _pieces(self, messages: Sequence[ChatMessage]) -> Iterator[ChatResponse]:
        whole = self._answer(messages)
        text = whole.message.content or ""
        for end in range(self.piece_length, len(text) + self.piece_length, self.piece_length):
            done = end >= len(text)
            blocks = [TextBlock(text=text[:end])]
            if done:
                blocks += [b for b in whole.message.blocks if not isinstance(b, TextBlock)]
            message = whole.message.model_copy(update={"blocks": blocks})
            delta = text[end - self.piece_length : end]
            yield whole.model_copy(update={"message": message, "delta": delta})

    @llm_chat_callback()
    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        def write() -> ChatResponseGen:
            yield from self._pieces(messages)

        return write()

    @llm_chat_callback()
    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        async def write() -> ChatResponseAsyncGen:
            for piece in self._pieces(messages):
                await asyncio.sleep(0)
                yield piece

        return write()

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return chat_response_to_completion_response(self._answer([ChatMessage(prompt)]))

    @llm_completion_callback()
    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        return chat_response_to_completion_response(self._answer([ChatMessage(prompt)]))

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        def write() -> CompletionResponseGen:
            for piece in self._pieces([ChatMessage(prompt)]):
                yield chat_response_to_completion_response(piece)

        return write()

    @llm_completion_callback()
    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        async def write() -> CompletionResponseAsyncGen:
            for piece in self._pieces([ChatMessage(prompt)]):
                yield chat_response_to_completion_response(piece)

        return write()

    def _prepare_chat_with_tools(
        self,
        tools: Any,
        user_msg: Any = None,
        chat_history: Any = None,
        tool_required: bool = False,
        **kwargs: Any,
    ) -> dict[str, Any]:
        last = ChatMessage(user_msg) if isinstance(user_msg, str) else user_msg
        return {"messages": [*(chat_history or []), *([last] if last else [])]}

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        calls = [
            ToolSelection(tool_id="1", tool_name=b.tool_name, tool_kwargs=b.tool_kwargs)
            for b in response.message.blocks
            if isinstance(b, ToolCallBlock)
        ]
        if error_on_no_tool_call and not calls:
            raise ValueError("no tool calls")
        return calls


def _is_result(message: ChatMessage) -> bool:
    return message.role == "tool" or (message.content or "").startswith("Observation:")


def _is_users(message: ChatMessage) -> bool:
    return message.role == "user" and not _is_result(message)
