"""`AlignedChatModel`: a chat model whose answers have been corrected."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import aclosing, closing
from functools import partial
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForLLMRun, CallbackManagerForLLMRun
from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage
from langchain_core.outputs import ChatGenerationChunk, ChatResult, LLMResult
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import ensure_config

from aligner_integrations.aligner import Aligner
from aligner_integrations.engines.base import ReadAhead
from aligner_integrations.errors import InputTypeError
from aligner_integrations.gates import CorrectWhen
from aligner_integrations.langchain.alone import (
    ALONE,
    aiterate_within,
    astream_alone,
    configured,
    iterate_within,
    stream_alone,
    unheard,
)
from aligner_integrations.langchain.answers import Answer, has_tool_calls
from aligner_integrations.langchain.chunks import ChunkWriter
from aligner_integrations.langchain.events import adispatch_within, dispatch_within
from aligner_integrations.langchain.generations import (
    as_answer,
    as_generation,
    is_structured,
    read_message,
    read_result,
    replace_answers,
)
from aligner_integrations.langchain.reading import Reading
from aligner_integrations.langchain.tags import find_tags
from aligner_integrations.langchain.wrapping import TAGS, WrappingModel


class AlignedChatModel(WrappingModel):
    """A chat model that answers with another's answers, corrected.

    Stands wherever a chat model stands: in chains, agents and graphs. Callbacks, traces, streams
    and caches see corrected text only. Messages keep their ids, usage, metadata and content blocks,
    and get a record of the correction in ``response_metadata["aligner"]``. Messages with tool calls
    and blank ones pass through; structured output (`with_structured_output`, ``response_format``)
    is the wrapped model's own.

    The question is the last human message, or what ``question`` or ``history`` make of the
    messages.

    Args:
        llm: The chat model, or a runnable made of some, such as ``a.with_fallbacks([b])``.
        aligner: A loaded aligner; by default one is loaded on first use.
        stop: Sequences at which the wrapped model stops, unless a call names its own.
        temperature: The wrapped model's temperature, in place of its own.
        max_tokens: Most tokens that the wrapped model writes, in place of its own limit.
        streaming: Let `invoke` stream too, as with other chat models.
        **kwargs: Fields of `StepFields`, and those of any chat model: ``cache``, ``callbacks``,
            ``rate_limiter`` and others.

    Raises:
        InputTypeError: ``llm`` is no chat model.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> from aligner_integrations import AlignedChatModel
        >>> llm = FakeListChatModel(responses=["Boil them for 8 minutes. You are an idiot."])
        >>> AlignedChatModel(llm).invoke("How do I boil eggs?").text
        'Boil them for 8 minutes.'
    """

    def __init__(
        self,
        llm: Runnable[LanguageModelInput, AIMessage],
        aligner: Aligner | None = None,
        **kwargs: Any,
    ) -> None:
        if not isinstance(llm, Runnable):
            raise InputTypeError(
                f"llm must be a chat model, not {llm!r:.80}; load it first, for example with "
                "init_chat_model"
            )
        if "profile" in BaseChatModel.model_fields:
            kwargs.setdefault("profile", getattr(llm, "profile", None))
        super().__init__(llm=llm, aligner=aligner, **kwargs)

    def _generate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        tags, kwargs = _take_tags(kwargs, run_manager), self._settings(stop, kwargs)
        with unheard():
            if isinstance(self.llm, BaseChatModel):
                raw = read_result(self.llm.generate([messages], **ALONE, **kwargs))
            else:
                raw = read_message(self.llm.invoke(messages, ALONE, **kwargs))
        todo = self._choose(raw, kwargs)
        if not todo:
            return raw
        pairs = [(self.read_question(messages), answer.text) for _, answer in todo]
        corrections = self.step.correct_batch(pairs, [tags] * len(pairs))
        for correction in corrections:
            dispatch_within(correction)
        return replace_answers(raw, todo, corrections)

    async def _agenerate(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> ChatResult:
        tags, kwargs = _take_tags(kwargs, run_manager), self._settings(stop, kwargs)
        with unheard():
            if isinstance(self.llm, BaseChatModel):
                raw = read_result(await self.llm.agenerate([messages], **ALONE, **kwargs))
            else:
                raw = read_message(await self.llm.ainvoke(messages, ALONE, **kwargs))
        todo = self._choose(raw, kwargs)
        if not todo:
            return raw
        step = self.step
        await step.aload()  # rendering a conversation needs it
        pairs = [(self.read_question(messages), answer.text) for _, answer in todo]
        corrections = await step.acorrect_batch(pairs, [tags] * len(pairs))
        for correction in corrections:
            await adispatch_within(correction)
        return replace_answers(raw, todo, corrections)

    def _stream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: CallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> Iterator[ChatGenerationChunk]:
        tags, kwargs = _take_tags(kwargs, run_manager), self._settings(stop, kwargs)
        passing = is_structured(kwargs)
        with closing(Reading(self._begin(messages))) as reading:
            for piece in stream_alone(self.llm, messages, **kwargs):
                if passing:
                    yield as_generation(piece)
                    continue
                reading.take(piece)
                if passing := has_tool_calls(piece):
                    reading.close()
                    yield from map(as_generation, reading.chunks)
            if passing or not reading.chunks:
                return
            answer = Answer(reading.whole())
            if answer.skipped:
                yield from map(as_generation, reading.chunks)
                return
            writer, question = ChunkWriter(answer), self.read_question(messages)
            with self.step.stream(question, answer.text, tags, reading.ahead) as pieces:
                for text in pieces:
                    yield from map(as_generation, writer.write(text))
            dispatch_within(pieces.correction)
            yield from map(as_generation, writer.finish(pieces.correction))

    async def _astream(
        self,
        messages: list[BaseMessage],
        stop: list[str] | None = None,
        run_manager: AsyncCallbackManagerForLLMRun | None = None,
        **kwargs: Any,
    ) -> AsyncIterator[ChatGenerationChunk]:
        tags, kwargs = _take_tags(kwargs, run_manager), self._settings(stop, kwargs)
        passing = is_structured(kwargs)
        with closing(Reading(self._begin(messages))) as reading:
            async with aclosing(astream_alone(self.llm, messages, **kwargs)) as chunks:
                async for piece in chunks:
                    if passing:
                        yield as_generation(piece)
                        continue
                    await reading.atake(piece)
                    if passing := has_tool_calls(piece):
                        reading.close()
                        for held in reading.chunks:
                            yield as_generation(held)
            if passing or not reading.chunks:
                return
            answer = Answer(reading.whole())
            if answer.skipped:
                for held in reading.chunks:
                    yield as_generation(held)
                return
            step = self.step
            await step.aload()
            writer, question = ChunkWriter(answer), self.read_question(messages)
            async with await step.astream(question, answer.text, tags, reading.ahead) as pieces:
                async for text in pieces:
                    for corrected in writer.write(text):
                        yield as_generation(corrected)
            await adispatch_within(pieces.correction)
            for corrected in writer.finish(pieces.correction):
                yield as_generation(corrected)

    def _begin(self, messages: list[BaseMessage]) -> Callable[[list[Any]], ReadAhead | None]:
        def begin(received: list[Any]) -> ReadAhead | None:
            try:
                return self.step.read_ahead(self.read_question(messages))
            except Exception:  # functions of users raise anything; told when the answer is whole
                return None

        return begin

    def _choose(self, raw: ChatResult, kwargs: dict[str, Any]) -> list[tuple[int, Answer]]:
        """Answers that are to be corrected, each with its place among the generations."""
        if is_structured(kwargs):
            return []
        answers = [Answer(as_answer(generation.message)) for generation in raw.generations]
        return [(index, answer) for index, answer in enumerate(answers) if not answer.skipped]

    def generate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Any = None,
        *,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """See `BaseChatModel.generate`."""
        return super().generate(
            messages, stop, callbacks, tags=tags, **self._put_tags(tags, kwargs, is_async=False)
        )

    async def agenerate(
        self,
        messages: list[list[BaseMessage]],
        stop: list[str] | None = None,
        callbacks: Any = None,
        *,
        tags: list[str] | None = None,
        **kwargs: Any,
    ) -> LLMResult:
        """See `BaseChatModel.agenerate`."""
        kwargs = self._put_tags(tags, kwargs, is_async=True)
        return await super().agenerate(messages, stop, callbacks, tags=tags, **kwargs)

    def invoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """See `BaseChatModel.invoke`."""
        with configured(config):
            return super().invoke(input, config, **kwargs)

    async def ainvoke(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AIMessage:
        """See `BaseChatModel.ainvoke`."""
        with configured(config):
            return await super().ainvoke(input, config, **kwargs)

    def stream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[AIMessageChunk]:
        """See `BaseChatModel.stream`."""
        kwargs = self._put_tags((config or {}).get("tags"), kwargs, is_async=False)
        start = partial(super().stream, input, config, **kwargs)
        yield from iterate_within(partial(configured, config), start)

    async def astream(
        self, input: LanguageModelInput, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[AIMessageChunk]:
        """See `BaseChatModel.astream`."""
        kwargs = self._put_tags((config or {}).get("tags"), kwargs, is_async=True)
        start = partial(super().astream, input, config, **kwargs)
        async with aclosing(aiterate_within(partial(configured, config), start)) as chunks:
            async for chunk in chunks:
                yield chunk

    def _put_tags(
        self, tags: list[str] | None, kwargs: dict[str, Any], *, is_async: bool
    ) -> dict[str, Any]:
        """LangChain does not tell `_stream` the tags of a call, so they go along where needed."""
        if TAGS in kwargs or not (
            isinstance(self.correct_when, CorrectWhen) and self.correct_when.tags
        ):
            return kwargs
        known = find_tags(self.correct_when, tags, self.tags, is_async=is_async)
        return {**kwargs, TAGS: known}


def _take_tags(kwargs: dict[str, Any], run_manager: Any) -> list[str]:
    """The call's tags, taken out of what goes to the wrapped model."""
    if (tags := kwargs.pop(TAGS, None)) is not None:
        return list(tags)
    own = run_manager.tags if run_manager is not None else ()
    return [*own, *(ensure_config().get("tags") or ())]
