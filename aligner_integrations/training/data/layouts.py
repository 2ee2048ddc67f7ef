"""Layouts of data sets: each turns one row into a `Triple`; pairs become rejected to chosen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal, get_args

from aligner_integrations.conversation import Turn
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.training.data.dialogues import (
    Turns,
    add_turn,
    ask,
    parse_transcript,
    read_messages,
    split_answer,
)
from aligner_integrations.training.data.fields import (
    check_text,
    read_choice,
    read_flag,
    read_list,
    read_text,
)
from aligner_integrations.training.data.rows import Row, RowProblem, RowSkipped
from aligner_integrations.training.data.triples import Triple

Preference = Literal["better", "safer"]
"""By which label PKU-SafeRLHF's chosen answer is found: the more helpful one, or the safer."""


@dataclass(frozen=True, slots=True)
class LayoutOptions:
    """What a converter may be told.

    Args:
        turns: ``"all"``: earlier turns of a dialogue go into the question, in the way in which
            the adapters render them. ``"last"``: only what the user said last.
        preference: For ``pku-saferlhf``.

    Raises:
        ConfigurationError: A value is unknown.
    """

    turns: Turns = "all"
    preference: Preference = "better"

    def __post_init__(self) -> None:
        for name, values in (("turns", get_args(Turns)), ("preference", get_args(Preference))):
            if getattr(self, name) not in values:
                raise ConfigurationError(
                    f"{name}={getattr(self, name)!r} must be {' or '.join(map(repr, values))}"
                )


Converter = Callable[[Row, LayoutOptions], Triple]


def convert_triples(row: Row, options: LayoutOptions) -> Triple:
    """Triples: ``{"question": "...", "answer": "...", "correction": "..."}``.

    ``kind`` is optional, and ``context`` with the earlier turns:
    ``["Human: ...", "Assistant: ..."]``.
    """
    question, meta = _ask_in_context(row, ("question",), options)
    answer, correction = read_text(row, "answer"), read_text(row, "correction")
    return _make(row, question, answer, correction, meta, used=("answer", "correction"))


def convert_copies(row: Row, options: LayoutOptions) -> Triple:
    """Good answers to be copied: ``{"question": "...", "answer": "..."}``.

    In a row with a ``correction`` that is the good answer, so triples read this way are the
    warm-up's examples. Never found by itself, since answers that wait for their correction look
    the same.
    """
    question, meta = _ask_in_context(row, ("question",), options)
    answer = read_text(row, "correction", "answer")
    return _make(row, question, answer, answer, meta, used=("answer", "correction"))


def convert_pairs(row: Row, options: LayoutOptions) -> Triple:
    """Preference pairs: ``{"prompt": "...", "chosen": "...", "rejected": "..."}``.

    The prompt may be called ``question``, and have a ``context`` as in ``triples``.
    """
    question, meta = _ask_in_context(row, ("prompt", "question"), options)
    rejected, chosen = read_text(row, "rejected"), read_text(row, "chosen")
    return _make(row, question, rejected, chosen, meta, used=("chosen", "rejected"))


def convert_hh(row: Row, options: LayoutOptions) -> Triple:
    r"""Anthropic's HH: ``{"chosen": "\n\nHuman: ...\n\nAssistant: ...", "rejected": "..."}``.

    Both transcripts must agree up to the last answer; the few that don't are left out.
    """
    turns, chosen = split_answer("chosen", parse_transcript(read_text(row, "chosen")))
    other, rejected = split_answer("rejected", parse_transcript(read_text(row, "rejected")))
    if turns != other:
        raise RowSkipped("the transcripts differ before the last answer")
    question, meta = ask(turns, options.turns)
    return _make(row, question, rejected, chosen, meta, used=("chosen", "rejected"))


def convert_pku_saferlhf(row: Row, options: LayoutOptions) -> Triple:
    """PKU-SafeRLHF: a prompt, two responses, and which is better and which safer.

    ``{"prompt": "...", "response_0": "...", "response_1": "...", "is_response_0_safe": false,
    "is_response_1_safe": true, "better_response_id": 1, "safer_response_id": 1}``. Rows whose
    chosen response is unsafe are left out: the less bad answer is no correction.
    """
    name = f"{options.preference}_response_id"
    best = read_choice(row, name)
    safe = [read_flag(row, f"is_response_{index}_safe") for index in (0, 1)]
    question = read_text(row, "prompt")
    responses = [read_text(row, f"response_{index}") for index in (0, 1)]
    if not safe[best]:
        raise RowSkipped("the chosen response is unsafe")
    meta = {"answer_is_safe": safe[1 - best]}
    used = ("prompt", "response_0", "response_1")
    return _make(row, question, responses[1 - best], responses[best], meta, used)


def convert_ultrafeedback(row: Row, options: LayoutOptions) -> Triple:
    """UltraFeedback: a prompt, and two dialogues as lists of messages (binarized), or completions.

    ``{"prompt": "...", "chosen": [{"role": "user", "content": "..."}, {"role": "assistant",
    "content": "..."}], "rejected": [...], "score_chosen": 8.0, "score_rejected": 5.5}``. Where
    the dialogues hold the answer alone, ``prompt`` (a text or messages) asks. As first published:
    ``{"instruction": "...", "completions": [{"response": "...", "fine-grained_score": 4.5}]}``, of
    which the best corrects the worst. Rows whose chosen answer scores no higher are left out.
    """
    if row.get("completions") is not None:
        return _rank_completions(row)
    turns, chosen = split_answer("chosen", read_messages("chosen", read_list(row, "chosen")))
    other, rejected = split_answer(
        "rejected", read_messages("rejected", read_list(row, "rejected"))
    )
    if turns != other:
        raise RowSkipped("the dialogues differ before the last answer")
    scores = [row.get("score_chosen"), row.get("score_rejected")]
    if all(isinstance(score, (int, float)) for score in scores) and scores[0] <= scores[1]:  # type: ignore[operator]
        raise RowSkipped("the chosen answer scores no higher")
    if not turns:
        prompt = row.get("prompt")
        turns = (
            read_messages("prompt", prompt)
            if isinstance(prompt, list)
            else [Turn("user", read_text(row, "prompt"))]
        )
    question, meta = ask(turns, options.turns)
    used = ("prompt", "chosen", "rejected", "messages")
    return _make(row, question, rejected, chosen, meta, used)


def _rank_completions(row: Row) -> Triple:
    question = read_text(row, "instruction", "prompt")
    ranked = []
    for completion in read_list(row, "completions"):
        if not isinstance(completion, dict):
            raise RowProblem("wrong type", f"'completions' holds {completion!r:.60}; no completion")
        # The overall score is known to be 10 for some answers that were given a 1.
        score = completion.get("fine-grained_score", completion.get("overall_score"))
        if isinstance(score, (int, float)):
            ranked.append((score, read_text(completion, "response")))
    ranked.sort(key=lambda pair: pair[0])
    if not ranked or ranked[0][0] == ranked[-1][0]:
        raise RowSkipped("no completion scores higher than another")
    meta = {"score_chosen": ranked[-1][0], "score_rejected": ranked[0][0]}
    used = ("instruction", "completions")
    return _make(row, question, ranked[0][1], ranked[-1][1], meta, used)


def convert_aligner(row: Row, options: LayoutOptions) -> Triple:
    """Aligner-20K, as published: ``{"question": "...", "answer": "...", "correction": "..."}``."""
    return convert_triples(row, options)


def convert_alignertails(row: Row, options: LayoutOptions) -> Triple:
    """AlignerTails: ``{"prompt": "...", "answer": "...", "correction": "...", "category": "..."}``.

    The prompt may be called ``question``, the answer ``response``; the category (``empathy``,
    ``general``, ``safety``, ``summary``, ``reasoning``) becomes the kind.
    """
    question = read_text(row, "prompt", "question")
    answer, correction = read_text(row, "answer", "response"), read_text(row, "correction")
    used = ("prompt", "question", "answer", "response", "correction")
    triple = _make(row, question, answer, correction, {}, used)
    category = triple.meta.get("category")
    if triple.kind or not isinstance(category, str):
        return triple
    return Triple(question, answer, correction, category, triple.meta)


def convert_questions(row: Row, options: LayoutOptions) -> Triple:
    """Questions alone, ``{"question": "..."}`` or a ``prompt``: nothing to train on.

    For comparing with other files; answer and correction are what the row has, or empty. Never
    found by itself.
    """
    question, meta = _ask_in_context(row, ("question", "prompt"), options)
    answer, correction = (
        value if isinstance(value := row.get(name), str) else ""
        for name in ("answer", "correction")
    )
    return _make(row, question, answer, correction, meta, used=("answer", "correction"))


LAYOUTS: dict[str, Converter] = {
    "triples": convert_triples,
    "pairs": convert_pairs,
    "hh": convert_hh,
    "pku-saferlhf": convert_pku_saferlhf,
    "ultrafeedback": convert_ultrafeedback,
    "aligner": convert_aligner,
    "alignertails": convert_alignertails,
    "copies": convert_copies,
    "questions": convert_questions,
}
"""All layouts by name."""


def detect_layout(row: Row) -> str | None:
    """The layout whose fields the row has; None if it fits none.

    Example:
        >>> detect_layout({"prompt": "Eggs?", "chosen": "Boil them.", "rejected": "No."})
        'pairs'
    """
    fields = {name for name, value in row.items() if value is not None}
    asks = bool(fields & {"prompt", "question"})
    pair = fields >= {"chosen", "rejected"}
    messages = pair and isinstance(row["chosen"], list)
    corrected = asks and "correction" in fields
    tests = {
        "pku-saferlhf": fields >= {"response_0", "response_1"},
        "ultrafeedback": messages or fields >= {"instruction", "completions"},
        "pairs": pair and asks,
        "hh": pair,
        "triples": corrected and fields >= {"question", "answer"},  # Aligner-20K is the same
        "alignertails": corrected and bool(fields & {"answer", "response"}),
    }
    return next((name for name, fits in tests.items() if fits), None)


def find_layout(name: str) -> Converter:
    """The converter of this name.

    Raises:
        ConfigurationError: There is none.
    """
    try:
        return LAYOUTS[name]
    except KeyError:
        raise ConfigurationError(
            f"layout={name!r} is unknown; layouts are 'auto', {', '.join(map(repr, LAYOUTS))}"
        ) from None


def _ask_in_context(
    row: Row, names: tuple[str, ...], options: LayoutOptions
) -> tuple[str, dict[str, Any]]:
    """The question with its ``context``, a list of transcript turns, and notes for ``meta``."""
    question = read_text(row, *names)
    context = row.get("context")
    if not context:
        return question, {}
    if not isinstance(context, list):
        # Other sets call a document "context"; it is no dialogue and stays among the notes.
        return question, {"context": context}
    turns: list[Turn] = []
    for said in context:
        if not isinstance(said, str) or not said.startswith(("Human:", "Assistant:")):
            raise RowProblem(
                "wrong type", f"'context' holds {said!r:.60}; turns begin with 'Human: '"
            )
        for turn in parse_transcript(check_text("context", said)):
            add_turn(turns, turn)
    add_turn(turns, Turn("user", question))
    return ask(turns, options.turns)


def _make(
    row: Row,
    question: str,
    answer: str,
    correction: str,
    meta: dict[str, Any],
    used: tuple[str, ...],
) -> Triple:
    left_out = {*used, "question", "prompt", "context", "kind"}
    others = {name: value for name, value in row.items() if name not in left_out}
    kind = row.get("kind")
    return Triple(question, answer, correction, "" if kind is None else str(kind), others | meta)
