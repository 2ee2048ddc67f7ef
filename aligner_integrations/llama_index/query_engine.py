"""`AlignerQueryEngine`: corrects the answers of any LlamaIndex query engine."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator, Sequence
from dataclasses import replace
from typing import Any

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

from aligner_integrations.aligner import Aligner, Options
from aligner_integrations.correction import Correction
from aligner_integrations.errors import InputTypeError
from aligner_integrations.llama_index.base import RECORD_KEY, CorrectionStep
from aligner_integrations.options import Policy

NO_ANSWER = "Empty Response"
"""What LlamaIndex says where nothing was retrieved or the LLM said nothing."""


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
        model: What to load: a directory or a model hub id, see `Aligner.from_pretrained`; None
            for the bundled model.
        on_error: What to answer when correcting fails: ``"raise"`` the error, the ``"original"``
            answer, or ``"refuse"``. Errors of the wrapped engine are always raised.
        on_overflow: The same for an answer that does not fit the aligner's context; by default
            what the options say.
        options: How to write corrections; by default the aligner's own options.

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
        >>> sorted(response.metadata["aligner"])
        ['changed', 'error', 'model', 'policy', 'seconds', 'similarity']
    """

    def __init__(
        self,
        query_engine: BaseQueryEngine,
        aligner: Aligner | None = None,
        *,
        model: str | None = None,
        on_error: Policy = "raise",
        on_overflow: Policy | None = None,
        options: Options = None,
    ) -> None:
        if not isinstance(query_engine, BaseQueryEngine):
            raise InputTypeError(
                f"query_engine must be a LlamaIndex query engine, not "
                f"{type(query_engine).__name__}; an index makes one with as_query_engine()"
            )
        self._query_engine = query_engine
        self._step = CorrectionStep(
            aligner, model, on_error=on_error, on_overflow=on_overflow, options=options
        )
        super().__init__(callback_manager=query_engine.callback_manager)

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
        aligner = self._step.load()
        response = self._query_engine.synthesize(query_bundle, nodes, additional_source_nodes)
        return self._correct(aligner, query_bundle, response)

    async def asynthesize(
        self,
        query_bundle: QueryBundle,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
    ) -> RESPONSE_TYPE:
        """`synthesize`, without blocking the event loop."""
        aligner = await self._step.aload()
        response = await self._query_engine.asynthesize(
            query_bundle, nodes, additional_source_nodes
        )
        return await self._acorrect(aligner, query_bundle, response)

    def _query(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        aligner = self._step.load()  # a model that can't be loaded is known before the LLM runs
        return self._correct(aligner, query_bundle, self._query_engine.query(query_bundle))

    async def _aquery(self, query_bundle: QueryBundle) -> RESPONSE_TYPE:
        aligner = await self._step.aload()
        response = await self._query_engine.aquery(query_bundle)
        return await self._acorrect(aligner, query_bundle, response)

    def _correct(
        self, aligner: Aligner, query: QueryBundle, response: RESPONSE_TYPE
    ) -> RESPONSE_TYPE:
        if _is_finished(response):
            return response
        if not isinstance(response, Response):
            return self._correct_stream(aligner, query, response)
        correction = aligner.correct(query.query_str, response.response, **self._step.arguments)
        return _with_correction(response, correction)

    async def _acorrect(
        self, aligner: Aligner, query: QueryBundle, response: RESPONSE_TYPE
    ) -> RESPONSE_TYPE:
        if _is_finished(response):
            return response
        if not isinstance(response, Response):
            return self._correct_stream(aligner, query, response)
        correction = await aligner.acorrect(
            query.query_str, response.response, **self._step.arguments
        )
        return _with_correction(response, correction)

    def _correct_stream(
        self, aligner: Aligner, query: QueryBundle, raw: StreamingResponse | AsyncStreamingResponse
    ) -> StreamingResponse | AsyncStreamingResponse:
        """A response of the same kind that streams the correction."""
        corrected = _copy(raw)
        write = self._write if isinstance(raw, StreamingResponse) else self._awrite
        corrected.response_gen = write(aligner, query.query_str, raw, corrected)
        return corrected

    def _write(
        self,
        aligner: Aligner,
        question: str,
        raw: StreamingResponse,
        corrected: StreamingResponse,
    ) -> Generator[str, None, None]:
        answer, ahead = raw.response_txt, None
        if answer is None:
            pieces, ahead = [], aligner.read_ahead(question)
            for piece in raw.response_gen or ():
                pieces.append(piece)
                if ahead is not None:
                    ahead.extend(piece)
            answer = "".join(pieces)
        if _is_empty(answer):
            if answer:
                yield answer
            return
        arguments = {**self._step.arguments, "read_ahead": ahead}
        with aligner.stream(question, answer, **arguments) as stream:
            yield from stream
        _add_record(corrected, stream.correction)

    async def _awrite(
        self,
        aligner: Aligner,
        question: str,
        raw: AsyncStreamingResponse,
        corrected: AsyncStreamingResponse,
    ) -> AsyncGenerator[str, None]:
        answer, ahead = raw.response_txt, None
        if answer is None:
            pieces, ahead = [], aligner.read_ahead(question)
            async for piece in raw.response_gen:
                pieces.append(piece)
                if ahead is not None:
                    ahead.extend(piece)
            answer = "".join(pieces)
        if _is_empty(answer):
            if answer:
                yield answer
            return
        arguments = {**self._step.arguments, "read_ahead": ahead}
        async with aligner.astream(question, answer, **arguments) as stream:
            async for piece in stream:
                yield piece
        _add_record(corrected, stream.correction)


def _is_finished(response: RESPONSE_TYPE) -> bool:
    """Whether a response holds nothing to correct.

    Raises:
        InputTypeError: It is of a kind that we don't know; what it holds must not get through.
    """
    if isinstance(response, PydanticResponse):
        return True
    if isinstance(response, Response):
        return _is_empty(response.response)
    if isinstance(response, StreamingResponse | AsyncStreamingResponse):
        return False
    raise InputTypeError(
        f"the query engine answered with a {type(response).__name__}; AlignerQueryEngine corrects "
        "Response, StreamingResponse and AsyncStreamingResponse"
    )


def _is_empty(answer: Any) -> bool:
    return answer is None or (
        isinstance(answer, str) and (not answer.strip() or answer.strip() == NO_ANSWER)
    )


def _copy(response: RESPONSE_TYPE) -> RESPONSE_TYPE:
    """The same response with metadata of its own: traces still hold the original."""
    text = {} if isinstance(response, Response) else {"response_txt": None}
    return replace(response, metadata=dict(response.metadata or {}), **text)


def _with_correction(response: Response, correction: Correction) -> Response:
    corrected = _copy(response)
    corrected.response = correction.text
    _add_record(corrected, correction)
    return corrected


def _add_record(response: RESPONSE_TYPE, correction: Correction) -> None:
    # Set on what the response holds by now: an outer engine may have put its own metadata there.
    response.metadata = response.metadata if response.metadata is not None else {}
    response.metadata[RECORD_KEY] = correction.record()
