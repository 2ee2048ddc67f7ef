"""Taking the answer out of whatever a chain hands on, and putting the correction in its place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from langchain_core.messages import AIMessage, BaseMessage

from aligner_integrations.correction import Correction
from aligner_integrations.errors import InputTypeError
from aligner_integrations.langchain.spelled import without_raw
from aligner_integrations.step import RECORD_KEY

ACCEPTED = (
    "an answer as str or AIMessage, a message list that ends with one, {'messages': [...]}, or "
    "{'question': ..., 'answer': ...}"
)


@dataclass(frozen=True, slots=True)
class Answer:
    """An answer, as it came in.

    Attributes:
        value: The answer itself: a str or an AIMessage.
        question: The question, where the input said it.
        history: The messages before the answer, where the input had them.
        state: The whole input, where the answer came in a ``{"messages": [...]}``.
        keep_state: Whether the state's other keys go into the output too.
    """

    value: str | AIMessage
    question: Any = None
    history: list[BaseMessage] | None = None
    state: dict[str, Any] | None = None
    keep_state: bool = True

    @property
    def text(self) -> str:
        """The answer's text: all text blocks, joined."""
        return self.value if isinstance(self.value, str) else str(self.value.text)

    @property
    def message_id(self) -> str | None:
        """The answer's message id."""
        return None if isinstance(self.value, str) else self.value.id

    @property
    def is_bare(self) -> bool:
        """Whether the input was the answer and nothing else."""
        return self.question is None and self.history is None

    @property
    def skipped(self) -> Literal["tool_calls", "blank"] | None:
        """Why there is nothing to correct, if so."""
        if not isinstance(self.value, str) and has_tool_calls(self.value):
            return "tool_calls"
        return None if self.text.strip() else "blank"

    def skip(self) -> Correction:
        """The record of an answer that there is nothing to correct in."""
        question = self.question if isinstance(self.question, str) else ""
        return Correction(self.text, question, self.text, skipped=self.skipped)

    def replace(self, correction: Correction) -> Any:
        """The output: of the kind that came in, with the corrected text."""
        if isinstance(self.value, str):
            return correction.text
        return self.wrap(replace_text(self.value, correction))

    def pass_on(self) -> Any:
        """The output where there is nothing to correct: the answer, the same object."""
        if self.state is not None and self.keep_state:
            return self.state
        return self.value if isinstance(self.value, str) else self.wrap(self.value)

    def wrap(self, message: AIMessage) -> Any:
        """Put a message back into the state that it came in."""
        if self.state is None:
            return message
        kept = self.state if self.keep_state else {}
        return {**kept, "messages": [*(self.history or []), message]}


def read_answer(value: Any, *, keep_state: bool = True) -> Answer:
    """Find the answer in a step's input.

    Raises:
        InputTypeError: There is none; the message names what came in.
    """
    if isinstance(value, (str, AIMessage)):
        return Answer(value)
    if isinstance(value, dict) and {"question", "answer"} <= set(value):
        if not isinstance(value["answer"], (str, AIMessage)):
            raise InputTypeError(
                f"'answer' is a {type(value['answer']).__name__}; it must be a str or an AIMessage"
            )
        return Answer(value["answer"], question=value["question"])
    if isinstance(value, dict) and isinstance(value.get("messages"), Sequence):
        messages = list(value["messages"])
        return Answer(_last(messages), None, messages[:-1], value, keep_state)
    if isinstance(value, list):
        return Answer(_last(value), history=value[:-1])
    detail = f" with the keys {sorted(map(str, value))}" if isinstance(value, dict) else ""
    if isinstance(value, dict) and any(isinstance(part, dict) for part in value.values()):
        detail += (
            ", like the updates that a graph or agent streams (AlignerMiddleware corrects in it)"
        )
    raise InputTypeError(
        f"AlignerRunnable got a {type(value).__name__}{detail}; it takes {ACCEPTED}"
    )


def has_tool_calls(message: AIMessage) -> bool:
    """Whether a message asks for tools, in today's or in OpenAI's older form."""
    return bool(
        message.tool_calls
        or message.invalid_tool_calls
        or getattr(message, "tool_call_chunks", None)
        or message.additional_kwargs.get("tool_calls")
        or message.additional_kwargs.get("function_call")
    )


def replace_text(message: AIMessage, correction: Correction) -> AIMessage:
    """A copy with the corrected text and the record; all else is as it was.

    The correction goes into the first text block. Later text blocks are dropped, because their
    text is part of it, and with them their citations.
    """
    content = message.content
    if correction.changed:
        if isinstance(content, str):
            content = correction.text
        else:
            head, block, tail = split_blocks(content)
            block = {**without_raw(block, correction), "text": correction.text}
            content = [*head, block, *tail]
    return message.model_copy(
        update={
            "content": content,
            "additional_kwargs": without_raw(message.additional_kwargs, correction),
            "response_metadata": corrected_metadata(message.response_metadata, correction),
        }
    )


def corrected_metadata(metadata: dict[str, Any], correction: Correction) -> dict[str, Any]:
    """A message's metadata with the record."""
    return {**without_raw(metadata, correction), RECORD_KEY: correction.record()}


def split_blocks(
    content: list[str | dict[Any, Any]],
) -> tuple[list[Any], dict[str, Any], list[Any]]:
    """Blocks before the first text block, that block, and the later ones that are not text."""
    first = next(index for index, block in enumerate(content) if _is_text(block))
    block = content[first]
    text_block = {"type": "text", "text": block} if isinstance(block, str) else dict(block)
    tail = [block for block in content[first + 1 :] if not _is_text(block)]
    return list(content[:first]), text_block, tail


def _last(messages: Sequence[Any]) -> AIMessage:
    if not messages:
        raise InputTypeError(f"AlignerRunnable got an empty message list; it takes {ACCEPTED}")
    if not isinstance(messages[-1], AIMessage):
        raise InputTypeError(
            f"the last message is a {type(messages[-1]).__name__}, not an AIMessage: there is no "
            f"answer to correct; AlignerRunnable takes {ACCEPTED}"
        )
    return messages[-1]


def _is_text(block: str | dict[Any, Any]) -> bool:
    return isinstance(block, str) or block.get("type") == "text"
