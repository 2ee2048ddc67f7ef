"""ReAct in messages: the scaffolding that an agent's parser needs, and the answer within it."""

from __future__ import annotations

import re
from collections.abc import Sequence

from llama_index.core.base.llms.types import ChatMessage, MessageRole

_ANSWER = re.compile(r"(\s*Thought:.*?Answer:\s*)(.*)", re.DOTALL)
_OBSERVATION = "Observation:"


def asks_for_react(messages: Sequence[ChatMessage]) -> bool:
    """Whether an LLM was told to answer in ReAct's form.

    Only then is its scaffolding left alone. An LLM that writes "Thought:" and "Action:" by itself
    must not get around the aligner that way.
    """
    asked = [m.content or "" for m in messages if m.role in (MessageRole.SYSTEM, MessageRole.USER)]
    return any("Action Input:" in text and "Answer:" in text for text in asked)


def is_reasoning(message: ChatMessage) -> bool:
    """Whether a message is a step of an agent's reasoning: no turn of the conversation."""
    text = (message.content or "").lstrip()
    if message.role == MessageRole.ASSISTANT:
        return text.startswith("Thought:")
    return text.startswith(_OBSERVATION)


def split_scaffold(text: str) -> tuple[str, str]:
    r"""What stays and what is corrected of a message in ReAct's form.

    LlamaIndex's ReActOutputParser decides in the same way.

    Example:
        >>> split_scaffold("Thought: I know that.\nAnswer: Boil them.")
        ('Thought: I know that.\nAnswer: ', 'Boil them.')
        >>> split_scaffold("Thought: Look it up.\nAction: search\nAction Input: {}")[1]
        ''
    """
    action, answer = text.find("Action:"), text.find("Answer:")
    if action >= 0 and (answer < 0 or action < answer):
        return text, ""
    parts = _ANSWER.fullmatch(text)
    return (parts[1], parts[2]) if parts else ("", text)


def find_answer_so_far(text: str) -> str:
    """The part of an unfinished message of which it is sure that it belongs to the answer."""
    return split_scaffold(text)[1] if _ANSWER.fullmatch(text) else ""
