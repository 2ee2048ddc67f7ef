"""`AlignerQueryEngine`: corrects the answers of any LlamaIndex query engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing

from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import (
    RESPONSE_TYPE,
    AsyncStreamingResponse,
    PydanticResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
from llama_index.core.schema import NodeWithScore, QueryBundle
from typing_extensions import Unpack

from aligner_integrations.aligner import Aligner
from aligner_integrations.correction import Correction
from aligner_integrations.errors import InputTypeError
from aligner_integrations.llama_index.responses import add_record, copy_response, is_no_answer
from aligner_integrations.llama_index.traced import TracedStep
from aligner_integrations.step import CorrectionStep, StepArguments


class AlignerQueryEngine(BaseQueryEngine):  # type: ignore[misc]
    """A query engine whose answers were read and corrected by an aligner.

    Stands wherever the engine that it wraps stood: sync or async, streaming or not, as a tool or
    inside another engine. Source nodes and metadata are kept; the record of the correction joins
    the metadata under ``"aligner"``, of a stream when it ends. A stream is read by the aligner as
    it comes, and hands out corrected pieces once it is whole, so no raw token gets through.
    Structured answers (`PydanticResponse`) and empty ones pass through as they are, without a
    record.

    Args:
        query_engine: The engine whose answers are corrected.
        aligner: The aligner; by default one is loaded at the first query.
        **step: See `CorrectionStep`. Errors of the wrapped engine are raised whatever the
            policies say.

    Raises:
        InputTypeError: ``query_engine`` is no LlamaIndex query engine.
        ConfigurationError: Another argument has a value that cannot work.

    Example:
        >>> from aligner_integrations.llama_index import AlignerQueryEngine
        >>> from llama_index.core import MockEmbedding, SummaryIndex
        >>> from llama_index.core.llms import MockLLM
        >>> from llama_index.core.schema import TextNode
        >>> index = SummaryIndex([TextNode(text="Eggs are boiled for 8 minutes.")])
        >>> engine = AlignerQueryEngine(index.as_query_engine(llm=MockLLM()))
        >>> response = engine.query("How do I boil eggs?")
        >>> response.metadata["aligner"]["model"]
        'aligner-smol'
    """

    def __init__(
        self,
        query_engine: BaseQueryEngine,
        aligner: Aligner | None = None,
        **step: Unpack[StepArguments],
    ) -> None:
        if not isinstance(query_engine, BaseQueryEngine):
            raise InputTypeError(
                f"query_engine must be a LlamaIndex query engine, not "
                f"{type(query_engine).__name__}; an index makes one with as_query_engine()"
            )
        self._query_engine = query_engine
        self._step = CorrectionStep(aligner, **step)
        super().__init__(callback_manager=query_engine.callback_manager)

    @classmethod
    def class_name(cls) -> str:
        """The name under which events report this engine."""
        return "AlignerQueryEngine"

    # Prompts keep the names that they have in the wrapped engine. One more level of names would
    # break PromptMixin.update_prompts, which takes a name apart at its one colon.

    def _get_prompts(self) -> PromptDictType:
        return self._query_engine._get_prompts()

    def _get_prompt_modules(self) -> PromptMixinType:
        return self._query_engine._get_prompt_modules()

    def _update_prompts(self, prompts: PromptDictType) -> None:
        self._query_engine._update_prompts(prompts)

    def retrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """The wrapped engine's nodes, as they are."""
        nodes: list[NodeWithScore] = self._query_engine.retrieve(query_bundle)
        return nodes

    async def aretrieve(self, query_bundle: QueryBundle) -> list[NodeWithScore]:
        """`retrieve`, for engines that have it in async form."""
        nodes: list[NodeWithScore] = await self._query_engine.aretrieve(query_bundle)
        return nodes

    def synthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """The wrapped engine's answer from these nodes, corrected."""
        self._step.load()
        response = self._query_engine.synthesize(query_bundle, nodes, additional_source_nodes)
        return self._correct(query_bundle, response)

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """`synthesize`, without blocking the event loop."""
        await self._step.aload()
        response = await self._query_engine.asynthesize(
            query_bundle, nodes, additional_source_nodes
        )
        return await self._acorrect(query_bundle, response)

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        self._step.load()  # a model that can't be loaded is known before the LLM runs
        return self._correct(query_bundle, self._query_engine.query(query_bundle))

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        await self._step.aload()
        response = await self._query_engine.aquery(query_bundle)
        return await self._acorrect(query_bundle, response)

    def _correct(self, query: QueryBundle, response: RESPONSE_TYPE) -> RESPONSE_TYPE:
        if _is_finished(response):
            return response
        if not isinstance(response, Response):
            return self._correct_stream(query, response)
        return _replace(response, self._traced().correct(query.query_str, response.response))

    async def _acorrect(self, query: QueryBundle, response: RESPONSE_TYPE) -> RESPONSE_TYPE:
        if _is_finished(response):
            return response
        if not isinstance(response, Response):
            return self._correct_stream(query, response)
        correction = await self._traced().acorrect(query.query_str, response.response)
        return _replace(response, correction)

    def _correct_stream(
        self, query: QueryBundle, raw: StreamingResponse | AsyncStreamingResponse
    ) -> StreamingResponse | AsyncStreamingResponse:
        """A response of the same kind that streams the correction."""
        corrected = copy_response(raw)
        write = self._write if isinstance(raw, StreamingResponse) else self._awrite
        corrected.response_gen = write(self._traced(), query.query_str, raw, corrected)
        return corrected

    def _traced(self) -> TracedStep:
        return TracedStep(self.class_name(), self._step)

    def _write(
        self, step: TracedStep, question: str, raw: StreamingResponse, corrected: StreamingResponse
    ) -> Generator[str, None, None]:
        answer, ahead = raw.response_txt, None
        if answer is None:
            answer, ahead = step.read_along(question, raw.response_gen or ())
        if not is_no_answer(answer):
            yield from step.stream(
                question, answer, ahead, lambda correction: add_record(corrected, correction)
            )
        elif answer:
            yield answer

    async def _awrite(
        self,
        step: TracedStep,
        question: str,
        raw: AsyncStreamingResponse,
        corrected: AsyncStreamingResponse,
    ) -> AsyncGenerator[str, None]:
        answer, ahead = raw.response_txt, None
        if answer is None:
            answer, ahead = await step.aread_along(question, raw.response_gen)
        if not is_no_answer(answer):
            stream = step.astream(
                question, answer, ahead, lambda correction: add_record(corrected, correction)
            )
            async with aclosing(stream):
                async for piece in stream:
                    yield piece
        elif answer:
            yield answer


def _is_finished(response: RESPONSE_TYPE) -> bool:
    """Whether a response holds nothing to correct.

    Raises:
        InputTypeError: It is of a kind that we don't know; what it holds must not get through.
    """
    if isinstance(response, PydanticResponse):
        return True
    if isinstance(response, Response):
        return is_no_answer(response.response)
    if isinstance(response, StreamingResponse | AsyncStreamingResponse):
        return False
    raise InputTypeError(
        f"the query engine answered with a {type(response).__name__}; AlignerQueryEngine corrects "
        "Response, StreamingResponse and AsyncStreamingResponse"
    )


def _replace(response: Response, correction: Correction) -> Response:
    corrected = copy_response(response)
    corrected.response = correction.text
    add_record(corrected, correction)
    return corrected
