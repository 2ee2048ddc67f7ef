"""Earlier turns of a conversation, and how they go into the question."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from aligner_integrations.errors import ConfigurationError, QuestionNotFoundError
from aligner_integrations.prompts import PRESETS, PromptFormat

History = Literal["last", "all"] | Callable[[list[Any]], Any]
"""Which turns the question holds: the user's last, all, or those that a function picks.

The function gets the messages that the LLM was asked, in the framework's own form, and returns
those to use, or the question itself as a str.
"""

_FIELDS = re.compile(r"(\{role\}|\{text\})")


@dataclass(frozen=True, slots=True)
class Turn:
    """What one side said.

    Attributes:
        role: ``"user"`` or ``"assistant"``.
        text: What was said.
    """

    role: Literal["user", "assistant"]
    text: str


def render_turns(turns: Sequence[Turn], prompt: PromptFormat | None = None) -> str:
    """A conversation as one question, in the way of a prompt format.

    A single turn is the question itself, without a role.

    Args:
        turns: The turns, the user's last one last.
        prompt: The format; by default the bundled model's.
    """
    if len(turns) == 1:
        return turns[0].text
    layout = prompt or PRESETS["aligner-smol"]
    names = dict(zip(("user", "assistant"), layout.roles, strict=True))
    parts = _FIELDS.split(layout.turn)  # not str.format, which braces in the layout would break
    return "\n".join(
        "".join({"{role}": names[turn.role], "{text}": turn.text}.get(part, part) for part in parts)
        for turn in turns
    )


def check_history(history: Any) -> None:
    """Raise `ConfigurationError` unless this is a `History`."""
    if history not in ("last", "all") and not callable(history):
        raise ConfigurationError(
            f"history={history!r:.80} must be 'last', 'all' or a function of the messages"
        )


def find_question(
    messages: list[Any],
    history: History,
    read_turns: Callable[[list[Any]], list[Turn]],
    render: Callable[[Sequence[Turn]], str],
) -> str:
    """The question that a list of messages ends with.

    Args:
        messages: What the LLM was asked, in a framework's own form.
        history: Which of them to use.
        read_turns: Takes turns out of messages; what is no text of user or assistant is left out.
        render: Makes one question of several turns; see `Aligner.render`.

    Raises:
        ConfigurationError: The function returned neither messages nor a str.
        QuestionNotFoundError: The user said nothing in them.
    """
    if callable(history):
        chosen = history(messages)
        if isinstance(chosen, str):
            return chosen
        if not isinstance(chosen, Iterable):
            raise ConfigurationError(
                f"history={history!r:.80} returned {chosen!r:.80}; it must return messages, or the "
                "question as a str"
            )
        messages = list(chosen)
    turns = read_turns(messages)
    while turns and turns[-1].role != "user":  # an agent's remarks beside its tool calls
        turns.pop()
    if not turns:
        raise QuestionNotFoundError(
            f"the {len(messages)} messages hold no text from the user, so the question is "
            "unknown; pass question=..., or a function as history=..."
        )
    return turns[-1].text if history == "last" else render(turns)
