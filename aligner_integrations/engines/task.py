"""A job in the local engine: its row in the decoder, and its text as it grows."""

from __future__ import annotations

import time
import traceback
from dataclasses import dataclass

from rapidfuzz.distance import LCSseq

from aligner_integrations.correction import CorrectionStats
from aligner_integrations.decoding.rows import Row
from aligner_integrations.engines.base import Event, Finished, Job
from aligner_integrations.errors import CorrectionError, TruncatedCorrectionError
from aligner_integrations.tokenization import TextStream


@dataclass(slots=True, eq=False)
class Task:
    """Turns what a row writes into its job's events, and its end into exactly one last event.

    Attributes:
        model: The model's name, for errors.
        job: Who waits.
        row: Token ids.
        text: Decodes them.
        shown: How many output tokens have been decoded.
        ended: Whether the last event has been emitted.
        waited: Seconds before the model took it.
    """

    model: str
    job: Job
    row: Row
    text: TextStream
    shown: int = 0
    ended: bool = False
    waited: float = 0.0

    @property
    def tokens(self) -> int:
        """About how many positions the row will need."""
        return len(self.row.prompt) + len(self.row.draft)

    def begin(self) -> None:
        """The model takes it."""
        self.waited = time.perf_counter() - self.job.started

    def advance(self) -> None:
        """Emit what the row wrote since the last time. What fails here fails this task alone."""
        try:
            piece = self.text.push(self.row.output[self.shown :])
            self.shown = len(self.row.output)
            if piece:
                self.job.emit(piece)
            if self.row.stop_reason is not None:
                self._finish()
        except Exception as error:
            self.fail(error)

    def fail(self, error: BaseException) -> None:
        """End the task with an error that says what failed."""
        failure = CorrectionError(
            f"{self.model!r} failed on a prompt of {len(self.row.prompt)} tokens: {error!r}"
        )
        failure.__cause__ = error
        clear_frames(error)
        self.row.stop_reason = "cancelled"
        self._end(failure)

    def _finish(self) -> None:
        row = self.row
        if self.ended:
            return
        if row.stop_reason == "cancelled":
            self._end(CorrectionError("this correction was closed before its end"))
        elif row.stop_reason == "length":
            self._end(
                TruncatedCorrectionError(
                    f"the correction had not ended after {len(row.output)} tokens; raise "
                    "max_new_tokens if that is too few for a good answer (an answer is never cut)"
                )
            )
        else:
            rest, text = self.text.finish()
            if rest:
                self.job.emit(rest)
            self._end(Finished(text, self._count()))

    def _count(self) -> CorrectionStats:
        row, margin = self.row, self.row.smallest_margin
        return CorrectionStats(
            prompt_tokens=len(row.prompt),
            output_tokens=len(row.output),
            copied_tokens=int(LCSseq.similarity(row.draft, row.output)),
            forward_passes=row.forward_passes,
            near_ties=row.near_ties,
            smallest_margin=None if margin == float("inf") else round(margin, 6),
            seconds=time.perf_counter() - self.job.started,
            stop_reason=row.stop_reason or "stop",
            drafted_tokens=row.drafted,
            accepted_tokens=row.accepted,
            queue_seconds=self.waited,
        )

    def _end(self, event: Event) -> None:
        if not self.ended:
            self.ended = True
            self.job.emit(event)


def clear_frames(error: BaseException | None) -> None:
    """Let go of what the frames of an error hold: keys and values of a whole batch.

    A caller may hold the error for long, and after one for want of memory there is none to spare.
    Where it came from can still be read.
    """
    seen: set[int] = set()
    while error is not None and id(error) not in seen:  # an error may be its own cause
        seen.add(id(error))
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
