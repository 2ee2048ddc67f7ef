"""Dialogues in the layouts of public sets: transcripts and message lists."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, Literal

from aligner_integrations.conversation import Turn, render_turns
from aligner_integrations.training.data.fields import check_text
from aligner_integrations.training.data.rows import RowProblem
from aligner_integrations.training.data.triples import FIRST_TURN

Turns = Literal["all", "last"]
"""Which turns the question holds: the whole dialogue, or the user's last."""

_MARKER = re.compile(r"(?:\A\s*|\n\n)(Human|Assistant):[ \t]*")
_ROLES: dict[str, Literal["user", "assistant"]] = {
    "Human": "user",
    "Assistant": "assistant",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
}


def parse_transcript(text: str) -> list[Turn]:
    r"""Take a transcript of HH apart.

    What one side says twice in a row is one turn. Space around a turn is dropped.

    Raises:
        RowProblem: It does not begin with ``Human:`` or ``Assistant:``.

    Example:
        >>> parse_transcript("\n\nHuman: Eggs?\n\nAssistant: Boil them.")[1]
        Turn(role='assistant', text='Boil them.')
    """
    before, *parts = _MARKER.split(text)
    if before.strip() or not parts:
        raise RowProblem(
            "no transcript",
            f"{text!r:.60} does not begin with '\\n\\nHuman: '; name its real layout",
        )
    turns: list[Turn] = []
    for role, said in zip(parts[::2], parts[1::2], strict=True):
        add_turn(turns, Turn(_ROLES[role], said.strip()))
    return turns


def read_messages(name: str, messages: Any) -> list[Turn]:
    """Turns of a list of ``{"role": ..., "content": ...}``; system messages are left out.

    Raises:
        RowProblem: It is something else.
    """
    if not isinstance(messages, list):
        raise RowProblem("wrong type", f"{name!r} is {messages!r:.60}; it must be a list")
    turns: list[Turn] = []
    for message in messages:
        role = message.get("role") if isinstance(message, dict) else None
        if role == "system":
            continue
        if role not in _ROLES:
            raise RowProblem(
                "wrong type", f"{name!r} holds {message!r:.60}; it needs a role and a content"
            )
        add_turn(turns, Turn(_ROLES[role], check_text(f"{name}.content", message.get("content"))))
    return turns


def add_turn(turns: list[Turn], turn: Turn) -> None:
    """Append a turn; to the last one if the same side goes on."""
    if turns and turns[-1].role == turn.role:
        turns[-1] = Turn(turn.role, f"{turns[-1].text}\n\n{turn.text}".strip())
    else:
        turns.append(turn)


def split_answer(name: str, turns: Sequence[Turn]) -> tuple[list[Turn], str]:
    """The turns before the last answer, and that answer.

    Raises:
        RowProblem: The dialogue does not end with an answer.
    """
    if not turns or turns[-1].role != "assistant":
        raise RowProblem("no answer", f"{name!r} does not end with the assistant; leave it out")
    return list(turns[:-1]), check_text(name, turns[-1].text)


def ask(turns: Sequence[Turn], keep: Turns) -> tuple[str, dict[str, str]]:
    """The question that these turns ask, and what ``meta`` notes about the dialogue.

    Raises:
        RowProblem: The user asks nothing at its end.
    """
    if not turns or turns[-1].role != "user":
        raise RowProblem("no question", "the user says nothing before the answer; leave it out")
    check_text("question", turns[-1].text)
    first = next(turn.text for turn in turns if turn.role == "user")
    meta = {FIRST_TURN: first} if len(turns) > 1 and first.strip() else {}
    if keep == "last":
        return turns[-1].text, meta
    return check_text("question", render_turns(turns)), meta
