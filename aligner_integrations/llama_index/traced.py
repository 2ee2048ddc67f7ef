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
from uuid import uuid4

from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.events.span import SpanDropEvent
from llama_index.core.instrumentation.span import active_span_id
from llama_index_instrumentation.dispatcher import active_instrument_tags

from aligner_integrations.aligner import Pair
from aligner_integrations.correction import Correction
from aligner_integrations.engines.base import ReadAhead
from aligner_integrations.llama_index.events import CorrectionEndEvent, CorrectionStartEvent
from aligner_integrations.options import GenerationOptions
from aligner_integrations.step import CorrectionStep

Done = Callable[[Correction], object]
"""Gets a stream's correction when the stream has ended."""

dispatcher = get_dispatcher(__name__)


def read_tags() -> list[str]:
    """The tags of a correction: keys and values of LlamaIndex's active ``instrument_tags``.

    Example:
        >>> from llama_index.core.instrumentation.dispatcher import instrument_tags
        >>> with instrument_tags({"tenant": "acme"}):
        ...     read_tags()
        ['tenant', 'acme']
    """
    tags = active_instrument_tags.get()
    return [str(part) for item in tags.items() for part in item]


class TracedStep:
    """A component's step, with events, spans and tags of LlamaIndex's instrumentation.

    Each correction is a span of its own below the span that is active. Spans and events hold the
    question and the record, no text of an answer.

    Args:
        component: The adapter's class name.
        step: What corrects.
    """

    def __init__(self, component: str, step: CorrectionStep) -> None:
        self.component = component
        self.step = step

    def correct(self, question: str, answer: str) -> Correction:
        """See `CorrectionStep.correct`."""
        with self._trace("correct", [question]) as report:
            return report(self.step.correct(question, answer, read_tags()))

    async def acorrect(self, question: str, answer: str) -> Correction:
        """See `CorrectionStep.acorrect`."""
        with self._trace("acorrect", [question]) as report:
            return report(await self.step.acorrect(question, answer, read_tags()))

    def correct_batch(self, pairs: Sequence[Pair]) -> list[Correction]:
        """See `CorrectionStep.correct_batch`."""
        tags = [read_tags()] * len(pairs)
        with self._trace("correct_batch", [question for question, _ in pairs]) as report:
            return [report(correction) for correction in self.step.correct_batch(pairs, tags)]

    async def acorrect_batch(self, pairs: Sequence[Pair]) -> list[Correction]:
        """See `CorrectionStep.acorrect_batch`."""
        tags = [read_tags()] * len(pairs)
        with self._trace("acorrect_batch", [question for question, _ in pairs]) as report:
            corrections = await self.step.acorrect_batch(pairs, tags)
            return [report(correction) for correction in corrections]

    def stream(
        self, question: str, answer: str, ahead: ReadAhead | None, done: Done
    ) -> Generator[str, None, None]:
        """Corrected pieces of a whole answer; ``done`` gets the correction at the end."""
        with (
            self._trace("stream", [question]) as report,
            self.step.stream(question, answer, read_tags(), ahead) as stream,
        ):
            yield from stream
            done(report(stream.correction))

    async def astream(
        self, question: str, answer: str, ahead: ReadAhead | None, done: Done
    ) -> AsyncGenerator[str, None]:
        """`stream` as an async generator."""
        with self._trace("astream", [question]) as report:
            async with await self.step.astream(question, answer, read_tags(), ahead) as stream:
                async for piece in stream:
                    yield piece
                done(report(stream.correction))

    def read_ahead(self, question: str) -> ReadAhead | None:
        """`CorrectionStep.read_ahead`, but None where an answer would be read ahead in vain."""
        aligner = self.step.load()
        options = self.step.options
        chosen = aligner.options if options is None else GenerationOptions.coerce(options)
        return None if chosen.exact else aligner.read_ahead(question)

    async def aread_ahead(self, question: str) -> ReadAhead | None:
        """`read_ahead`, without blocking the event loop."""
        return await asyncio.to_thread(self.read_ahead, question)

    def read_along(self, question: str, pieces: Iterable[str]) -> tuple[str, ReadAhead | None]:
        """The whole of an answer, which the aligner reads as it comes."""
        read, ahead = [], self.read_ahead(question)
        for piece in pieces:
            read.append(piece)
            if ahead is not None:
                ahead.extend(piece)
        return "".join(read), ahead

    async def aread_along(
        self, question: str, pieces: AsyncIterable[str]
    ) -> tuple[str, ReadAhead | None]:
        """`read_along` for an async stream."""
        read, ahead = [], await self.aread_ahead(question)
        async for piece in pieces:
            read.append(piece)
            if ahead is not None:
                ahead.extend(piece)
        return "".join(read), ahead

    @contextmanager
    def _trace(
        self, method: str, questions: list[str]
    ) -> Iterator[Callable[[Correction], Correction]]:
        # The span is not made the active one: a stream's body runs in its reader's context, which
        # would keep it, and nothing below a correction has spans of its own.
        span = f"{self.component}.{method}-{uuid4()}"
        arguments = _SIGNATURE.bind(questions)
        records = []

        def report(correction: Correction) -> Correction:
            records.append(correction.record())
            dispatcher.event(
                CorrectionEndEvent(
                    question=correction.question,
                    component=self.component,
                    record=records[-1],
                    span_id=span,
                )
            )
            return correction

        dispatcher.span_enter(
            id_=span,
            bound_args=arguments,
            parent_id=active_span_id.get(),
            tags=active_instrument_tags.get(),
        )
        for question in questions:
            dispatcher.event(
                CorrectionStartEvent(question=question, component=self.component, span_id=span)
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
