"""The engine of this process: a transformers model, worked by one thread."""

from __future__ import annotations

import logging
import threading
import time
import weakref
from collections import deque
from collections.abc import Sequence

import torch

from aligner_integrations.decoding.costs import PassCosts
from aligner_integrations.decoding.kv import RowCache
from aligner_integrations.decoding.offsets import Offset
from aligner_integrations.decoding.packed import PackedModel, Part, pack
from aligner_integrations.decoding.plain import PlainDecoder
from aligner_integrations.decoding.protection import Protection, find_tokens
from aligner_integrations.decoding.rows import Prefix, Row
from aligner_integrations.decoding.sampling import Sampler
from aligner_integrations.decoding.speculative import PREFILL_CHUNK, Decoder
from aligner_integrations.decoding.steering import Steering
from aligner_integrations.decoding.threads import run_apart
from aligner_integrations.engines.base import Job
from aligner_integrations.engines.calibration import calibrate, find_costs
from aligner_integrations.engines.readahead import LocalReadAhead
from aligner_integrations.engines.room import ROOM_BEYOND_ANSWER, find_limit
from aligner_integrations.engines.task import Task
from aligner_integrations.errors import (
    AlignerError,
    ConfigurationError,
    CorrectionError,
    QueueFullError,
)
from aligner_integrations.models.load import LoadedModel
from aligner_integrations.prompts import PromptFormat
from aligner_integrations.protect import find_protected, join_space
from aligner_integrations.tokenization import EncodedPrompt

logger = logging.getLogger(__name__)


class LocalEngine:
    """Runs jobs on a loaded model, as many together as the limits allow.

    A worker thread exists while there is work. It alone touches the model, so callers in any
    number of threads and event loops are safe, and what they ask at the same time shares passes.

    Args:
        loaded: The model.
        max_batch_size: Most jobs that run at the same time.
        max_batch_tokens: Most tokens, prompts and room for corrections, that they have together.
            It bounds the memory for the KV caches; a job that is larger runs alone. Answers that
            are read while they arrive may have as many again.
        max_waiting: Most jobs that wait; those beyond get a `QueueFullError`.
        speculate: Draft from the answer. The output is the same without; only slower.
        steering: What a ``strength`` uses, in place of the files beside the weights.

    Raises:
        ConfigurationError: A limit is below 1.
        SteeringError: ``steering`` does not fit the model.
    """

    def __init__(
        self,
        loaded: LoadedModel,
        *,
        max_batch_size: int = 16,
        max_batch_tokens: int = 16_384,
        max_waiting: int = 1024,
        speculate: bool = True,
        steering: Steering | None = None,
    ) -> None:
        limits = {"max_batch_size": max_batch_size, "max_waiting": max_waiting}
        for option, value in limits.items():
            if value < 1:
                raise ConfigurationError(f"{option}={value!r} must be at least 1")
        self.loaded = loaded
        self._max_batch_size = max_batch_size
        self._max_batch_tokens = max_batch_tokens
        self._max_waiting = max_waiting
        self._lock = threading.Lock()
        self._waiting: deque[Task] = deque()
        self._working = False
        self._due: dict[int, LocalReadAhead] = {}
        self._ahead: weakref.WeakSet[LocalReadAhead] = weakref.WeakSet()
        self._packed: PackedModel | None = None
        self._opening: RowCache | None = None
        self._steering = None if steering is None else steering.fit(loaded.model)
        self.costs: PassCosts | None = None
        self._tried_packing = not speculate

    @property
    def name(self) -> str:
        """The model's name."""
        return self.loaded.name

    @property
    def prompt(self) -> PromptFormat:
        """The model's prompt format."""
        return self.loaded.encoder.prompt

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
            gone = [task for task in self._waiting if task.row.is_over()]
            if gone:
                self._waiting = deque(task for task in self._waiting if task not in gone)
            room = max(0, self._max_waiting - len(self._waiting))
            self._waiting.extend(tasks[:room])
        self._start()
        for task in gone:
            task.advance()
        for task in tasks[room:]:
            task.job.emit(
                QueueFullError(
                    f"{self._max_waiting} answers wait for {self.name!r} already; try again later, "
                    "or raise max_waiting"
                )
            )

    def read_ahead(self, question: str) -> LocalReadAhead | None:
        """See `Engine.read_ahead`."""
        if self._tried_packing and self._packed is None:
            return None
        ahead = LocalReadAhead(
            self.loaded.encoder,
            question,
            self.loaded.context_length - ROOM_BEYOND_ANSWER,
            self._wake,
        )
        with self._lock:
            self._ahead.add(ahead)
        self._wake(ahead)
        return ahead

    def _wake(self, ahead: LocalReadAhead) -> None:
        with self._lock:
            self._due[id(ahead)] = ahead
        self._start()

    def _start(self) -> None:
        """Start a worker unless there is one or nothing to do."""
        with self._lock:
            if self._working or not (self._waiting or self._due):
                return
            self._working = True
        # Not a daemon: one that dies within a forward pass would crash the interpreter's exit.
        threading.Thread(target=self._work, name=f"aligner {self.name}", daemon=False).start()

    def _prepare(self, job: Job) -> Task:
        encoder = self.loaded.encoder
        prompt = encoder.encode(job.question, job.answer)
        row = Row(
            prompt=prompt.ids,
            draft=prompt.answer_ids,
            stop_ids=encoder.stop_ids,
            max_new_tokens=find_limit(self.name, prompt, self.loaded.context_length, job.options),
            sampler=Sampler(job.options.temperature, job.options.top_p, job.options.seed),
            is_cancelled=lambda: job.cancelled,
            exact=job.options.exact,
            protection=self._protect(job, prompt),
            offset=self._find_offset(job.options.strength, len(prompt.ids)),
        )
        return Task(self.name, job, row, encoder.decode_stream())

    def _find_offset(self, strength: float, prompt_length: int) -> Offset | None:
        """What a correction of this strength adds to hidden states; nothing for 0."""
        if not strength:
            return None
        if self._steering is None:
            self._steering = self.loaded.load_steering(strength)
        coefficient = self._steering.coefficient(strength)
        return Offset(self._steering, coefficient, start=prompt_length - 1)

    def _protect(self, job: Job, prompt: EncodedPrompt) -> Protection | None:
        """What is to be copied, come what may."""
        spans = find_protected(job.answer, job.options.protect)
        if not spans:
            return None
        ends = self.loaded.encoder.find_ends(prompt.answer_ids)
        return Protection(prompt.answer_ids, find_tokens(join_space(job.answer, spans), ends))

    def _work(self) -> None:
        batch: list[Task] = []
        decoder = None
        while True:
            batch = [task for task in batch if not task.ended]
            joining, due = self._admit(batch)
            batch += joining
            if not batch and not due:
                decoder = None  # the traceback of an earlier error may hold this frame
                return
            try:
                decoder = decoder or self._make_decoder()
                for task in joining:
                    task.begin()
                    task.row.prefix = self._take_prefix(task.job)
                    decoder.add(task.row)
                decoder.step(self._read(due))
                for task in batch:
                    task.advance()
            except Exception as error:
                decoder = None
                for ahead in due:
                    ahead.close()
                self._isolate(batch, error, innocent=bool(due))
            except BaseException as error:
                for task in batch:
                    task.fail(error)
                with self._lock:
                    self._working = False
                raise

    def _admit(self, running: list[Task]) -> tuple[list[Task], list[LocalReadAhead]]:
        """Move waiting tasks to those that run, within the limits, and take what is to be read.

        With nothing to do, the worker that asked must end.
        """
        with self._lock:
            admitted: list[Task] = []
            tokens = sum(task.tokens for task in running)
            while self._waiting and len(running) + len(admitted) < self._max_batch_size:
                tokens += self._waiting[0].tokens
                if (running or admitted) and tokens > self._max_batch_tokens:
                    break
                admitted.append(self._waiting.popleft())
            due, self._due = list(self._due.values()), {}
            self._working = bool(running or admitted or due)
            return admitted, due

    def _read(self, due: list[LocalReadAhead]) -> list[Prefix]:
        """Prefixes to read in the next pass."""
        if self._packed is None:
            return []
        reading = []
        for ahead in due:
            with self._lock:
                held = sum(len(other.prefix.ids) for other in self._ahead if not other.closed)
            if (prefix := ahead.update(self.copy_opening)) and held <= self._max_batch_tokens:
                reading.append(prefix)
                if len(prefix.unread) > PREFILL_CHUNK:
                    self._wake(ahead)
        return reading

    def _take_prefix(self, job: Job) -> Prefix:
        """What is read of a job's prompt already."""
        if isinstance(job.read_ahead, LocalReadAhead) and (prefix := job.read_ahead.take()):
            return prefix
        return self.copy_opening()

    def copy_opening(self) -> Prefix:
        """The prompt's opening, the same for all, as it was read once."""
        cache, opening = self._opening, self.loaded.encoder.opening
        return Prefix(RowCache()) if cache is None else Prefix(cache.copy(), opening)

    def _make_decoder(self) -> Decoder | PlainDecoder:
        packed = self.pack()
        if packed is None:
            return PlainDecoder(self.loaded.model)
        return Decoder(packed, self.costs)

    def pack(self) -> PackedModel | None:
        """The model for shared passes; None where it can't take them. For the worker's thread."""
        if not self._tried_packing:
            self._packed, self._tried_packing = pack(self.loaded.model), True
            if self._packed is not None:
                self.costs = find_costs(self._packed)
                if opening := self.loaded.encoder.opening:
                    cache = RowCache()
                    with torch.inference_mode():
                        self._packed.forward([Part(cache, opening, 1)])
                    self._opening = cache
        return self._packed

    def calibrate(self) -> PassCosts | None:
        """Measure what passes cost on this machine, use it, and keep it for later processes.

        Waits until no job runs. None for a model that is decoded plainly.
        """
        while True:
            with self._lock:
                if not self._working:
                    self._working = True
                    break
            time.sleep(0.01)
        try:
            packed = run_apart(self.pack)
            self.costs = None if packed is None else run_apart(lambda: calibrate(packed))
            return self.costs
        finally:
            with self._lock:
                self._working = False
            self._start()

    def _isolate(self, batch: list[Task], error: Exception, *, innocent: bool) -> None:
        """One failing row must not take its neighbours along: each goes on alone.

        With ``innocent`` even a single row does, since it may not have been the one that failed.
        """
        running = [task for task in batch if task.row.stop_reason is None]
        if len(running) > 1:
            logger.warning("a batch of %d failed (%r); going on one by one", len(batch), error)
        for task in batch:
            if task.row.stop_reason is not None:
                task.advance()
            elif len(running) == 1 and not innocent:
                task.fail(error)
            else:
                try:
                    self._run_alone(task)
                except Exception as alone:
                    task.fail(alone)

    def _run_alone(self, task: Task) -> None:
        decoder = self._make_decoder()
        decoder.add(task.row)
        while not task.ended:
            decoder.step()
            task.advance()
