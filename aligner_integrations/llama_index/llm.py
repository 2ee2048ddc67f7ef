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
from contextlib import aclosing
from contextvars import ContextVar
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
from aligner_integrations.conversation import History, Turn, check_history, find_question
from aligner_integrations.correction import Correction
from aligner_integrations.errors import ConfigurationError, InputTypeError
from aligner_integrations.llama_index.answering import Answering
from aligner_integrations.llama_index.component import AligningComponent, make_fields
from aligner_integrations.llama_index.messages import LLMResponse, has_tool_calls, read_turns
from aligner_integrations.llama_index.react import asks_for_react, is_reasoning
from aligner_integrations.llama_index.structured import StructuredPassThrough
from aligner_integrations.step import StepArguments

Question = Callable[[list[ChatMessage]], str]
"""Finds the question in the messages that an LLM is asked."""

user_message: ContextVar[str | None] = ContextVar("aligner_user_message", default=None)
"""What the user of a running agent said, where the agent knows it better than its prompt."""


class AlignedLLM(StructuredPassThrough, AligningComponent, FunctionCallingLLM):  # type: ignore[misc]
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
        if question is not None and not callable(question):
            raise ConfigurationError(
                f"question={question!r:.80} must be a function of the messages, or None"
            )
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

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**_pick_arguments(state["__dict__"]))  # type: ignore[misc]

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Plain data, the wrapped LLM's included; `from_dict` reads it.

        Raises:
            ConfigurationError: The aligner was not made by `Aligner.from_pretrained`, or gate,
                ``history`` or ``question`` is a function.
        """
        for name in ("history", "question"):
            if callable(value := getattr(self, name)):
                raise ConfigurationError(
                    f"{name}={value!r} is a function, so this AlignedLLM can't be written down"
                )
        data = super().to_dict(**kwargs)
        return {**data, "llm": self.llm.to_dict(), "llm_class": _name_class(type(self.llm))}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> AlignedLLM:
        """The LLM that `to_dict` wrote down.

        Raises:
            ConfigurationError: The wrapped LLM's class has not been imported.
        """
        data = {**data, **kwargs}
        llm = data["llm"]
        if not isinstance(llm, LLM):
            llm = _find_class(data["llm_class"]).from_dict(llm)
        return cls(**{**_pick_arguments(data), "llm": llm})

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
        messages, llm = _list_messages(user_msg, chat_history), self._require_functions()
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
        messages, llm = _list_messages(user_msg, chat_history), self._require_functions()
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
        messages, llm = _list_messages(user_msg, chat_history), self._require_functions()
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
        messages, llm = _list_messages(user_msg, chat_history), self._require_functions()
        return await self._astream(
            messages, lambda: llm.astream_chat_with_tools(tools, user_msg, chat_history, **kwargs)
        )

    def get_tool_calls_from_response(
        self, response: ChatResponse, error_on_no_tool_call: bool = True, **kwargs: Any
    ) -> list[ToolSelection]:
        """The tool calls that the wrapped LLM sees in a response."""
        calls: list[ToolSelection] = self._require_functions().get_tool_calls_from_response(
            response, error_on_no_tool_call=error_on_no_tool_call, **kwargs
        )
        return calls

    def _prepare_chat_with_tools(
        self, tools: Sequence[BaseTool], *args: Any, tool_required: bool = False, **kwargs: Any
    ) -> dict[str, Any]:
        prepared: dict[str, Any] = self._require_functions()._prepare_chat_with_tools_compat(
            tools, *args, tool_required=tool_required, **kwargs
        )
        return prepared

    def _require_functions(self) -> FunctionCallingLLM:
        if isinstance(self.llm, FunctionCallingLLM):
            return self.llm
        raise ConfigurationError(
            f"{type(self.llm).__name__} calls no functions, so its AlignedLLM can't; wrap a "
            "FunctionCallingLLM, or use a ReActAgent, which needs none"
        )

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
        return _write(self._begin(messages), call())

    async def _astream(
        self,
        messages: Sequence[ChatMessage],
        call: Callable[[], Awaitable[AsyncIterator[LLMResponse]]],
    ) -> AsyncGenerator[LLMResponse, None]:
        await self._step().aload()
        answering: Answering[LLMResponse] = self._begin(messages)
        return _awrite(answering, await call())

    def _begin(self, messages: Sequence[ChatMessage]) -> Answering[Any]:
        react = asks_for_react(messages)
        question = self._find_question(list(messages), react)
        return Answering(self._traced(), question, react, self._calls_tools)

    def _find_question(self, messages: list[ChatMessage], react: bool) -> str:
        if self.question is not None:
            question = self.question(messages)
            if not isinstance(question, str):
                raise InputTypeError(
                    f"question= gave a {type(question).__name__} for {len(messages)} messages; "
                    "it must give a str"
                )
            return question

        def read(chosen: list[ChatMessage]) -> list[Turn]:
            if react:
                chosen = [message for message in chosen if not is_reasoning(message)]
            return _with_user_message(read_turns(chosen))

        return find_question(messages, self.history, read, self._step().render)

    def _calls_tools(self, response: ChatResponse | CompletionResponse) -> bool:
        if not isinstance(response, ChatResponse):
            return False
        if has_tool_calls(response.message):
            return True
        if not self.metadata.is_function_calling_model:
            return False
        try:
            calls = self.llm.get_tool_calls_from_response(response, error_on_no_tool_call=False)
        except (AttributeError, KeyError, NotImplementedError, ValueError):
            return False  # a form that its own LLM can't read calls no tool
        return bool(calls)


def _write(
    answering: Answering[LLMResponse], responses: Iterator[LLMResponse]
) -> Generator[LLMResponse, None, None]:
    ahead = answering.step.read_ahead(answering.question)
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


async def _awrite(
    answering: Answering[LLMResponse], responses: AsyncIterator[LLMResponse]
) -> AsyncGenerator[LLMResponse, None]:
    ahead = await answering.step.aread_ahead(answering.question)
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
    stream = answering.step.astream(answering.question, answering.answer, ahead, corrections.append)
    async with aclosing(stream):
        async for piece in stream:
            yield answering.show(piece)
    yield answering.finish(corrections[0])


def _with_user_message(turns: list[Turn]) -> list[Turn]:
    """The turns, the user's last one in the user's own words where an agent knows them."""
    said = user_message.get()
    if not said:
        return turns
    last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=len(turns))
    return [*turns[:last], Turn("user", said), *turns[last + 1 :]]


def _list_messages(
    user_msg: str | ChatMessage | None, chat_history: list[ChatMessage] | None
) -> list[ChatMessage]:
    last = ChatMessage(user_msg) if isinstance(user_msg, str) else user_msg
    return [*(chat_history or []), *([last] if last is not None else [])]


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


def _pick_arguments(fields: dict[str, Any]) -> dict[str, Any]:
    names = ("llm", "history", "question", *StepArguments.__annotations__)
    return {name: fields[name] for name in names if name in fields}


def _name_class(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _find_class(name: str) -> Any:
    """A class of LLMs that was imported; data must not decide what code is imported."""
    waiting = [LLM]
    while waiting:
        cls = waiting.pop()
        if _name_class(cls) == name:
            return cls
        waiting += cls.__subclasses__()
    raise ConfigurationError(
        f"llm_class={name!r} is no LLM that has been imported; import its module before from_dict"
    )
