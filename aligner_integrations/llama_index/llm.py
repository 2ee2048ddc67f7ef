"""`AlignedLLM`: an LLM whose answers are corrected."""

from __future__ import annotations

from collections.abc import (
    AsyncGenerator,
    AsyncIterator,
    Awaitable,
    Callable,
    Generator,
    Iterator,
    Sequence,
)
from functools import partial
from typing import Any

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    ChatResponseAsyncGen,
    ChatResponseGen,
    CompletionResponse,
    CompletionResponseAsyncGen,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import Field, SerializeAsAny
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM, ToolSelection
from llama_index.core.tools.types import BaseTool
from typing_extensions import Unpack

from aligner_integrations.aligner import Aligner
from aligner_integrations.conversation import History, check_history
from aligner_integrations.errors import ConfigurationError, InputTypeError
from aligner_integrations.llama_index.answering import Answering, awrite, write
from aligner_integrations.llama_index.component import make_fields
from aligner_integrations.llama_index.messages import LLMResponse, calls_tools, require_functions
from aligner_integrations.llama_index.questions import (
    Question,
    check_question,
    find_asked,
    list_messages,
)
from aligner_integrations.llama_index.react import asks_for_react
from aligner_integrations.llama_index.saving import SavedLLM
from aligner_integrations.llama_index.structured import StructuredPassThrough
from aligner_integrations.step import StepArguments


class AlignedLLM(StructuredPassThrough, SavedLLM, FunctionCallingLLM):  # type: ignore[misc]
    """An LLM whose answers were read and corrected by an aligner.

    Stands wherever the wrapped LLM stood: in chat and query engines, workflows and agents.
    ``complete``, ``chat``, their streams and their async forms answer corrected, also with tools.
    A stream is read by the aligner as it comes and hands out corrected deltas once it is whole;
    the last response of a stream has an empty delta, the usage and the record.

    Left alone are messages that call tools, structured predictions, and the scaffolding of ReAct
    agents, where only what follows "Answer:" is corrected. It is recognised where the prompt asks
    for it.

    The record of a correction stands in the response's ``additional_kwargs`` under ``"aligner"``.
    Of ``raw``, the provider's own answer, only id, model and usage stay where the text was
    changed, and log probabilities are dropped.

    Args:
        llm: The LLM whose answers are corrected.
        aligner: The aligner; by default one is loaded at the first answer.
        history: Which turns of the conversation the question holds: the user's ``"last"`` one,
            ``"all"``, or what a function picks from the messages.
        question: A function that finds the question in the messages, in place of ``history``. In
            RAG the last message is the whole template with the retrieved texts, so it may take
            the question out of that. A prompt for ``complete`` comes as one user message.
        **step: See `CorrectionStep`. They are fields too, which may be changed later. Errors of
            the wrapped LLM are raised whatever the policies say.

    Raises:
        InputTypeError: ``llm`` is no LlamaIndex LLM.
        ConfigurationError: Another argument has a value that cannot work.

    Example:
        >>> from aligner_integrations.llama_index import AlignedLLM
        >>> from llama_index.core.llms import MockLLM
        >>> llm = AlignedLLM(MockLLM())
        >>> llm.complete("Boil the eggs for 8 minutes.").additional_kwargs["aligner"]["model"]
        'aligner-smol'
    """

    llm: SerializeAsAny[LLM] = Field(description="The LLM whose answers are corrected.")
    history: Any = Field(default="last", description="Which turns the question holds.")
    question: Any = Field(default=None, description="Finds the question in the messages.")

    def __init__(
        self,
        llm: LLM,
        aligner: Aligner | None = None,
        *,
        history: History = "last",
        question: Question | None = None,
        **step: Unpack[StepArguments],
    ) -> None:
        _check_llm(llm)
        check_history(history)
        check_question(question)
        super().__init__(
            llm=llm,
            history=history,
            question=question,
            callback_manager=llm.callback_manager,
            system_prompt=llm.system_prompt,
            messages_to_prompt=llm.messages_to_prompt,
            completion_to_prompt=llm.completion_to_prompt,
            output_parser=llm.output_parser,
            pydantic_program_mode=llm.pydantic_program_mode,
            query_wrapper_prompt=llm.query_wrapper_prompt,
            **make_fields(aligner, step),
        )
        self._aligner = aligner

    @classmethod
    def class_name(cls) -> str:
        """The name under which LlamaIndex writes this component down."""
        return "AlignedLLM"

    @property
    def metadata(self) -> LLMMetadata:
        """The wrapped LLM's; it calls functions where that one can."""
        metadata: LLMMetadata = self.llm.metadata
        can = metadata.is_function_calling_model and isinstance(self.llm, FunctionCallingLLM)
        return metadata.model_copy(update={"is_function_calling_model": can})

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "callback_manager":  # the wrapped LLM is what reports to it
            self.llm.callback_manager = value

    def chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """The wrapped LLM's answer, corrected."""
        return self._ask(messages, lambda: self.llm.chat(messages, **kwargs))

    async def achat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponse:
        """`chat`, without blocking the event loop."""
        return await self._aask(messages, lambda: self.llm.achat(messages, **kwargs))

    def stream_chat(self, messages: Sequence[ChatMessage], **kwargs: Any) -> ChatResponseGen:
        """`chat`, piece by piece."""
        return self._stream(messages, lambda: self.llm.stream_chat(messages, **kwargs))

    async def astream_chat(
        self, messages: Sequence[ChatMessage], **kwargs: Any
    ) -> ChatResponseAsyncGen:
        """`stream_chat` as an async generator."""
        return await self._astream(messages, lambda: self.llm.astream_chat(messages, **kwargs))

    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        """The wrapped LLM's completion, corrected as an answer to the prompt."""
        return self._ask(
            [ChatMessage(prompt)], lambda: self.llm.complete(prompt, formatted, **kwargs)
        )

    async def acomplete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponse:
        """`complete`, without blocking the event loop."""
        return await self._aask(
            [ChatMessage(prompt)], lambda: self.llm.acomplete(prompt, formatted, **kwargs)
        )

    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        """`complete`, piece by piece."""
        return self._stream(
            [ChatMessage(prompt)], lambda: self.llm.stream_complete(prompt, formatted, **kwargs)
        )

    async def astream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseAsyncGen:
        """`stream_complete` as an async generator."""
        return await self._astream(
            [ChatMessage(prompt)], lambda: self.llm.astream_complete(prompt, formatted, **kwargs)
        )

    def chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        **kwargs: Any,
    ) -> ChatResponse:
        """The wrapped LLM's tool calls as they are, or its answer, corrected."""
        messages, llm = list_messages(user_msg, chat_history), require_functions(self.llm)
        return self._ask(
            messages, lambda: llm.chat_with_tools(tools, user_msg, chat_history, **kwargs)
        )

    async def achat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        **kwargs: Any,
    ) -> ChatResponse:
        """`chat_with_tools`, without blocking the event loop."""
        messages, llm = list_messages(user_msg, chat_history), require_functions(self.llm)
        return await self._aask(
            messages, lambda: llm.achat_with_tools(tools, user_msg, chat_history, **kwargs)
        )

    def stream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        **kwargs: Any,
    ) -> ChatResponseGen:
        """`chat_with_tools`, piece by piece."""
        messages, llm = list_messages(user_msg, chat_history), require_functions(self.llm)
        return self._stream(
            messages, lambda: llm.stream_chat_with_tools(tools, user_msg, chat_history, **kwargs)
        )

    async def astream_chat_with_tools(
        self,
        tools: Sequence[BaseTool],
        user_msg: str | ChatMessage | None = None,
        chat_history: list[ChatMessage] | None = None,
        **kwargs: Any,
    ) -> ChatResponseAsyncGen:
        """`stream_chat_with_tools` as an async generator."""
        messages, llm = list_messages(user_msg, chat_history), require_functions(self.llm)
        return await self._astream(
            messages, lambda: llm.astream_chat_with_tools(tools, user_msg, chat_history, **kwargs)
        )

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls that the wrapped LLM sees in a response."""
        calls: list[ToolSelection] = require_functions(self.llm).get_tool_calls_from_response(
            response, error_on_no_tool_call=error_on_no_tool_call, **kwargs
        )
        return calls

    def _prepare_chat_with_tools(
        self, tools: Sequence[BaseTool], *args: Any, tool_required: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        prepared: dict[str, Any] = require_functions(self.llm)._prepare_chat_with_tools_compat(
            tools, *args, tool_required=tool_required, **kwargs
        )
        return prepared

    def _ask(self, messages: Sequence[ChatMessage], call: Callable[[], LLMResponse]) -> LLMResponse:
        self._step().load()  # a model that can't be loaded is known before the LLM runs
        answering: Answering[LLMResponse] = self._begin(messages)
        answering.push(call())
        return answering.correct()

    async def _aask(
        self, messages: Sequence[ChatMessage], call: Callable[[], Awaitable[LLMResponse]]
    ) -> LLMResponse:
        await self._step().aload()
        answering: Answering[LLMResponse] = self._begin(messages)
        answering.push(await call())
        return await answering.acorrect()

    def _stream(
        self, messages: Sequence[ChatMessage], call: Callable[[], Iterator[LLMResponse]]
    ) -> Generator[LLMResponse, None, None]:
        self._step().load()
        return write(self._begin(messages), call())

    async def _astream(
        self,
        messages: Sequence[ChatMessage],
        call: Callable[[], Awaitable[AsyncIterator[LLMResponse]]],
    ) -> AsyncGenerator[LLMResponse, None]:
        await self._step().aload()
        answering: Answering[LLMResponse] = self._begin(messages)
        return awrite(answering, await call())

    def _begin(self, asked: Sequence[ChatMessage]) -> Answering[Any]:
        react, render = asks_for_react(asked), self._step().render
        found = find_asked(list(asked), self.history, render, react=react, question=self.question)
        return Answering(self._traced(), found, react, partial(calls_tools, self.llm))


def _check_llm(llm: Any) -> None:
    if not isinstance(llm, LLM):
        raise InputTypeError(
            f"llm must be a LlamaIndex LLM, not {type(llm).__name__}; for a LangChain model use "
            "aligner_integrations.langchain.AlignedChatModel"
        )
    if isinstance(llm, AlignedLLM):
        raise ConfigurationError(
            "llm is an AlignedLLM already, and its answers would be corrected twice; use it as it "
            "is, or wrap its .llm"
        )
