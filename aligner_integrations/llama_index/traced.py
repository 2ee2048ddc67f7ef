"""`TracedStep`: a `CorrectionStep` that LlamaIndex's instrumentation can watch."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import (
    AsyncGenerator,
    AsyncIterable,
    Callable,
    Generator,
    Iterable,
    Iterator,
    Sequence,
)
from contextlib import contextmanager
from typing import Any
from uuid import uuid4

from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.span import SpanDropEvent
from llama_index.core.instrumentation.span import active_span_id
from llama_index_instrumentation.dispatcher import active_instrument_tags

from aligner_integrations.batches import Pair
from aligner_integrations.correction import Correction
from aligner_integrations.engines.base import ReadAhead
from aligner_integrations.llama_index.events import CorrectionEndEvent, CorrectionStartEvent
from aligner_integrations.step import CorrectionStep

Done = Callable[[Correction], object]
"""Gets a stream's correction when the stream has ended."""

dispatcher = get_dispatcher(__name__)


def read_tags(tags: dict[str, Any]) -> list[str]:
    """The tags that a gate sees: keys and values of LlamaIndex's ``instrument_tags``.

    Example:
        >>> read_tags({"tenant": "acme"})
        ['tenant', 'acme']
    """
    return [str(part) for item in tags.items() for part in item]


class TracedStep:
    """A component's step for one request, watched by LlamaIndex's instrumentation.

    Each correction is a span of its own, with events. Spans and events hold the question and the
    record, no text of an answer. The tags and the span above are those that are active when this
    is made: a stream may be read where they are so no longer, and a gate must not close for that.

    Args:
        component: The adapter's class name.
        step: What corrects.
    """

    def __init__(self, component: str, step: CorrectionStep) -> None:
        self._component = component
        self._step = step
        self._tags = dict(active_instrument_tags.get())
        self._words = read_tags(self._tags)
        self._parent = active_span_id.get()

    def correct(self, question: str, answer: str) -> Correction:
        """See `CorrectionStep.correct`."""
        with self._trace("correct", [question]) as report:
            return report(self._step.correct(question, answer, self._words))

    async def acorrect(self, question: str, answer: str) -> Correction:
        """See `CorrectionStep.acorrect`."""
        with self._trace("acorrect", [question]) as report:
            return report(await self._step.acorrect(question, answer, self._words))

    def correct_batch(self, pairs: Sequence[Pair]) -> list[Correction]:
        """See `CorrectionStep.correct_batch`."""
        tags = [self._words] * len(pairs)
        with self._trace("correct_batch", [question for question, _ in pairs]) as report:
            return [report(correction) for correction in self._step.correct_batch(pairs, tags)]

    async def acorrect_batch(self, pairs: Sequence[Pair]) -> list[Correction]:
        """See `CorrectionStep.acorrect_batch`."""
        tags = [self._words] * len(pairs)
        with self._trace("acorrect_batch", [question for question, _ in pairs]) as report:
            corrections = await self._step.acorrect_batch(pairs, tags)
            return [report(correction) for correction in corrections]

    def stream(
        self, question: str, answer: str, ahead: ReadAhead | None, done: Done
    ) -> Generator[str, None, None]:
        """Corrected pieces of a whole answer; ``done`` gets the correction at the end."""
        with (
            self._trace("stream", [question]) as report,
            self._step.stream(question, answer, self._words, ahead) as stream,
        ):
            yield from stream
            done(report(stream.correction))

    async def astream(
        self, question: str, answer: str, ahead: ReadAhead | None, done: Done
    ) -> AsyncGenerator[str, None]:
        """`stream` as an async generator."""
        with self._trace("astream", [question]) as report:
            async with await self._step.astream(question, answer, self._words, ahead) as stream:
                async for piece in stream:
                    yield piece
                done(report(stream.correction))

    def read_ahead(self, question: str) -> ReadAhead | None:
        """See `CorrectionStep.read_ahead`."""
        return self._step.read_ahead(question)

    async def aread_ahead(self, question: str) -> ReadAhead | None:
        """`read_ahead`, without blocking the event loop."""
        return await asyncio.to_thread(self.read_ahead, question)

    def read_along(self, question: str, pieces: Iterable[str]) -> tuple[str, ReadAhead | None]:
        """The whole of an answer, which the aligner reads as it comes."""
        read, ahead = [], self.read_ahead(question)
        try:
            for piece in pieces:
                read.append(piece)
                if ahead is not None:
                    ahead.extend(piece)
        except BaseException:
            if ahead is not None:
                ahead.close()
            raise
        return "".join(read), ahead

    async def aread_along(
        self, question: str, pieces: AsyncIterable[str]
    ) -> tuple[str, ReadAhead | None]:
        """`read_along` for an async stream."""
        read, ahead = [], await self.aread_ahead(question)
        try:
            async for piece in pieces:
                read.append(piece)
                if ahead is not None:
                    ahead.extend(piece)
        except BaseException:
            if ahead is not None:
                ahead.close()
            raise
        return "".join(read), ahead

    @contextmanager
    def _trace(
        self, method: str, questions: list[str]
    ) -> Iterator[Callable[[Correction], Correction]]:
        # The span is not made the active one: a stream's body runs in its reader's context, which
        # would keep it, and nothing below a correction has spans of its own.
        span = f"{self._component}.{method}-{uuid4()}"
        arguments = _SIGNATURE.bind(questions)
        records = []

        def report(correction: Correction) -> Correction:
            records.append(correction.record())
            dispatcher.event(
                CorrectionEndEvent(
                    question=correction.question,
                    component=self._component,
                    record=records[-1],
                    span_id=span,
                    tags=dict(self._tags),
                )
            )
            return correction

        dispatcher.span_enter(
            id_=span,
            bound_args=arguments,
            parent_id=self._parent,
            tags=self._tags,
        )
        for question in questions:
            dispatcher.event(
                CorrectionStartEvent(
                    question=question,
                    component=self._component,
                    span_id=span,
                    tags=dict(self._tags),
                )
            )
        try:
            yield report
        except BaseException as error:
            dispatcher.event(SpanDropEvent(span_id=span, err_str=str(error)))
            dispatcher.span_drop(id_=span, bound_args=arguments, err=error)
            raise
        dispatcher.span_exit(id_=span, bound_args=arguments, result=records)


def _correct(questions: list[str]) -> None:
    """The arguments that a span shows."""


_SIGNATURE = inspect.signature(_correct)
