"""Responses of query engines and synthesizers: what is corrected, how it is replaced."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from llama_index.core.base.response.schema import RESPONSE_TYPE, Response

from aligner_integrations.correction import Correction
from aligner_integrations.step import RECORD_KEY

NO_ANSWER = "Empty Response"
"""What LlamaIndex says where nothing was retrieved or the LLM said nothing."""


def is_no_answer(text: str | None) -> bool:
    """Whether there is nothing to correct."""
    return text is None or text.strip() in ("", NO_ANSWER)


def copy_response(response: RESPONSE_TYPE) -> RESPONSE_TYPE:
    """The same response with metadata of its own: traces still hold the original."""
    text = {} if isinstance(response, Response) else {"response_txt": None}
    return replace(response, metadata=dict(response.metadata or {}), **text)


def add_record(response: Any, correction: Correction) -> None:
    """Put the record of a correction into a response's metadata."""
    # Set on what the response holds by now: an outer engine may have put its own metadata there.
    response.metadata = response.metadata if response.metadata is not None else {}
    response.metadata[RECORD_KEY] = correction.record()
