"""A correction as a value: the text, what changed, what it cost."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

from rapidfuzz.distance import Indel, Levenshtein

if TYPE_CHECKING:
    from rich.console import Console, ConsoleOptions, RenderResult

EditOp = Literal["replace", "delete", "insert"]
_WORDS = re.compile(r"\w+|\s+|[^\w\s]")


@dataclass(frozen=True, slots=True)
class Edit:
    """One place at which the correction departs from the answer.

    Attributes:
        op: ``"replace"``, ``"delete"`` or ``"insert"``.
        before: The answer's characters that went away ("" for an insertion).
        after: The characters that stand in their place ("" for a deletion).
        answer_span: ``(start, end)`` of ``before`` in the answer, in characters.
        text_span: ``(start, end)`` of ``after`` in the corrected text, in characters.
    """

    op: EditOp
    before: str
    after: str
    answer_span: tuple[int, int]
    text_span: tuple[int, int]


@dataclass(frozen=True, slots=True)
class CorrectionStats:
    """What one correction cost.

    Attributes:
        prompt_tokens: Tokens of the whole prompt (instruction, question, answer).
        output_tokens: Tokens that the model wrote, its end token not counted.
        copied_tokens: Output tokens that stand in the same order in the answer.
        forward_passes: Model calls that this correction took part in.
        near_ties: Greedy choices between tokens so close that rounding may decide them (in
            float32: 2e-4 logits). With ``exact=True`` plain decoding decides them.
        smallest_margin: By how many logits the closest choice was made; None when sampling.
        seconds: Wall time from the request to the last token, waiting included.
        stop_reason: ``"stop"`` (the model ended), ``"skipped"`` (no model call; see
            `Correction.skipped`) or ``"policy"`` (no correction; see `Correction.policy`).
        drafted_tokens: The answer's tokens that passes were asked to verify.
        accepted_tokens: Those of them that the model would have written itself.
        queue_seconds: How much of ``seconds`` went by before the model, or a server, took it.
    """

    prompt_tokens: int = 0
    output_tokens: int = 0
    copied_tokens: int = 0
    forward_passes: int = 0
    near_ties: int = 0
    smallest_margin: float | None = None
    seconds: float = 0.0
    stop_reason: str = "stop"
    drafted_tokens: int = 0
    accepted_tokens: int = 0
    queue_seconds: float = 0.0


@dataclass(frozen=True)
class Correction:
    """A corrected answer.

    Attributes:
        text: The corrected text; what a user should see.
        question: The question that was answered.
        answer: The upstream model's answer.
        stats: What it cost.
        model: The aligner's name.
        policy: None, or the policy that put ``text`` there because correcting failed:
            ``"original"`` or ``"refuse"``.
        error: With ``policy``, the reason in one line.
        skipped: None, or why the answer was not read and is handed on as it is: ``"blank"``,
            ``"json"`` or ``"code"`` (see `GenerationOptions`), ``"correct_when"``, or
            ``"tool_calls"`` (LangChain: a message that calls tools).
        lost: Protected parts of the answer that the text does not hold.
        strength: The strength with which it was written; 0 is the model as trained.

    Example:
        >>> c = Correction("Boil them.", question="Eggs?", answer="Boil them, fool.")
        >>> c.changed, c.edits[0].before
        (True, ', fool')
    """

    text: str
    question: str
    answer: str
    stats: CorrectionStats = field(default_factory=CorrectionStats)
    model: str = ""
    policy: Literal["original", "refuse"] | None = None
    error: str | None = None
    skipped: Literal["blank", "json", "code", "correct_when", "tool_calls"] | None = None
    lost: tuple[str, ...] = ()
    strength: float = 0.0

    @property
    def changed(self) -> bool:
        """Whether the text differs from the answer in any character."""
        return self.text != self.answer

    @property
    def outcome(self) -> str:
        """What became of the answer, in one word, for counting.

        ``"changed"``, ``"unchanged"``, ``"skipped_..."`` with the reason, or the policy that
        applied, ``"original"`` or ``"refuse"``.
        """
        if self.skipped is not None:
            return f"skipped_{self.skipped}"
        return self.policy or ("changed" if self.changed else "unchanged")

    @cached_property
    def similarity(self) -> float:
        """Levenshtein ratio of answer and text: 1 for equal, 0 for nothing in common."""
        return float(Indel.normalized_similarity(self.answer, self.text))

    @cached_property
    def edits(self) -> list[Edit]:
        """The differences, word by word, in reading order."""
        return list(find_edits(self.answer, self.text))

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "text": self.text,
            "question": self.question,
            "answer": self.answer,
            "changed": self.changed,
            "similarity": round(self.similarity, 4),
            "edits": [asdict(edit) for edit in self.edits],
            "stats": asdict(self.stats),
            "model": self.model,
            "policy": self.policy,
            "error": self.error,
            "skipped": self.skipped,
            "lost": list(self.lost),
            **self._show_strength(),
        }

    def record(self) -> dict[str, Any]:
        """The short record that adapters put into metadata: no answer text, raw or corrected."""
        return {
            "changed": self.changed,
            "similarity": round(self.similarity, 4),
            "seconds": round(self.stats.seconds, 4),
            "model": self.model,
            "policy": self.policy,
            "error": self.error,
            "skipped": self.skipped,
            "lost": len(self.lost),
            **self._show_strength(),
        }

    def _show_strength(self) -> dict[str, float]:
        return {"strength": self.strength} if self.strength else {}

    def __str__(self) -> str:
        return self.text

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        from aligner_integrations.rendering import render_terminal

        yield from render_terminal(self)

    def _repr_html_(self) -> str:
        from aligner_integrations.rendering import render_html

        return render_html(self)


def find_edits(answer: str, text: str) -> Iterator[Edit]:
    """Differences between two texts on word boundaries.

    Edits whose gap is shorter than both of them are joined, so a rewritten sentence reads as one
    edit and not as a scatter of words that happen to be in both.

    Yields:
        Edits in order, whose spans are in characters of ``answer`` and ``text``.
    """
    if answer == text:
        return
    before, after = _WORDS.findall(answer), _WORDS.findall(text)
    before_at, after_at = _offsets(before), _offsets(after)
    joined: list[_Span] = []
    for op in Levenshtein.opcodes(before, after):
        if op.tag == "equal":
            continue
        span = _Span(
            before_at[op.src_start],
            before_at[op.src_end],
            after_at[op.dest_start],
            after_at[op.dest_end],
        )
        # Joining makes an edit longer, which may close the gap before it as well.
        while joined and span.start - joined[-1].end <= min(joined[-1].size, span.size):
            earlier = joined.pop()
            span = _Span(earlier.start, span.end, earlier.text_start, span.text_end)
        joined.append(span)
    for span in (_trim(span, answer, text) for span in joined):
        before_edit = answer[span.start : span.end]
        after_edit = text[span.text_start : span.text_end]
        op_name: EditOp = "insert" if not before_edit else "delete" if not after_edit else "replace"
        yield Edit(
            op_name,
            before_edit,
            after_edit,
            (span.start, span.end),
            (span.text_start, span.text_end),
        )


class _Span(NamedTuple):
    """An edit's place: in the answer, and in the text."""

    start: int
    end: int
    text_start: int
    text_end: int

    @property
    def size(self) -> int:
        return max(self.end - self.start, self.text_end - self.text_start)


def _trim(span: _Span, answer: str, text: str) -> _Span:
    """Without the space that both sides begin or end with: it is no change."""
    start, end, text_start, text_end = span
    while start < end and text_start < text_end and answer[end - 1] == text[text_end - 1] == " ":
        end, text_end = end - 1, text_end - 1
    while start < end and text_start < text_end and answer[start] == text[text_start] == " ":
        start, text_start = start + 1, text_start + 1
    return _Span(start, end, text_start, text_end)


def _offsets(words: list[str]) -> list[int]:
    offsets = [0]
    for word in words:
        offsets.append(offsets[-1] + len(word))
    return offsets
