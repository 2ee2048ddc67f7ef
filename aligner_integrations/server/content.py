"""The parts of a message: text that is corrected, and the rest, which goes on as it is."""

from __future__ import annotations

from typing import Any

from aligner_integrations.correction import Correction

RAW_COPIES = frozenset({"logprobs", "token_ids", "text", "__verbose"})
"""Fields, of OpenAI and others, in which the answer's tokens or text stand once more."""


def is_tool_call(message: dict[str, Any]) -> bool:
    """Whether a message, or a part of one, calls tools."""
    return bool(message.get("tool_calls") or message.get("function_call"))


def read_text(content: Any) -> str | None:
    """The text of a message's content, a str or a list of parts; None where there is none.

    Of a question, parts that are lines of their own are joined by newlines.
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return None
    texts = [str(part["text"]) for part in content if is_text(part)]
    return "\n".join(texts) if texts else None


def is_text(part: Any) -> bool:
    """Whether a part of a content is text."""
    return isinstance(part, dict) and isinstance(part.get("text"), str)


def split_content(content: Any) -> tuple[str, Any]:
    """The answer's text in a content, and what is left without it."""
    if isinstance(content, str):
        return content, ""
    if isinstance(content, list):
        text = "".join(part["text"] for part in content if is_text(part))
        return text, [part for part in content if not is_text(part)]
    return "", content


def replace_text(content: Any, text: str) -> Any:
    """A content with another text: in its first text part, while the later ones are dropped."""
    if not isinstance(content, list):
        return text
    first = next(index for index, part in enumerate(content) if is_text(part))
    before, rest = content[:first], content[first + 1 :]
    return [*before, {**content[first], "text": text}, *(p for p in rest if not is_text(p))]


def make_record(correction: Correction) -> dict[str, Any]:
    """The record for the client: of an error only its kind, since its text might quote."""
    record = correction.record()
    if correction.error is not None:
        record["error"] = correction.error.partition(":")[0]
    return record
