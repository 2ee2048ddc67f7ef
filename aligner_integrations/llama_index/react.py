"""ReAct in messages: the scaffolding that an agent's parser needs, and the answer within it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llama_index.core.base.llms.types import ChatMessage, MessageRole

_ANSWER = re.compile(r"(\s*Thought:.*?Answer:\s*)(.*)", re.DOTALL)
_CALL = ("Action: ", "\nAction Input: ", "{", "}")
_OBSERVATION = "Observation:"
_FORM = ("Thought:", "Action:", "Action Input:", "Answer:")


def asks_for_react(messages: Sequence[ChatMessage]) -> bool:
    """Whether an LLM was told to answer in ReAct's form.

    Only then is its scaffolding left alone. An LLM that writes "Thought:" and "Action:" by itself
    must not get around the aligner that way, nor a user or a retrieved text that asks for it: the
    form is the matter of the system message, with which an agent begins.
    """
    first = messages[0] if messages else ChatMessage()
    text = first.content or ""
    return first.role == MessageRole.SYSTEM and all(word in text for word in _FORM)


def is_reasoning(message: ChatMessage) -> bool:
    """Whether a message is a step of an agent's reasoning: no turn of the conversation."""
    text = (message.content or "").lstrip()
    if message.role == MessageRole.ASSISTANT:
        return text.startswith("Thought:")
    return text.startswith(_OBSERVATION)


def split_scaffold(text: str) -> tuple[str, str]:
    r"""What stays and what is corrected of a message in ReAct's form.

    LlamaIndex's ReActOutputParser decides in the same way. What only looks like a call of a tool
    is no step that an agent could take, so it is corrected as a whole.

    Example:
        >>> split_scaffold("Thought: I know that.\nAnswer: Boil them.")
        ('Thought: I know that.\nAnswer: ', 'Boil them.')
        >>> split_scaffold("Thought: Look it up.\nAction: search\nAction Input: {}")[1]
        ''
    """
    action, answer = text.find("Action:"), text.find("Answer:")
    if action >= 0 and (answer < 0 or action < answer):
        return (text, "") if _holds_in_order(text, _CALL) else ("", text)
    parts = _ANSWER.fullmatch(text)
    return (parts[1], parts[2]) if parts else ("", text)


def find_answer_so_far(text: str) -> str:
    """The part of an unfinished message of which it is sure that it belongs to the answer."""
    parts = _ANSWER.fullmatch(text)
    return parts[2] if parts and "Action:" not in parts[1] else ""


def _holds_in_order(text: str, words: Sequence[str]) -> bool:
    start = 0
    for word in words:
        if (found := text.find(word, start)) < 0:
            return False
        start = found + len(word)
    return True
