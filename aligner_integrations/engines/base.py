"""The seam between `Aligner` and whatever runs the model.

An engine takes jobs and answers through each job's ``emit``, from any thread: pieces of corrected
text, then one `Finished` or one exception.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from aligner_integrations.correction import CorrectionStats
from aligner_integrations.options import GenerationOptions
from aligner_integrations.prompts import PromptFormat


@dataclass(frozen=True, slots=True)
class Finished:
    """The last event of a job that went well: the whole text and what it cost."""

    text: str
    stats: CorrectionStats


Event = str | Finished | BaseException


class ReadAhead(Protocol):
    """An answer that is still being written, read by the aligner as it comes.

    Only a hint: what is corrected is the answer of the job that it is handed in with, and where
    the two differ, what was read in vain is dropped.
    """

    def extend(self, text: str) -> None:
        """More of the answer has arrived. Returns at once."""
        ...

    def close(self) -> None:
        """Read no more, and let go of what was read. Returns at once; closing twice is no error.

        A stream that it was handed in with closes it.
        """
        ...


@dataclass(slots=True, eq=False)
class Job:
    """One answer to correct.

    Attributes:
        question: The question, as the user wrote it.
        answer: The answer, as the upstream model wrote it.
        options: How to write the correction.
        emit: Where the engine puts the job's events; called from the engine's thread.
        read_ahead: What the same engine has read of the answer already.
        trace: Headers that carry the caller's trace on, for an engine that asks another machine.
        whole: Nobody reads the pieces, so an engine need not emit them.
        cancelled: Set by `cancel`; an engine drops the job at its next step.
        on_cancel: Called by `cancel`, from any thread, for an engine that has no steps.
    """

    question: str
    answer: str
    options: GenerationOptions
    emit: Callable[[Event], None]
    read_ahead: ReadAhead | None = None
    trace: Mapping[str, str] = field(default_factory=dict)
    whole: bool = False
    cancelled: bool = False
    on_cancel: Callable[[], None] | None = None
    started: float = field(default_factory=time.perf_counter)

    def cancel(self) -> None:
        """Nobody waits for this job any longer."""
        self.cancelled = True
        if self.on_cancel is not None:
            self.on_cancel()


class Engine(Protocol):
    """Runs jobs. Must be safe to call from any thread."""

    @property
    def name(self) -> str:
        """The model's name, as it goes into records."""
        ...

    @property
    def prompt(self) -> PromptFormat | None:
        """How the model wants questions and answers laid out, where the engine knows."""
        ...

    def submit(self, jobs: Sequence[Job]) -> None:
        """Take jobs, to be run together where that pays, and return without waiting for them.

        A job that cannot be taken (too long, invalid text, queue full, a ``strength`` that the
        engine has no way to apply) gets its error through ``emit``.
        """
        ...

    def read_ahead(self, question: str) -> ReadAhead | None:
        """Begin to read a pair whose answer is still being written; None where that can't help."""
        ...

    def calibrate(self) -> object:
        """Measure what passes cost on this machine, where the engine can make use of it."""
        ...
