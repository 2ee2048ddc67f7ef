"""The engine of this process: a transformers model, worked by one thread."""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence

from aligner_integrations.decoding import plain, speculative
from aligner_integrations.decoding.packed import PackedModel, pack
from aligner_integrations.decoding.rows import Row
from aligner_integrations.decoding.sampling import Sampler
from aligner_integrations.engines.base import Job
from aligner_integrations.engines.task import Task
from aligner_integrations.errors import (
    AlignerError,
    ConfigurationError,
    ContextOverflowError,
    CorrectionError,
)
from aligner_integrations.models.load import LoadedModel
from aligner_integrations.options import GenerationOptions
from aligner_integrations.tokenization import EncodedPrompt

logger = logging.getLogger(__name__)

ROOM_BEYOND_ANSWER = 32
"""Tokens that must be left beyond a full copy of the answer, or the context overflows."""


class LocalEngine:
    """Runs jobs on a loaded model, as many together as the limits allow.

    A worker thread exists while there is work. It alone touches the model, so callers in any
    number of threads and event loops are safe, and what they ask at the same time shares passes.

    Args:
        loaded: The model.
        max_batch_size: Most jobs that run at the same time.
        max_batch_tokens: Most tokens, prompts and room for corrections, that they have together.
            It bounds the memory for the KV caches; a job that is larger runs alone.
        speculate: Draft from the answer. The output is the same without; only slower.

    Raises:
        ConfigurationError: A limit is below 1.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        max_batch_size: int = 16,
        max_batch_tokens: int = 16_384,
        speculate: bool = True,
    ) -> None:
        if max_batch_size < 1:
            raise ConfigurationError(f"max_batch_size={max_batch_size!r} must be at least 1")
        self.loaded = loaded
        self._max_batch_size = max_batch_size
        self._max_batch_tokens = max_batch_tokens
        self._lock = threading.Lock()
        self._waiting: deque[Task] = deque()
        self._working = False
        self._packed: PackedModel | None = None
        self._tried_packing = not speculate

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
        # Those that pad each other least where the model needs padding, and short ones first.
        tasks.sort(key=lambda task: len(task.row.prompt))
        with self._lock:
            self._waiting.extend(tasks)
            if self._working or not self._waiting:
                return
            self._working = True
        # Not a daemon: one that dies within a forward pass would crash the interpreter's exit.
        threading.Thread(target=self._work, name=f"aligner {self.name}", daemon=False).start()

    def _prepare(self, job: Job) -> Task:
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
        return Task(self.name, job, row, encoder.decode_stream())

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
        while batch := self._admit([]):
            try:
                self._run(batch, admit=True)
            except Exception as error:
                self._isolate(batch, error)
            except BaseException as error:
                for task in batch:
                    task.fail(error)
                with self._lock:
                    self._working = False
                raise

    def _admit(self, running: list[Task]) -> list[Task]:
        """Move waiting tasks to those that run, within the limits; returns the new ones."""
        with self._lock:
            admitted: list[Task] = []
            tokens = sum(task.tokens for task in running)
            while self._waiting and len(running) + len(admitted) < self._max_batch_size:
                tokens += self._waiting[0].tokens
                if (running or admitted) and tokens > self._max_batch_tokens:
                    break
                admitted.append(self._waiting.popleft())
            if not running:
                self._working = bool(admitted)
            return admitted

    def _run(self, batch: list[Task], *, admit: bool) -> None:
        """Run a batch to its end; with ``admit`` further tasks join, and ``batch`` holds them."""

        def join() -> list[Row]:
            batch[:] = [task for task in batch if not task.ended]
            joining = self._admit(batch) if admit and batch else []
            batch.extend(joining)
            return [task.row for task in joining]

        for _ in self._decode([task.row for task in batch], join):
            for task in batch:
                task.advance()
        for task in batch:
            task.advance()  # those that were cancelled before the last pass

    def _decode(
        self, rows: list[Row], join: Callable[[], list[Row]]
    ) -> Iterator[list[tuple[Row, list[int]]]]:
        if not self._tried_packing:
            self._packed, self._tried_packing = pack(self.loaded.model), True
        if self._packed is None:
            return plain.decode(self.loaded.model, rows)
        return speculative.decode(self._packed, rows, join)

    def _isolate(self, batch: list[Task], error: Exception) -> None:
        """One failing row must not take its neighbours along: each goes on alone."""
        running = [task for task in batch if task.row.stop_reason is None]
        if len(running) > 1:
            logger.warning("a batch of %d failed (%r); going on one by one", len(batch), error)
        for task in batch:
            if task.row.stop_reason is not None:
                task.advance()
            elif len(running) == 1:
                task.fail(error)
            else:
                try:
                    self._run([task], admit=False)
                except Exception as alone:
                    task.fail(alone)
