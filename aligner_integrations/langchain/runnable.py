"""`AlignerRunnable`: the step behind an LLM that corrects its answer."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

from langchain_core.callbacks import (
    AsyncCallbackManagerForChainRun,
    CallbackManagerForChainRun,
    adispatch_custom_event,
    dispatch_custom_event,
)
from langchain_core.load.serializable import SerializedConstructor, SerializedNotImplemented
from langchain_core.messages import BaseMessage
from langchain_core.runnables import RunnableConfig, RunnableSerializable
from pydantic import ConfigDict, Field, SkipValidation

from aligner_integrations.aligner import Aligner
from aligner_integrations.engines.base import ReadAhead
from aligner_integrations.errors import AlignerError, ConfigurationError, InputTypeError
from aligner_integrations.langchain.answers import Answer, read_answer
from aligner_integrations.langchain.batches import Batch
from aligner_integrations.langchain.chunks import ChunkWriter, join_chunks, read_text
from aligner_integrations.langchain.questions import (
    as_question,
    find_prompt_value,
    find_question,
    last_human_text,
)
from aligner_integrations.options import GenerationOptions, Policy, check_policy
from aligner_integrations.sharing import load_shared

EVENT = "on_aligner_correction"
"""Custom event of every correction; its data is `Correction.record`."""

RunManager = CallbackManagerForChainRun | AsyncCallbackManagerForChainRun


class AlignerRunnable(RunnableSerializable[Any, Any]):
    """Corrects the answer that comes in, and hands it on in the same form.

    Input: a str or AIMessage; a message list, of which the last is corrected; a state
    ``{"messages": [...]}``; or ``{"question": ..., "answer": ...}``. Output: what the answer came
    in as; a message keeps its id, usage, metadata and other content blocks, and gets a record of
    the correction in ``response_metadata["aligner"]``. Messages with tool calls and blank text
    are handed on as they are.

    In ``llm | AlignerRunnable()`` the question is found by itself: it is the last human message
    that the LLM was asked.

    Args:
        aligner: A loaded aligner; by default the one that ``model`` names is loaded on first use
            and shared by the whole process.
        model: What `Aligner.from_pretrained` takes; by default the bundled model.
        load_options: Further arguments of `Aligner.from_pretrained`, such as ``device``.
        question: The question: a str, or a function of the messages that the LLM was asked. Also
            per call: ``invoke(answer, question=...)``.
        question_key: The question is the prompt variable of this name. In a RAG prompt the last
            human message holds the whole context, and this names the user's question.
        on_error: What to hand on when correcting fails: ``"raise"``, ``"original"`` or
            ``"refuse"``. A question that can't be found always raises.
        on_overflow: The same for what does not fit the context; by default as the options say.
        options: How to write corrections.

    Raises:
        InputTypeError: The input holds no answer.
        QuestionNotFoundError: The question is unknown, or more than one fits.

    Example:
        >>> from langchain_core.language_models import FakeListChatModel
        >>> from aligner_integrations import AlignerRunnable
        >>> llm = FakeListChatModel(responses=["Boil them for 8 minutes. You are an idiot."])
        >>> chain = llm | AlignerRunnable()
        >>> chain.invoke("How do I boil eggs?").text
        'Boil them for 8 minutes.'
    """

    aligner: SkipValidation[Aligner | None] = Field(default=None, exclude=True, repr=False)
    model: str | None = None
    load_options: dict[str, Any] = Field(default_factory=dict)
    question: str | Callable[[list[BaseMessage]], str] | None = None
    question_key: str | None = None
    on_error: Policy = "raise"
    on_overflow: Policy | None = None
    options: SkipValidation[GenerationOptions | None] = None

    model_config = ConfigDict(arbitrary_types_allowed=True, extra="forbid")

    def __init__(self, aligner: Aligner | None = None, **kwargs: Any) -> None:
        # Checked here, not in validators: pydantic would wrap our errors in its own.
        if aligner is not None and not isinstance(aligner, Aligner):
            raise InputTypeError(
                f"aligner must be an Aligner, not {type(aligner).__name__}; a model's name goes "
                "into model=..."
            )
        if kwargs.get("question") is not None and kwargs.get("question_key") is not None:
            raise ConfigurationError(
                f"question={kwargs['question']!r} and question_key={kwargs['question_key']!r} "
                "exclude each other"
            )
        for policy in ("on_error", "on_overflow"):
            if kwargs.get(policy) is not None:
                check_policy(policy, kwargs[policy])
        if kwargs.get("options") is not None:
            kwargs["options"] = GenerationOptions.coerce(kwargs["options"])
        super().__init__(aligner=aligner, **kwargs)  # type: ignore[call-arg]

    def invoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Correct one answer."""
        return self._call_with_config(self._invoke, input, config, **kwargs)

    async def ainvoke(self, input: Any, config: RunnableConfig | None = None, **kwargs: Any) -> Any:
        """Correct one answer, without blocking the event loop."""
        return await self._acall_with_config(self._ainvoke, input, config, **kwargs)

    def batch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """Correct many answers in one batch of the model."""
        return self._batch_with_config(
            self._batch, inputs, config, return_exceptions=return_exceptions, **kwargs
        )

    async def abatch(
        self,
        inputs: list[Any],
        config: RunnableConfig | list[RunnableConfig] | None = None,
        *,
        return_exceptions: bool = False,
        **kwargs: Any,
    ) -> list[Any]:
        """`batch`, without blocking the event loop."""
        return await self._abatch_with_config(
            self._abatch, inputs, config, return_exceptions=return_exceptions, **kwargs
        )

    def stream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Correct one answer, token by token."""
        yield from self.transform(iter([input]), config, **kwargs)

    async def astream(
        self, input: Any, config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """`stream`, without blocking the event loop."""

        async def one() -> AsyncIterator[Any]:
            yield input

        async for chunk in self.atransform(one(), config, **kwargs):
            yield chunk

    def transform(
        self, input: Iterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> Iterator[Any]:
        """Correct an answer that arrives in chunks; only corrected text goes out."""
        yield from self._transform_stream_with_config(input, self._transform, config, **kwargs)

    async def atransform(
        self, input: AsyncIterator[Any], config: RunnableConfig | None = None, **kwargs: Any
    ) -> AsyncIterator[Any]:
        """`transform`, without blocking the event loop."""
        async for chunk in self._atransform_stream_with_config(
            input, self._atransform, config, **kwargs
        ):
            yield chunk

    def _invoke(
        self,
        value: Any,
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Any:
        answer, question = self._read(value, run_manager, config, **kwargs)
        if question is None:
            return answer.pass_on()
        correction = self._load().correct(question, answer.text, **self._policies())
        dispatch_custom_event(EVENT, correction.record(), config=config)
        return answer.replace(correction)

    async def _ainvoke(
        self,
        value: Any,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Any:
        answer, question = self._read(value, run_manager, config, **kwargs)
        if question is None:
            return answer.pass_on()
        aligner = await asyncio.to_thread(self._load)
        correction = await aligner.acorrect(question, answer.text, **self._policies())
        await adispatch_custom_event(EVENT, correction.record(), config=config)
        return answer.replace(correction)

    def _batch(
        self,
        values: list[Any],
        run_manager: list[CallbackManagerForChainRun],
        config: list[RunnableConfig],
        **kwargs: Any,
    ) -> list[Any]:
        rows = zip(values, run_manager, config, strict=True)
        batch = Batch([self._try_read(*row, **kwargs) for row in rows])
        if batch.pairs:
            batch.put(
                self._load().correct_batch(batch.pairs, return_exceptions=True, **self._policies())
            )
        for index, correction in batch.corrections:
            dispatch_custom_event(EVENT, correction.record(), config=config[index])
        return batch.outputs

    async def _abatch(
        self,
        values: list[Any],
        run_manager: list[AsyncCallbackManagerForChainRun],
        config: list[RunnableConfig],
        **kwargs: Any,
    ) -> list[Any]:
        rows = zip(values, run_manager, config, strict=True)
        batch = Batch([self._try_read(*row, **kwargs) for row in rows])
        if batch.pairs:
            aligner = await asyncio.to_thread(self._load)
            batch.put(
                await aligner.acorrect_batch(
                    batch.pairs, return_exceptions=True, **self._policies()
                )
            )
        for index, correction in batch.corrections:
            await adispatch_custom_event(EVENT, correction.record(), config=config[index])
        return batch.outputs

    def _transform(
        self,
        chunks: Iterator[Any],
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Iterator[Any]:
        received, ahead, begun = [], None, False
        for chunk in chunks:
            received.append(chunk)
            if ahead is not None:
                ahead.extend(read_text(chunk))
            elif not begun and read_text(chunk).strip():
                begun, ahead = True, self._begin(received, run_manager, config, **kwargs)
        if not received:
            return
        answer, question = self._read(join_chunks(received), run_manager, config, **kwargs)
        if question is None:
            # What came as chunks of an answer goes on as the same chunks.
            yield from received if answer.is_bare else [answer.pass_on()]
            return
        writer = ChunkWriter(answer)
        arguments = {**self._policies(), "read_ahead": ahead}
        with self._load().stream(question, answer.text, **arguments) as pieces:
            for piece in pieces:
                yield from writer.write(piece)
        dispatch_custom_event(EVENT, pieces.correction.record(), config=config)
        yield from writer.finish(pieces.correction)

    async def _atransform(
        self,
        chunks: AsyncIterator[Any],
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        received, ahead, begun = [], None, False
        async for chunk in chunks:
            received.append(chunk)
            if ahead is not None:
                ahead.extend(read_text(chunk))
            elif not begun and read_text(chunk).strip():
                begun, ahead = (
                    True,
                    await asyncio.to_thread(self._begin, received, run_manager, config, **kwargs),
                )
        if not received:
            return
        answer, question = self._read(join_chunks(received), run_manager, config, **kwargs)
        if question is None:
            for chunk in received if answer.is_bare else [answer.pass_on()]:
                yield chunk
            return
        writer = ChunkWriter(answer)
        aligner = await asyncio.to_thread(self._load)
        arguments = {**self._policies(), "read_ahead": ahead}
        async with aligner.astream(question, answer.text, **arguments) as pieces:
            async for piece in pieces:
                for chunk in writer.write(piece):
                    yield chunk
        await adispatch_custom_event(EVENT, pieces.correction.record(), config=config)
        for chunk in writer.finish(pieces.correction):
            yield chunk

    def _begin(
        self, received: list[Any], run_manager: RunManager, config: RunnableConfig, **kwargs: Any
    ) -> ReadAhead | None:
        """Let the aligner read along from an answer's first text, if its question is known by then.

        The question is looked up anew when the answer is whole, so a wrong one costs time only.
        """
        try:
            _, question = self._read(join_chunks(received), run_manager, config, **kwargs)
        except AlignerError:
            return None
        ahead = None if question is None else self._load().read_ahead(question)
        if ahead is not None:
            ahead.extend("".join(map(read_text, received)))
        return ahead

    def _read(
        self,
        value: Any,
        run_manager: RunManager,
        config: RunnableConfig,
        question: str | None = None,
        **kwargs: Any,
    ) -> tuple[Answer, str | None]:
        """The answer and its question; the question is None where nothing is to be corrected."""
        if kwargs:
            raise InputTypeError(
                f"AlignerRunnable takes no argument {next(iter(kwargs))!r}; only question=... can "
                "be given per call"
            )
        # A LangGraph node returns an update: other keys would be added to the state twice.
        in_graph = "langgraph_node" in (config.get("metadata") or {})
        answer = read_answer(value, keep_state=not in_graph)
        if answer.is_passed_through:
            return answer, None
        return answer, self._find_question(answer, run_manager, question)

    def _find_question(self, answer: Answer, run_manager: RunManager, question: Any) -> str:
        explicit = question if question is not None else answer.question
        if explicit is None and isinstance(self.question, str):
            explicit = self.question
        if explicit is not None:
            return as_question(explicit)
        if self.question_key is not None:
            if answer.state is not None and self.question_key in answer.state:
                return as_question(answer.state[self.question_key])
            return find_prompt_value(run_manager.run_id, self.question_key)
        read = self.question if callable(self.question) else last_human_text
        if answer.history is not None:
            return as_question(read(answer.history))
        return find_question(run_manager.run_id, answer.text, answer.message_id, read)

    def _try_read(self, *row: Any, **kwargs: Any) -> tuple[Answer, str | None] | Exception:
        try:
            return self._read(*row, **kwargs)
        except Exception as error:  # of one input; the others of the batch go on
            return error

    def _load(self) -> Aligner:
        if self.aligner is not None:
            return self.aligner
        named = {} if self.model is None else {"model": self.model}
        return load_shared({**named, **self.load_options})

    def _policies(self) -> dict[str, Any]:
        return {
            "options": self.options,
            "on_error": self.on_error,
            "on_overflow": self.on_overflow,
        }

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """LangChain's ``dumps`` and ``loads`` work, with plain arguments."""
        return True

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """Plain data for what is not plain: options, and a loaded aligner's own arguments."""
        attributes: dict[str, Any] = {}
        if self.options is not None:
            attributes["options"] = self.options.to_dict()
        if self.aligner is not None and self.aligner.source is not None:
            source = dict(self.aligner.source)
            attributes["model"] = source.pop("model")
            attributes["load_options"] = source
        return attributes

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """An aligner that was built from a loaded model has no arguments to write down."""
        if self.aligner is not None and self.aligner.source is None:
            return self.to_json_not_implemented()
        return super().to_json()
