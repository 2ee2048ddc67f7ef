"""Corrected text as it is written: iterators, sync and async, over one request."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Iterable, Iterator
from queue import Empty, SimpleQueue
from threading import TIMEOUT_MAX

from aligner_integrations.correction import Correction
from aligner_integrations.engines.base import Event, Finished, Job, ReadAhead
from aligner_integrations.pieces import Pieces
from aligner_integrations.request import Request, unfinished
from aligner_integrations.telemetry.watch import watch


class _Stream:
    """What both iterators share: the job, and how its events are read."""

    def __init__(self, request: Request, whole: bool = False) -> None:
        self._request = request
        self._watch = watch(request)
        self._job: Job | None = None
        self._correction: Correction | None = None
        self._started = False
        self._closed = False
        self._keep = whole
        self._sent = False
        self._rest = ""
        self._failure: Exception | None = None
        self._deadline = float("inf")
        self._pieces = Pieces(request.options.stream_by)

    @property
    def correction(self) -> Correction:
        """The whole correction, once the stream has ended.

        Raises:
            CorrectionError: It has not ended yet.
        """
        if self._correction is None:
            raise unfinished()
        return self._correction

    def _read_ahead(self) -> ReadAhead | None:
        """What the answer's pieces go to as they come, so that reading it is done at its end."""
        request = self._request
        if request.read_ahead is None and not request.options.exact:  # those read it alone
            request.read_ahead = request.engine.read_ahead(request.question)
        if self._closed:  # meanwhile
            self._drop_read_ahead()
        return request.read_ahead

    def _drop_read_ahead(self) -> None:
        ahead, self._request.read_ahead = self._request.read_ahead, None
        if ahead is not None:
            ahead.close()

    def _join(self, answer: Iterable[str]) -> str:
        """The answer, read by the engine as its pieces come."""
        pieces, ahead = [], self._read_ahead()
        for piece in answer:
            pieces.append(self._request.check_piece(piece))
            if ahead is not None:
                ahead.extend(piece)
        return "".join(pieces)

    def _make_job(self, emit: Callable[[Event], None]) -> Job:
        request, limit = self._request, self._request.options.max_latency
        self._deadline = float("inf") if limit is None else time.monotonic() + limit
        return Job(
            request.question,
            request.answer,
            request.options,
            emit,
            request.read_ahead,
            self._watch.carry_on(),
            whole=self._keep,
        )

    def _cancel(self, error: BaseException) -> None:
        self._abandon()
        self._watch.fail(error)

    def _abandon(self) -> None:
        self._closed = True
        if self._job is not None:
            self._job.cancel()
        self._drop_read_ahead()

    def __del__(self) -> None:
        self._abandon()  # a loop that was left with break
        self._watch.drop()

    def _settle(self, correction: Correction) -> str:
        self._correction = correction
        self._watch.settle(correction)
        return correction.text

    def _begin(self) -> bool:
        """With the whole answer at hand: whether there is work for the engine."""
        self._watch.begin()
        self._request.check_answer()
        skipped = self._request.find_skip()
        if skipped is None:
            return True
        self._rest = self._settle(self._request.skip(skipped))
        return False

    def _take_rest(self) -> str:
        rest, self._rest = self._rest, ""
        return rest

    def _time_left(self) -> float | None:
        """Seconds to the deadline, None without one."""
        left = self._deadline - time.monotonic()
        return None if left == float("inf") else min(max(left, 0.0), TIMEOUT_MAX)

    def _take(self, event: Event) -> str:
        """Text that an event brings; the last one sets the correction."""
        if isinstance(event, str):
            piece = self._pieces.push(event)
            self._sent = not self._keep and (self._sent or bool(piece))
            return piece
        self._job = None  # it is over; an engine may still be putting its connection away
        if isinstance(event, Finished):
            self._settle(self._request.finish(event))
            return self._pieces.finish()
        if self._sent:  # what was handed out can't be replaced any more
            raise event
        return self._settle(self._request.resolve(event))

    def _give_up(self) -> str:
        """The deadline has passed; the engine need not go on."""
        if self._job is not None:
            self._job.cancel()
        return self._take(self._request.late())


class CorrectionStream(_Stream, Iterator[str]):
    """Iterator of corrected text; ``.correction`` holds the whole after its end.

    Closing it, or leaving its ``with`` block, frees the model.

    Args:
        request: What is to be corrected.
        whole: It is going to be `read`, not iterated.
    """

    def __init__(self, request: Request, whole: bool = False) -> None:
        super().__init__(request, whole)
        self._events: SimpleQueue[Event] = SimpleQueue()

    def start(self) -> Job | None:
        """Read the answer to its end. Returns the job, which the caller hands to the engine.

        Returns None where there is no work: the answer is handed on as it is, or reading it
        failed, which is raised by the first step of the iterator and not here: in a batch it
        concerns one answer only.
        """
        self._started = True
        request = self._request
        try:
            if isinstance(request.answer, Iterable) and not isinstance(request.answer, str):
                request.answer = self._join(request.answer)
            if self._begin():
                self._job = self._make_job(self._events.put)
        except Exception as error:
            self._failure = error
        return self._job

    def read(self) -> Correction:
        """Run to the end and hand out no piece, so the policies hold until the last token."""
        self._keep = True
        for _ in self:
            pass
        return self.correction

    def __next__(self) -> str:
        if self._closed:
            raise StopIteration
        try:
            if not self._started and (job := self.start()):
                self._request.engine.submit([job])
            if self._failure is not None:
                raise self._failure
            if rest := self._take_rest():
                return rest
            while self._correction is None:
                try:
                    event = self._events.get(timeout=self._time_left())
                except Empty:
                    piece = self._give_up()
                else:
                    piece = self._take(event)
                if piece:
                    return piece
            raise StopIteration
        except BaseException as error:
            self._cancel(error)
            raise

    def close(self) -> None:
        """Stop; the engine drops the job at its next step."""
        self._cancel(GeneratorExit())

    def __enter__(self) -> CorrectionStream:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class AsyncCorrectionStream(_Stream, AsyncIterator[str]):
    """`CorrectionStream` for ``async for``; never blocks the event loop."""

    def __init__(self, request: Request, whole: bool = False) -> None:
        super().__init__(request, whole)
        self._events: asyncio.Queue[Event] = asyncio.Queue()

    async def start(self) -> Job | None:
        """See `CorrectionStream.start`."""
        self._started = True
        try:
            await self._read_answer()
            if self._begin():
                self._job = self._make_own_job()
        except Exception as error:
            self._failure = error
        return self._job

    async def _read_answer(self) -> None:
        request = self._request
        if isinstance(request.answer, AsyncIterable):
            pieces, ahead = [], await asyncio.to_thread(self._read_ahead)
            async for piece in request.answer:
                pieces.append(request.check_piece(piece))
                if ahead is not None:
                    ahead.extend(piece)
            request.answer = "".join(pieces)
        elif isinstance(request.answer, Iterable) and not isinstance(request.answer, str):
            request.answer = await asyncio.to_thread(self._join, request.answer)

    def _make_own_job(self) -> Job:
        loop, put = asyncio.get_running_loop(), self._events.put_nowait

        def emit(event: Event) -> None:  # holds no stream, so one that is dropped can go
            try:
                loop.call_soon_threadsafe(put, event)
            except RuntimeError:  # the loop was closed: nobody waits any longer
                job.cancel()

        job = self._make_job(emit)
        return job

    async def read(self) -> Correction:
        """See `CorrectionStream.read`."""
        self._keep = True
        async for _ in self:
            pass
        return self.correction

    async def __anext__(self) -> str:
        if self._closed:
            raise StopAsyncIteration
        try:
            if not self._started and (job := await self.start()):
                await asyncio.to_thread(self._request.engine.submit, [job])
            if self._failure is not None:
                raise self._failure
            if rest := self._take_rest():
                return rest
            while self._correction is None:
                try:
                    event = await self._next_event()
                except asyncio.TimeoutError:  # another class than TimeoutError before 3.11
                    piece = self._give_up()
                else:
                    piece = self._take(event)
                if piece:
                    return piece
            raise StopAsyncIteration
        except BaseException as error:
            self._cancel(error)
            raise

    async def _next_event(self) -> Event:
        left = self._time_left()
        if left is None or not self._events.empty():
            return await self._events.get()
        try:
            return await asyncio.wait_for(self._events.get(), left)
        except asyncio.TimeoutError:
            # A loop that was busy learns of the event and of the deadline at the same time.
            if self._events.empty():
                raise
            return self._events.get_nowait()

    async def aclose(self) -> None:
        """Stop; the engine drops the job at its next step."""
        self._cancel(GeneratorExit())

    async def __aenter__(self) -> AsyncCorrectionStream:
        return self

    async def __aexit__(self, *exc_info: object) -> None:
        await self.aclose()
