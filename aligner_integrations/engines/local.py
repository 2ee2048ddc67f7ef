"""The engine of this process: a transformers model, worked by one thread."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from rapidfuzz.distance import LCSseq

from aligner_integrations.correction import CorrectionStats
from aligner_integrations.decoding import plain
from aligner_integrations.decoding.rows import Row
from aligner_integrations.decoding.sampling import Sampler
from aligner_integrations.engines.base import Event, Finished, Job
from aligner_integrations.errors import (
    AlignerError,
    ConfigurationError,
    ContextOverflowError,
    CorrectionError,
    TruncatedCorrectionError,
)
from aligner_integrations.models.load import LoadedModel
from aligner_integrations.options import GenerationOptions
from aligner_integrations.tokenization import EncodedPrompt, TextStream

logger = logging.getLogger(__name__)

ROOM_BEYOND_ANSWER = 32
"""Tokens that must be left beyond a full copy of the answer, or the context overflows."""


@dataclass(slots=True, eq=False)
class _Task:
    """A job, its row in the decoder and its text as it grows."""

    job: Job
    row: Row
    text: TextStream
    shown: int = 0
    ended: bool = False

    def end(self, event: Event) -> None:
        """Emit the job's last event."""
        if not self.ended:
            self.ended = True
            self.job.emit(event)


class LocalEngine:
    """Runs jobs on a loaded model, as many together as the limits allow.

    A worker thread exists while there is work. It alone touches the model, so callers in any
    number of threads and event loops are safe, and what they ask at the same time shares passes.

    Args:
        loaded: The model.
        max_batch_size: Most jobs in one batch.
        max_batch_tokens: Most tokens of prompts in one batch, padding included.

    Raises:
        ConfigurationError: A limit is below 1.
    """

    def __init__(
        self, loaded: LoadedModel, *, max_batch_size: int = 16, max_batch_tokens: int = 16_384
    ) -> None:
        if max_batch_size < 1:
            raise ConfigurationError(f"max_batch_size={max_batch_size!r} must be at least 1")
        self.loaded = loaded
        self._max_batch_size = max_batch_size
        self._max_batch_tokens = max_batch_tokens
        self._lock = threading.Lock()
        self._waiting: deque[_Task] = deque()
        self._working = False

    @property
    def name(self) -> str:
        """The model's name."""
        return self.loaded.name

    def submit(self, jobs: Sequence[Job]) -> None:
        """Tokenise jobs in the caller's thread and queue them; see `Engine.submit`."""
        tasks = []
        for job in jobs:
            try:
                tasks.append(self._prepare(job))
            except AlignerError as error:
                job.emit(error)
            except Exception as error:
                job.emit(CorrectionError(f"{self.name!r} could not read the input: {error!r}"))
        # Jobs of like length pad each other least.
        tasks.sort(key=lambda task: len(task.row.prompt))
        with self._lock:
            self._waiting.extend(tasks)
            if self._working or not self._waiting:
                return
            self._working = True
        # Not a daemon: one that dies within a forward pass would crash the interpreter's exit.
        threading.Thread(target=self._work, name=f"aligner {self.name}", daemon=False).start()

    def _prepare(self, job: Job) -> _Task:
        if job.options.strength:
            raise ConfigurationError(
                f"strength={job.options.strength} needs a control direction, and none is saved "
                f"with {self.name!r}; use strength=0"
            )
        encoder = self.loaded.encoder
        prompt = encoder.encode(job.question, job.answer)
        row = Row(
            prompt=prompt.ids,
            draft=prompt.answer_ids,
            stop_ids=encoder.stop_ids,
            max_new_tokens=self._limit(prompt, job.options),
            sampler=Sampler(job.options.temperature, job.options.top_p, job.options.seed),
            is_cancelled=lambda: job.cancelled,
        )
        return _Task(job, row, encoder.decode_stream())

    def _limit(self, prompt: EncodedPrompt, options: GenerationOptions) -> int:
        """Most output tokens, within the room that the context leaves."""
        answer, context = len(prompt.answer_ids), self.loaded.context_length
        room = context - len(prompt.ids)
        if room < answer + ROOM_BEYOND_ANSWER:
            raise ContextOverflowError(
                f"the prompt has {len(prompt.ids)} tokens and its correction needs room for "
                f"{answer + ROOM_BEYOND_ANSWER}, but {self.name!r} has a context of {context}; "
                "shorten question or answer, use an aligner with a longer context, or set "
                "on_overflow='original' or 'refuse'"
            )
        wanted = 2 * answer + 512 if options.max_new_tokens == "auto" else options.max_new_tokens
        return min(wanted, room)

    def _work(self) -> None:
        while batch := self._next_batch():
            try:
                self._run(batch)
            except Exception as error:
                self._isolate(batch, error)
            except BaseException as error:
                for task in batch:
                    task.end(CorrectionError(f"the aligner's worker was stopped: {error!r}"))
                with self._lock:
                    self._working = False
                raise

    def _next_batch(self) -> list[_Task]:
        with self._lock:
            batch: list[_Task] = []
            while self._waiting and len(batch) < self._max_batch_size:
                width = max(len(t.row.prompt) for t in [*batch, self._waiting[0]])
                if batch and width * (len(batch) + 1) > self._max_batch_tokens:
                    break
                batch.append(self._waiting.popleft())
            self._working = bool(batch)
            return batch

    def _run(self, batch: list[_Task]) -> None:
        tasks = {id(task.row): task for task in batch}
        for moved in plain.decode(self.loaded.model, [task.row for task in batch]):
            for row, _ in moved:
                self._advance(tasks[id(row)])
        for task in batch:
            self._advance(task)  # cancelled ones did not move

    def _isolate(self, batch: list[_Task], error: Exception) -> None:
        """One failing row must not take its neighbours along: each goes on alone."""
        running = [task for task in batch if task.row.stop_reason is None]
        if len(running) > 1:
            logger.warning("a batch of %d failed (%r); going on one by one", len(batch), error)
        for task in batch:
            try:
                if task.row.stop_reason is not None:
                    self._advance(task)
                elif len(running) > 1:
                    self._run([task])
                else:
                    self._fail(task, error)
            except Exception as alone:
                self._fail(task, alone)

    def _advance(self, task: _Task) -> None:
        """Emit what a row wrote since the last time. What fails here fails this task alone."""
        row = task.row
        try:
            piece = task.text.push(row.output[task.shown :])
            task.shown = len(row.output)
            if piece:
                task.job.emit(piece)
            if row.stop_reason is not None:
                self._finish(task)
        except Exception as error:
            self._fail(task, error)

    def _fail(self, task: _Task, error: Exception) -> None:
        failure = CorrectionError(
            f"{self.name!r} failed on a prompt of {len(task.row.prompt)} tokens: {error!r}"
        )
        failure.__cause__ = error
        task.row.stop_reason = "cancelled"
        task.end(failure)

    def _finish(self, task: _Task) -> None:
        row, job = task.row, task.job
        if task.ended:
            return
        if row.stop_reason == "cancelled":
            task.end(CorrectionError("this correction was closed before its end"))
            return
        if row.stop_reason == "length":
            task.end(
                TruncatedCorrectionError(
                    f"the correction had not ended after {len(row.output)} tokens; raise "
                    "max_new_tokens if that is too few for a good answer (an answer is never cut)"
                )
            )
            return
        rest, text = task.text.finish()
        if rest:
            job.emit(rest)
        stats = CorrectionStats(
            prompt_tokens=len(row.prompt),
            output_tokens=len(row.output),
            copied_tokens=int(LCSseq.similarity(row.draft, row.output)),
            forward_passes=row.forward_passes,
            seconds=time.perf_counter() - job.started,
            stop_reason=row.stop_reason or "stop",
        )
        task.end(Finished(text, stats))
