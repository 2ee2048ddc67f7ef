"""The question in the messages that an LLM is asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from llama_index.core.base.llms.types import ChatMessage

from aligner_integrations.conversation import History, Turn, find_question
from aligner_integrations.errors import ConfigurationError, InputTypeError
from aligner_integrations.llama_index.messages import read_turns
from aligner_integrations.llama_index.react import is_reasoning

Question = Callable[[list[ChatMessage]], str]
"""Finds the question in the messages that an LLM is asked."""

user_message: ContextVar[str | None] = ContextVar("aligner_user_message", default=None)
"""What the user of a running agent said, where the agent knows it better than its prompt."""


def check_question(question: Any) -> None:
    """Raise `ConfigurationError` unless this is a `Question` or None."""
    if question is not None and not callable(question):
        raise ConfigurationError(
            f"question={question!r:.80} must be a function of the messages, or None"
        )


def find_asked(
    messages: list[ChatMessage],
    history: History,
    render: Callable[[Sequence[Turn]], str],
    *,
    react: bool = False,
    question: Question | None = None,
) -> str:
    """The question that messages end with, or what the caller's own function finds in them.

    In ReAct an agent's reasoning is no part of it.

    Raises:
        InputTypeError: The caller's function gave no str.
        QuestionNotFoundError: The user said nothing in them.
    """
    if question is not None:
        found = question(messages)
        if not isinstance(found, str):
            raise InputTypeError(
                f"question= gave a {type(found).__name__} for {len(messages)} messages; it must "
                "give a str"
            )
        return found

    def read(chosen: list[ChatMessage]) -> list[Turn]:
        if react:
            chosen = [message for message in chosen if not is_reasoning(message)]
        return _with_user_message(read_turns(chosen))

    return find_question(messages, history, read, render)


def list_messages(
    user_msg: str | ChatMessage | None, chat_history: list[ChatMessage] | None
) -> list[ChatMessage]:
    """What an LLM with tools is asked."""
    last = ChatMessage(user_msg) if isinstance(user_msg, str) else user_msg
    return [*(chat_history or []), *([last] if last is not None else [])]


def _with_user_message(turns: list[Turn]) -> list[Turn]:
    """The turns, the user's last one in the user's own words where an agent knows them."""
    said = user_message.get()
    if not said:
        return turns
    last = max((i for i, turn in enumerate(turns) if turn.role == "user"), default=len(turns))
    return [*turns[:last], Turn("user", said), *turns[last + 1 :]]
