"""`AlignerSynthesizer`: corrects what any response synthesizer writes."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Generator, Iterator, Sequence
from contextlib import aclosing, contextmanager
from contextvars import ContextVar
from typing import Any

from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.base.response.schema import RESPONSE_TYPE
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts.mixin import PromptDictType, PromptMixinType
from llama_index.core.response_synthesizers import BaseSynthesizer
from llama_index.core.schema import NodeWithScore, QueryType
from llama_index.core.types import RESPONSE_TEXT_TYPE
from typing_extensions import Unpack

from aligner_integrations.aligner import Aligner
from aligner_integrations.correction import Correction
from aligner_integrations.errors import InputTypeError
from aligner_integrations.llama_index.responses import add_record, is_no_answer
from aligner_integrations.llama_index.traced import TracedStep
from aligner_integrations.step import CorrectionStep, StepArguments


class _Slip:
    """Brings the record of a correction to the response that is made of its text.

    Of a whole answer the correction comes first, of a stream the response.
    """

    def __init__(self) -> None:
        self._response: RESPONSE_TYPE | None = None
        self._correction: Correction | None = None

    def corrected(self, correction: Correction) -> None:
        self._correction = correction
        self._join()

    def answered(self, response: RESPONSE_TYPE) -> None:
        self._response = response
        self._join()

    def _join(self) -> None:
        if self._response is not None and self._correction is not None:
            add_record(self._response, self._correction)


_slip: ContextVar[_Slip | None] = ContextVar("aligner_synthesizer_slip", default=None)


@contextmanager
def _fill_slip() -> Iterator[_Slip]:
    slip = _Slip()
    token = _slip.set(slip)
    try:
        yield slip
    finally:
        _slip.reset(token)


_NEWER = ("chat_prompt_helper", "multimodal")  # arguments since llama-index-core 0.14.23


class AlignerSynthesizer(BaseSynthesizer):  # type: ignore[misc]
    """A response synthesizer whose answers were read and corrected by an aligner.

    For ``index.as_query_engine(response_synthesizer=AlignerSynthesizer(...))`` and wherever else
    a synthesizer stands. Source nodes and metadata are kept; the record of the correction joins
    the metadata of the response under ``"aligner"``, of a stream when it ends. What
    ``get_response`` gives is text alone, without a record. A stream is read by the aligner as it
    comes, and hands out corrected pieces once it is whole. Structured answers and empty ones pass
    through. Prompts are those of the wrapped synthesizer.

    Args:
        synthesizer: The synthesizer whose answers are corrected.
        aligner: The aligner; by default one is loaded at the first answer.
        **step: See `CorrectionStep`. Errors of the wrapped synthesizer are raised whatever the
            policies say.

    Raises:
        InputTypeError: ``synthesizer`` is no LlamaIndex synthesizer.
        ConfigurationError: Another argument has a value that cannot work.

    Example:
        >>> from aligner_integrations.llama_index import AlignerSynthesizer
        >>> from llama_index.core import get_response_synthesizer
        >>> from llama_index.core.llms import MockLLM
        >>> from llama_index.core.schema import NodeWithScore, TextNode
        >>> synthesizer = AlignerSynthesizer(get_response_synthesizer(llm=MockLLM()))
        >>> hits = [NodeWithScore(node=TextNode(text="Eggs are boiled for 8 minutes."))]
        >>> response = synthesizer.synthesize("How do I boil eggs?", hits)
        >>> response.metadata["aligner"]["model"]
        'aligner-smol'
    """

    def __init__(
        self,
        synthesizer: BaseSynthesizer,
        aligner: Aligner | None = None,
        **step: Unpack[StepArguments],
    ) -> None:
        if not isinstance(synthesizer, BaseSynthesizer):
            raise InputTypeError(
                f"synthesizer must be a LlamaIndex response synthesizer, not "
                f"{type(synthesizer).__name__}; get_response_synthesizer() makes one"
            )
        self._synthesizer = synthesizer
        self._step = CorrectionStep(aligner, **step)
        newer = {name: getattr(synthesizer, f"_{name}", None) for name in _NEWER}
        super().__init__(
            llm=synthesizer._llm,
            callback_manager=synthesizer._callback_manager,
            prompt_helper=synthesizer._prompt_helper,
            streaming=synthesizer._streaming,
            output_cls=synthesizer._output_cls,
            empty_response=synthesizer._empty_response,
            **{name: value for name, value in newer.items() if value is not None},
        )

    @classmethod
    def class_name(cls) -> str:
        """The name under which events report this synthesizer."""
        return "AlignerSynthesizer"

    @property
    def _streaming(self) -> bool:  # chat engines switch it on and off from outside
        return bool(self._synthesizer._streaming)

    @_streaming.setter
    def _streaming(self, value: bool) -> None:
        self._synthesizer._streaming = value

    @property
    def callback_manager(self) -> CallbackManager:
        """The wrapped synthesizer's callback manager."""
        return self._synthesizer.callback_manager

    @callback_manager.setter
    def callback_manager(self, callback_manager: CallbackManager) -> None:
        self._callback_manager = callback_manager
        self._synthesizer.callback_manager = callback_manager

    def _get_prompts(self) -> PromptDictType:
        return self._synthesizer._get_prompts()

    def _get_prompt_modules(self) -> PromptMixinType:
        return self._synthesizer._get_prompt_modules()

    def _update_prompts(self, prompts: PromptDictType) -> None:
        self._synthesizer._update_prompts(prompts)

    def synthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """An answer from these nodes, corrected."""
        with _fill_slip() as slip:
            response = super().synthesize(query, nodes, additional_source_nodes, **response_kwargs)
        slip.answered(response)
        return response

    async def asynthesize(
        self,
        query: QueryType,
        nodes: list[NodeWithScore],
        additional_source_nodes: Sequence[NodeWithScore] | None = None,
        **response_kwargs: Any,
    ) -> RESPONSE_TYPE:
        """`synthesize`, without blocking the event loop."""
        with _fill_slip() as slip:
            response = await super().asynthesize(
                query, nodes, additional_source_nodes, **response_kwargs
            )
        slip.answered(response)
        return response

    def get_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """The wrapped synthesizer's answer from these texts, corrected."""
        self._step.load()  # a model that can't be loaded is known before the LLM runs
        answer = self._synthesizer.get_response(query_str, text_chunks, **response_kwargs)
        return self._correct(query_str, answer)

    async def aget_response(
        self, query_str: str, text_chunks: Sequence[str], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """`get_response`, without blocking the event loop."""
        await self._step.aload()
        answer = await self._synthesizer.aget_response(query_str, text_chunks, **response_kwargs)
        return await self._acorrect(query_str, answer)

    def get_response_from_messages(
        self, query_str: str, message_chunks: Sequence[ChatMessage], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """The wrapped synthesizer's answer from these messages, corrected."""
        self._step.load()
        answer = self._synthesizer.get_response_from_messages(
            query_str, message_chunks, **response_kwargs
        )
        return self._correct(query_str, answer)

    async def aget_response_from_messages(
        self, query_str: str, message_chunks: Sequence[ChatMessage], **response_kwargs: Any
    ) -> RESPONSE_TEXT_TYPE:
        """`get_response_from_messages`, without blocking the event loop."""
        await self._step.aload()
        answer = await self._synthesizer.aget_response_from_messages(
            query_str, message_chunks, **response_kwargs
        )
        return await self._acorrect(query_str, answer)

    def _correct(self, question: str, answer: RESPONSE_TEXT_TYPE) -> RESPONSE_TEXT_TYPE:
        if not isinstance(answer, str) or self._is_finished(answer):
            return self._correct_stream(question, answer)
        correction = self._traced().correct(question, answer)
        _note(_slip.get(), correction)
        return correction.text

    async def _acorrect(self, question: str, answer: RESPONSE_TEXT_TYPE) -> RESPONSE_TEXT_TYPE:
        if not isinstance(answer, str) or self._is_finished(answer):
            return self._correct_stream(question, answer)
        correction = await self._traced().acorrect(question, answer)
        _note(_slip.get(), correction)
        return correction.text

    def _correct_stream(self, question: str, answer: RESPONSE_TEXT_TYPE) -> RESPONSE_TEXT_TYPE:
        """A stream of the correction; what is no stream is no text either, and stays."""
        if isinstance(answer, Iterator):
            return self._write(self._traced(), question, answer, _slip.get())
        if isinstance(answer, AsyncIterator):
            return self._awrite(self._traced(), question, answer, _slip.get())
        return answer

    def _traced(self) -> TracedStep:
        return TracedStep(self.class_name(), self._step)

    def _is_finished(self, answer: str) -> bool:
        return is_no_answer(answer) or self._is_structured or answer == self._empty_response

    @property
    def _is_structured(self) -> bool:
        return self._output_cls is not None or isinstance(self._synthesizer._llm, StructuredLLM)

    def _write(
        self,
        step: TracedStep,
        question: str,
        pieces: Iterator[str],
        slip: _Slip | None,
    ) -> Generator[str, None, None]:
        if self._is_structured:
            yield from pieces
            return
        answer, ahead = step.read_along(question, pieces)
        if not self._is_finished(answer):
            yield from step.stream(question, answer, ahead, lambda done: _note(slip, done))
        elif answer:
            yield answer

    async def _awrite(
        self, step: TracedStep, question: str, pieces: AsyncIterator[str], slip: _Slip | None
    ) -> AsyncGenerator[str, None]:
        if self._is_structured:
            async for piece in pieces:
                yield piece
            return
        answer, ahead = await step.aread_along(question, pieces)
        if not self._is_finished(answer):
            stream = step.astream(question, answer, ahead, lambda done: _note(slip, done))
            async with aclosing(stream):
                async for piece in stream:
                    yield piece
        elif answer:
            yield answer


def _note(slip: _Slip | None, correction: Correction) -> None:
    if slip is not None:
        slip.corrected(correction)
