"""`AlignerRunnable`: the step behind an LLM that corrects its answer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import closing
from functools import partial
from typing import Any

from langchain_core.callbacks import AsyncCallbackManagerForChainRun, CallbackManagerForChainRun
from langchain_core.runnables import RunnableConfig, RunnableSerializable

from aligner_integrations.aligner import Aligner
from aligner_integrations.correction import Correction
from aligner_integrations.engines.base import ReadAhead
from aligner_integrations.errors import InputTypeError
from aligner_integrations.langchain.answers import Answer, read_answer
from aligner_integrations.langchain.batches import Batch
from aligner_integrations.langchain.chunks import ChunkWriter, join_chunks
from aligner_integrations.langchain.events import adispatch, dispatch
from aligner_integrations.langchain.fields import StepFields, check_question
from aligner_integrations.langchain.questions import as_question, find_prompt_value, find_question
from aligner_integrations.langchain.reading import Reading

RunManager = CallbackManagerForChainRun | AsyncCallbackManagerForChainRun


class AlignerRunnable(StepFields, RunnableSerializable[Any, Any]):
    """Corrects the answer that comes in, and hands it on in the same form.

    Input: a str or AIMessage; a message list, of which the last is corrected; a state
    ``{"messages": [...]}``; or ``{"question": ..., "answer": ...}``. Output: what the answer came
    in as; a message keeps its id, usage, metadata and other content blocks, and gets a record of
    the correction in ``response_metadata["aligner"]``. Messages with tool calls and blank text
    are handed on as they are.

    In ``llm | AlignerRunnable()`` the question is found by itself: it is the last human message
    that the LLM was asked.

    Args:
        aligner: A loaded aligner; by default one is loaded on first use.
        question_key: The question is the prompt variable of this name. In a RAG prompt the last
            human message holds the whole context, and this names the user's question.
        return_correction: Hand on the `Correction`, with edits and statistics, in place of the
            corrected answer.
        **kwargs: Fields of `StepFields`: ``model``, ``question``, ``history``, ``on_error`` and
            others. The question can also be given per call: ``invoke(answer, question=...)``.

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

    question_key: str | None = None
    return_correction: bool = False

    def __init__(self, aligner: Aligner | None = None, **kwargs: Any) -> None:
        check_question(kwargs.get("question"), kwargs.get("question_key"))
        super().__init__(aligner=aligner, **kwargs)

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
            return self._write(answer, None)
        correction = self.step.correct(question, answer.text, _tags(config))
        dispatch(correction, config)
        return self._write(answer, correction)

    async def _ainvoke(
        self,
        value: Any,
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Any:
        await self._prepare()
        answer, question = self._read(value, run_manager, config, **kwargs)
        if question is None:
            return self._write(answer, None)
        correction = await self.step.acorrect(question, answer.text, _tags(config))
        await adispatch(correction, config)
        return self._write(answer, correction)

    def _batch(
        self,
        values: list[Any],
        run_manager: list[CallbackManagerForChainRun],
        config: list[RunnableConfig],
        **kwargs: Any,
    ) -> list[Any]:
        batch = self._read_batch(values, run_manager, config, **kwargs)
        if batch.pairs:
            batch.put(self.step.correct_batch(batch.pairs, batch.tags, return_exceptions=True))
        for index, correction in batch.corrections:
            dispatch(correction, config[index])
        return batch.outputs

    async def _abatch(
        self,
        values: list[Any],
        run_manager: list[AsyncCallbackManagerForChainRun],
        config: list[RunnableConfig],
        **kwargs: Any,
    ) -> list[Any]:
        await self._prepare()
        batch = self._read_batch(values, run_manager, config, **kwargs)
        if batch.pairs:
            batch.put(
                await self.step.acorrect_batch(batch.pairs, batch.tags, return_exceptions=True)
            )
        for index, correction in batch.corrections:
            await adispatch(correction, config[index])
        return batch.outputs

    def _transform(
        self,
        chunks: Iterator[Any],
        run_manager: CallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> Iterator[Any]:
        with closing(Reading(partial(self._begin, run_manager, config, **kwargs))) as reading:
            for chunk in chunks:
                reading.take(chunk)
            if not reading.chunks:
                return
            answer, question = self._read(reading.whole(), run_manager, config, **kwargs)
            if question is None:
                yield from self._pass_on(answer, reading.chunks)
                return
            writer = ChunkWriter(answer)
            with self.step.stream(question, answer.text, _tags(config), reading.ahead) as pieces:
                for piece in pieces:
                    yield from () if self.return_correction else writer.write(piece)
            dispatch(pieces.correction, config)
            yield from self._finish(writer, pieces.correction)

    async def _atransform(
        self,
        chunks: AsyncIterator[Any],
        run_manager: AsyncCallbackManagerForChainRun,
        config: RunnableConfig,
        **kwargs: Any,
    ) -> AsyncIterator[Any]:
        with closing(Reading(partial(self._begin, run_manager, config, **kwargs))) as reading:
            async for chunk in chunks:
                await reading.atake(chunk)
            if not reading.chunks:
                return
            await self._prepare()
            answer, question = self._read(reading.whole(), run_manager, config, **kwargs)
            if question is None:
                for chunk in self._pass_on(answer, reading.chunks):
                    yield chunk
                return
            writer = ChunkWriter(answer)
            step = self.step
            stream = await step.astream(question, answer.text, _tags(config), reading.ahead)
            async with stream as pieces:
                async for piece in pieces:
                    for chunk in () if self.return_correction else writer.write(piece):
                        yield chunk
            await adispatch(pieces.correction, config)
            for chunk in self._finish(writer, pieces.correction):
                yield chunk

    def _write(self, answer: Answer, correction: Correction | None) -> Any:
        """The output; without a correction there is nothing to correct."""
        if self.return_correction:
            return correction or answer.skip()
        return answer.pass_on() if correction is None else answer.replace(correction)

    def _finish(self, writer: ChunkWriter, correction: Correction) -> list[Any]:
        return [correction] if self.return_correction else writer.finish(correction)

    def _pass_on(self, answer: Answer, chunks: list[Any]) -> list[Any]:
        """Chunks where there is nothing to correct: those that came, if they were an answer's."""
        if answer.is_bare and not self.return_correction:
            return chunks
        return [self._write(answer, None)]

    async def _prepare(self) -> None:
        """Rendering a conversation needs the aligner, and loading it must not block the loop."""
        if self.history != "last":
            await self.step.aload()

    def _begin(
        self, run_manager: RunManager, config: RunnableConfig, received: list[Any], **kwargs: Any
    ) -> ReadAhead | None:
        """Let the aligner read along from an answer's first text, if its question is known by then.

        The question is looked up anew when the answer is whole, so a wrong one costs time only.
        """
        try:
            _, question = self._read(join_chunks(received), run_manager, config, **kwargs)
            return None if question is None else self.step.read_ahead(question)
        except Exception:  # functions of users raise anything; told when the answer is whole
            return None

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
        if answer.skipped:
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
        read = self.question_reader()
        if answer.history is not None:
            return as_question(read(answer.history))
        return find_question(run_manager.run_id, answer.text, answer.message_id, read)

    def _read_batch(
        self,
        values: list[Any],
        run_managers: Sequence[RunManager],
        configs: list[RunnableConfig],
        **kwargs: Any,
    ) -> Batch:
        rows = zip(values, run_managers, configs, strict=True)
        read = [self._try_read(*row, **kwargs) for row in rows]
        return Batch(read, [_tags(config) for config in configs], self._write)

    def _try_read(self, *row: Any, **kwargs: Any) -> tuple[Answer, str | None] | Exception:
        try:
            return self._read(*row, **kwargs)
        except Exception as error:  # of one input; the others of the batch go on
            return error


def _tags(config: RunnableConfig) -> list[str]:
    return config.get("tags") or []
