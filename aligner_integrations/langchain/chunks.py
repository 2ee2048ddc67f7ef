"""Corrected text as chunks, in the form that the answer came in."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk

from aligner_integrations.correction import Correction
from aligner_integrations.langchain.answers import Answer, corrected_metadata, split_blocks
from aligner_integrations.langchain.spelled import without_raw

_FIRST = ("type", "index", "id")
"""What a text block begins with; all else goes out at its end, when the whole text is known."""

_FORM = ("model_provider", "output_version")
"""Metadata by which LangChain reads the content blocks of each chunk."""


def join_chunks(chunks: list[Any]) -> Any:
    """The value that chunks add up to."""
    whole = chunks[0]
    for chunk in chunks[1:]:
        whole = whole + chunk
    return whole


def read_text(chunk: Any) -> str:
    """The text that a chunk adds to the answer; none for what is no bare answer."""
    if isinstance(chunk, AIMessage):
        return str(chunk.text)
    return chunk if isinstance(chunk, str) else ""


class ChunkWriter:
    """Writes one correction as chunks that add up to what ``invoke`` returns.

    A str gives strings; a message gives message chunks with its id, whose usage and metadata
    stand on the last one; a state can't be cut and comes whole at the end.
    """

    def __init__(self, answer: Answer) -> None:
        self._answer = answer
        self._head: list[Any] = []
        self._block: dict[str, Any] | None = None
        self._tail: list[Any] = []
        self._extra: dict[str, Any] = {}
        self._unwritten = True
        self._form: dict[str, Any] = {}
        message = answer.value
        if isinstance(message, AIMessage):
            metadata = message.response_metadata
            self._form = {key: metadata[key] for key in _FORM if key in metadata}
        if isinstance(message, AIMessage) and not isinstance(message.content, str):
            self._head, block, self._tail = split_blocks(message.content)
            # Chunks of a content block are joined by its index.
            block = {**block, "index": block.get("index", len(self._head))}
            self._block = {key: block[key] for key in _FIRST if key in block}
            self._extra = {key: block[key] for key in block if key not in (*_FIRST, "text")}

    def write(self, piece: str) -> list[Any]:
        """Chunks for the next piece of corrected text."""
        message = self._answer.value
        if isinstance(message, str):
            return [piece]
        if self._answer.state is not None:
            return []
        if self._block is None:
            return [AIMessageChunk(content=piece, id=message.id, response_metadata=self._form)]
        self._unwritten = False
        content = [*self._head, {**self._block, "text": piece}]
        # What is not text goes out once, with the first piece.
        self._head = []
        self._block = {key: self._block[key] for key in ("type", "index")}
        return [AIMessageChunk(content=content, id=message.id, response_metadata=self._form)]

    def finish(self, correction: Correction) -> list[Any]:
        """The last chunks: later content blocks, usage, metadata and the record."""
        message = self._answer.value
        if isinstance(message, str):
            return []
        if self._answer.state is not None:
            return [self._answer.replace(correction)]
        return [
            AIMessageChunk(
                content=self._rest(correction),
                id=message.id,
                name=message.name,
                additional_kwargs=without_raw(message.additional_kwargs, correction),
                response_metadata=corrected_metadata(message.response_metadata, correction),
                usage_metadata=message.usage_metadata,
                chunk_position="last",
            )
        ]

    def _rest(self, correction: Correction) -> str | list[Any]:
        if self._block is None:
            return ""
        extra = without_raw(self._extra, correction)
        if not self._unwritten and not extra:
            return self._tail
        return [*self._head, {**self._block, "text": "", **extra}, *self._tail]
