"""A job at a server: its request, and its text as it comes, over several attempts."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import Any

from rapidfuzz.distance import LCSseq

from aligner_integrations.correction import CorrectionStats
from aligner_integrations.engines.base import Event, Finished, Job
from aligner_integrations.engines.completions import Chunk
from aligner_integrations.engines.written import PromptWriter, Restorer
from aligner_integrations.errors import CorrectionError, TruncatedCorrectionError
from aligner_integrations.tokenization import EncodedPrompt, PromptEncoder


@dataclass(slots=True, eq=False)
class RemoteTask:
    """Turns the pieces of attempts into its job's events, and their end into exactly one last one.

    A later attempt writes the same again from the beginning. What was handed out already is not
    handed out twice; where the new text differs from it, the task fails.

    Attributes:
        model: The model's name, for errors.
        job: Who waits.
        encoder: Counts the text's tokens.
        prompt: What the server reads.
        body: The request.
        writer: Clears the text of a prompt that was sent as text.
        text: What this attempt wrote.
        sent: What was handed out.
        ended: Whether the last event has been emitted.
        waited: Seconds before its first request was sent.
    """

    model: str
    job: Job
    encoder: PromptEncoder
    prompt: EncodedPrompt
    body: dict[str, Any]
    writer: PromptWriter | None = None
    text: list[str] = field(default_factory=list)
    sent: str = ""
    ended: bool = False
    waited: float = 0.0
    _length: int = 0
    _restorer: Restorer | None = None

    def begin(self) -> None:
        """A new attempt."""
        self.text, self._length = [], 0
        self._restorer = self.writer.restore() if self.writer else None

    def take(self, chunk: Chunk) -> None:
        """A piece of this attempt's text.

        Raises:
            CorrectionError: It differs from what was handed out.
            TruncatedCorrectionError: The correction reached its token limit.
        """
        piece = chunk.text
        if self._restorer is not None:
            piece = self._restorer.push(piece)
            if chunk.end is not None:
                piece += self._restorer.finish()
        if piece:
            self._write(piece)
        if chunk.end == "length":
            raise TruncatedCorrectionError(
                f"the correction had not ended after {self.body['max_tokens']} tokens, or the "
                "server's context was full; raise max_new_tokens or context if that is too few for "
                "a good answer (an answer is never cut)"
            )
        if chunk.end is not None:
            self._finish()

    def fail(self, error: BaseException) -> None:
        """End the task with an error."""
        self._end(error)

    def _write(self, piece: str) -> None:
        start, self._length = self._length, self._length + len(piece)
        self.text.append(piece)
        if self.job.whole:
            return
        known = self.sent[start : self._length]
        if not piece.startswith(known):
            raise CorrectionError(
                f"the stream of {self.model!r} broke off, and its next attempt wrote something "
                "else than what was handed out already; try again"
            )
        if new := piece[len(known) :]:
            self.sent += new
            self.job.emit(new)

    def _finish(self) -> None:
        text = "".join(self.text)
        if not self.job.whole and len(text) < len(self.sent):
            raise CorrectionError(
                f"the stream of {self.model!r} broke off, and its next attempt wrote less than "
                "what was handed out already; try again"
            )
        output = self.encoder.encode_output(text)
        stats = CorrectionStats(
            prompt_tokens=len(self.prompt.ids),
            output_tokens=len(output),
            copied_tokens=int(LCSseq.similarity(self.prompt.answer_ids, output)),
            seconds=time.perf_counter() - self.job.started,
            stop_reason="stop",
            queue_seconds=self.waited,
        )
        self._end(Finished(text, stats))

    def _end(self, event: Event) -> None:
        if not self.ended:
            self.ended = True
            self.job.emit(event)
