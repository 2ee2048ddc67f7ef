"""Messages and responses of LLMs: the text that is corrected, and what goes with it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ContentBlock,
    MessageRole,
    TextBlock,
    ToolCallBlock,
)
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.llms.function_calling import FunctionCallingLLM
from llama_index.core.llms.llm import LLM

from aligner_integrations.conversation import Turn
from aligner_integrations.correction import Correction
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.step import RECORD_KEY

LLMResponse = TypeVar("LLMResponse", ChatResponse, CompletionResponse)

USAGE_KEYS = ("id", "created", "model", "usage", "usage_metadata", "usageMetadata")
"""What of a provider's raw answer stays beside a corrected text."""

ANSWERS_KEYS = ("choices", "candidates", "generations")
"""Where a provider's raw answer lists answers, of which LlamaIndex reads the first."""


def has_tool_calls(message: ChatMessage) -> bool:
    """Whether a message calls tools, in any of the forms that LlamaIndex's LLMs use."""
    return any(isinstance(block, ToolCallBlock) for block in message.blocks) or any(
        message.additional_kwargs.get(key) for key in ("tool_calls", "function_call")
    )


def calls_tools(llm: LLM, response: ChatResponse | CompletionResponse) -> bool:
    """Whether a response calls tools, in a form that we know or that its own LLM reads."""
    if not isinstance(response, ChatResponse):
        return False
    if has_tool_calls(response.message):
        return True
    if not isinstance(llm, FunctionCallingLLM) or not llm.metadata.is_function_calling_model:
        return False
    try:
        return bool(llm.get_tool_calls_from_response(response, error_on_no_tool_call=False))
    except (AttributeError, LookupError, NotImplementedError, TypeError, ValueError):
        return False  # a form that its own LLM can't read calls no tool


def require_functions(llm: LLM) -> FunctionCallingLLM:
    """The LLM, which must be one that calls functions.

    Raises:
        ConfigurationError: It is none.
    """
    if isinstance(llm, FunctionCallingLLM):
        return llm
    raise ConfigurationError(
        f"{type(llm).__name__} calls no functions, so its AlignedLLM can't; wrap a "
        "FunctionCallingLLM, or use a ReActAgent, which needs none"
    )


def read_turns(messages: Sequence[ChatMessage]) -> list[Turn]:
    """What user and assistant said; system and tool messages and remarks at tool calls don't count.

    Example:
        >>> read_turns([ChatMessage("Eggs?"), ChatMessage("8 minutes.", role="assistant")])
        [Turn(role='user', text='Eggs?'), Turn(role='assistant', text='8 minutes.')]
    """
    turns = []
    for message in messages:
        text = message.content
        if not text or not text.strip() or has_tool_calls(message):
            continue
        if message.role == MessageRole.USER:
            turns.append(Turn("user", text))
        elif message.role in (MessageRole.ASSISTANT, MessageRole.CHATBOT, MessageRole.MODEL):
            turns.append(Turn("assistant", text))
    return turns


def read_text(response: ChatResponse | CompletionResponse) -> str:
    """The text that a response holds, "" where it holds none."""
    if isinstance(response, ChatResponse):
        return response.message.content or ""
    return str(response.text or "")


def set_text(message: ChatMessage, text: str) -> ChatMessage:
    """A copy of a message with another text, in the place of its first text block.

    Other blocks keep their order; further text blocks are dropped, since their text was corrected
    together with the first one's.
    """
    blocks: list[ContentBlock] = []
    written = False
    for block in message.blocks:
        if not isinstance(block, TextBlock):
            blocks.append(block)
        elif not written:
            blocks.append(block.model_copy(update={"text": text}))
            written = True
    if not written:
        blocks.append(TextBlock(text=text))
    copied: ChatMessage = message.model_copy(
        update={"blocks": blocks, "additional_kwargs": dict(message.additional_kwargs)}
    )
    return copied


def replace_text(
    response: LLMResponse,
    text: str,
    *,
    delta: str | None = None,
    raw: Any = None,
    additional_kwargs: dict[str, Any] | None = None,
) -> LLMResponse:
    """A copy of a response with another text, and without what the provider sent with the old."""
    update: dict[str, Any] = {
        "delta": delta,
        "raw": raw,
        "logprobs": None,
        "additional_kwargs": additional_kwargs or {},
    }
    if isinstance(response, ChatResponse):
        update["message"] = set_text(response.message, text)
    else:
        update["text"] = text
    return response.model_copy(update=update)


def finish_response(
    response: LLMResponse, text: str, correction: Correction, *, delta: str | None = None
) -> LLMResponse:
    """A response with the whole corrected text and the record of its correction.

    Where the text was changed, only usage stays of the provider's raw answer, log probabilities
    are dropped, and so is all of ``additional_kwargs`` that holds old text. Further answers to
    the same request, which nobody reads here, don't stay in the raw one either.
    """
    more = {**response.additional_kwargs, RECORD_KEY: correction.record()}
    if not correction.changed:
        same = read_text(response) == text
        raw = keep_usage(response.raw) if _has_more_answers(response.raw) else response.raw
        whole = response if same else replace_text(response, text)
        return whole.model_copy(update={"additional_kwargs": more, "delta": delta, "raw": raw})
    answer = correction.answer.strip()
    finished = replace_text(response, text, delta=delta, raw=keep_usage(response.raw))
    finished.additional_kwargs = drop_text(more, answer)
    return clean_message(finished, answer)


def clean_message(response: LLMResponse, text: str) -> LLMResponse:
    """A response whose message has nothing beside its blocks that holds a text."""
    if not isinstance(response, ChatResponse):
        return response
    kept = drop_text(response.message.additional_kwargs, text)
    message = response.message.model_copy(update={"additional_kwargs": kept})
    return response.model_copy(update={"message": message})


def keep_usage(raw: Any) -> dict[str, Any] | None:
    """Of a provider's raw answer what says how it was made and what it cost, as plain data."""
    if raw is None:
        return None
    known = _read_fields(raw)
    kept = {key: known[key] for key in USAGE_KEYS if known.get(key) is not None}
    return {key: v.model_dump() if isinstance(v, BaseModel) else v for key, v in kept.items()}


def _has_more_answers(raw: Any) -> bool:
    answers = [_read_fields(raw).get(key) for key in ANSWERS_KEYS]
    return any(isinstance(found, list | tuple) and len(found) > 1 for found in answers)


def _read_fields(raw: Any) -> dict[str, Any]:
    if isinstance(raw, BaseModel):
        raw = raw.model_dump()
    return raw if isinstance(raw, dict) else getattr(raw, "__dict__", {})


def drop_text(values: dict[str, Any], text: str) -> dict[str, Any]:
    """The entries that hold neither a text nor a part of it, at whatever depth."""
    words = " ".join(text.split())  # a provider may join the parts of an answer in another way
    return {key: value for key, value in values.items() if not _holds(value, words)}


def _holds(value: Any, words: str) -> bool:
    if isinstance(value, str):
        own = " ".join(value.split())
        # A single word is as likely to be a label as a part of the text.
        return bool(words) and (words in own or (" " in own and own in words))
    if isinstance(value, BaseModel):
        value = value.model_dump()
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list | tuple | set):
        whole = "".join(item for item in value if isinstance(item, str))  # it may be in pieces
        return any(_holds(item, words) for item in (*value, whole))
    return False
