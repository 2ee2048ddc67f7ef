"""Responses of chat engines, with the correction in the answer's place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from llama_index.core.base.response.schema import (
    AsyncStreamingResponse,
    Response,
    StreamingResponse,
)
from llama_index.core.chat_engine.types import AgentChatResponse, StreamingAgentChatResponse
from llama_index.core.tools import ToolOutput

from aligner_integrations.correction import Correction
from aligner_integrations.step import RECORD_KEY


@dataclass
class AlignedChatStream(StreamingAgentChatResponse):  # type: ignore[misc]
    """A chat engine's stream of corrected text.

    The answer joins the chat history when the stream has been read to its end. One that is left
    midway leaves the user's message there, and no answer.

    Attributes:
        metadata: Holds the record of the correction under ``"aligner"`` when the stream has ended.
    """

    is_writing_to_memory: bool = False
    metadata: dict[str, Any] | None = None

    def finish(self, text: str, sources: Sequence[ToolOutput], record: dict[str, Any]) -> None:
        """What is known at the end."""
        self.response = text
        self.sources = list(sources)
        self.metadata = {**(self.metadata or {}), **record}
        self.is_done = True


def replace_answer(response: AgentChatResponse, correction: Correction) -> AgentChatResponse:
    """The same response with the corrected answer, and the record in its metadata."""
    return replace(
        response,
        response=correction.text,
        sources=replace_sources(response.sources, correction.answer, correction.text),
        metadata={**(response.metadata or {}), RECORD_KEY: correction.record()},
    )


def replace_sources(
    sources: Sequence[ToolOutput], answer: str | None, text: str | None
) -> list[ToolOutput]:
    """Tool outputs without the answer: some chat engines list the answer as their own source.

    Args:
        sources: What a chat engine names as sources.
        answer: The answer, as far as it is known.
        text: What stands in its place; None for a stream that has not ended.
    """
    return [_replace_source(source, answer, text) for source in sources]


def _replace_source(source: ToolOutput, answer: str | None, text: str | None) -> ToolOutput:
    raw = source.raw_output
    streamed = isinstance(raw, StreamingResponse | AsyncStreamingResponse)
    if streamed or (isinstance(raw, Response) and raw.response == answer):
        raw = Response(text, raw.source_nodes, raw.metadata)
    same = answer is not None and source.content.strip() == answer.strip()
    if raw is source.raw_output and not same:
        return source
    return ToolOutput(
        tool_name=source.tool_name,
        raw_input=source.raw_input,
        raw_output=raw,
        is_error=source.is_error,
        **({"content": text or ""} if same else {"blocks": source.blocks}),
    )
