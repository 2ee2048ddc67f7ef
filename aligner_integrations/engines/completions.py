"""One request to an OpenAI-compatible completions API, and what its stream says."""

from __future__ import annotations

import json
import re
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import Any

import httpx
import httpx_sse

from aligner_integrations.engines.retries import (
    RETRIED_STATUSES,
    AttemptError,
    read_retry_after,
)
from aligner_integrations.errors import AlignerError, ContextOverflowError, ServerError
from aligner_integrations.redaction import hide_key

_ENDS = ("stop", "eos_token", "stop_sequence")
_CONTEXT = re.compile(
    r"context|maximum (model|input) length|max_(model_len|input|total)|longer than the model"
    r"|exceeds? .{0,40}(length|size)|inputs?. tokens|too (long|many tokens)",
    re.IGNORECASE,
)
_MOST_ERROR_BYTES = 64 << 10


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of a completion.

    Attributes:
        text: What was written.
        end: Why it ended, on the last piece: ``"stop"`` or ``"length"``.
    """

    text: str
    end: str | None = None


async def read_chunks(response: httpx.Response) -> AsyncGenerator[Chunk, None]:
    """The pieces of a streamed completion, up to the one that says why it ended.

    A server sends a few events more behind that one. They are passed over, and must be, if the
    connection is to be used again.

    Raises:
        AttemptError: It is no event stream, holds what is no completion, reports an error, or ends
            before the completion did.
    """
    ended = False
    try:
        async for event in httpx_sse.EventSource(response).aiter_sse():
            if ended or not event.data or event.data.strip() == "[DONE]":
                continue
            chunk = _read_chunk(event.data, response)
            if chunk is None:
                continue
            yield chunk
            ended = chunk.end is not None
    except httpx_sse.SSEError:
        kind = response.headers.get("content-type", "none")
        raise AttemptError(f"the answer is no event stream, its type is {kind!r:.80}") from None
    if not ended:
        raise AttemptError("the stream ended before the correction did")


def to_attempt_error(error: httpx.HTTPError) -> AttemptError:
    """A failure of the connection. httpx's own messages hold no header and no body."""
    if isinstance(error, httpx.ConnectTimeout):
        return AttemptError("it could not be reached in time")
    if isinstance(error, httpx.TimeoutException):
        return AttemptError("it sent nothing for as long as silence= allows")
    if isinstance(error, httpx.ConnectError):
        return AttemptError("it can't be reached")
    return AttemptError(f"the connection broke off ({type(error).__name__})")


async def read_failure(response: httpx.Response, model: str) -> AttemptError:
    """What an answer with an error status means."""
    status, said = response.status_code, await _read_message(response)
    kind = f"status {status}"
    if status in RETRIED_STATUSES:
        after = read_retry_after(response.headers.get("retry-after"))
        return AttemptError(kind, said, broken=status != 429, after=after)
    failure = AttemptError(kind, said, retry=False, broken=False)
    error: AlignerError
    if status in (401, 403):
        error = ServerError(
            f"the server of {model!r} turned the key down (status {status}); pass api_key=..., or "
            "set the variable ALIGNER_SERVER_KEY"
        )
    elif status in (400, 413, 422) and _CONTEXT.search(said):
        error = ContextOverflowError(
            f"the server of {model!r} says that the prompt and its correction do not fit: {said}; "
            "shorten question or answer, give the server a longer context, pass its length as "
            "context_length=..., or set on_overflow='original' or 'refuse'"
        )
    elif 300 <= status < 400:
        error = ServerError(
            f"the server of {model!r} answered with a redirect (status {status}), which is not "
            "followed; give its final URL"
        )
    elif status in (404, 405):
        error = ServerError(
            f"the server knows no model {model!r} or no completions API at this URL "
            f"({failure.reason}); its URL usually ends in /v1, and model= must be the name that "
            "it serves"
        )
    else:
        error = ServerError(f"the server of {model!r} refused the request: {failure.reason}")
    failure.error = error
    return failure


async def _read_message(response: httpx.Response) -> str:
    content = b""
    try:
        async for part in response.aiter_bytes():
            content += part
            if len(content) > _MOST_ERROR_BYTES:
                break
    except httpx.HTTPError:
        return ""
    return _find_message(content, response)


def _find_message(content: str | bytes, response: httpx.Response) -> str:
    """The message of an error, in any of the usual layouts; at most one short line."""
    try:
        found: Any = json.loads(content)
    except (ValueError, RecursionError):
        return ""
    for key in ("error", "message", "detail"):
        if isinstance(found, dict) and found.get(key):
            found = found[key]
    return " ".join(hide_key(found, response).split())[:300] if isinstance(found, str) else ""


def _read_chunk(data: str, response: httpx.Response) -> Chunk | None:
    try:
        found: Any = json.loads(data)
    except (ValueError, RecursionError):
        raise AttemptError("an event of the stream is no JSON") from None
    if not isinstance(found, dict):
        raise AttemptError("an event of the stream is no completion")
    choices = found.get("choices")
    if found.get("error") and not choices:
        said = _find_message(data, response)
        raise AttemptError("the server broke off", said or "no reason")
    if choices == []:  # usage
        return None
    choice = choices[0] if isinstance(choices, list) else None
    text = choice.get("text") if isinstance(choice, dict) else None
    if not isinstance(choice, dict) or not isinstance(text, (str, type(None))):
        raise AttemptError("an event of the stream is no completion")
    end = choice.get("finish_reason")
    if text and not _is_valid(text):
        raise AttemptError("the stream holds a lone surrogate, which is no text")
    if end is None or end == "":
        return Chunk(text or "")
    if end in _ENDS:
        return Chunk(text or "", "stop")
    if end == "length":
        return Chunk(text or "", "length")
    said = f"{hide_key(repr(end), response):.40}"
    raise AttemptError("the server ended for a reason of its own", f"finish_reason={said}")


def _is_valid(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
