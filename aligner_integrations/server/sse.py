"""Server-sent events: reading an upstream's, writing our own."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, Any

import httpx
import httpx_sse
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from aligner_integrations.redaction import hide_key
from aligner_integrations.server.errors import ApiError, shutting_down
from aligner_integrations.server.upstream import to_upstream_error

if TYPE_CHECKING:
    from aligner_integrations.server.gateway import Gateway

KEEP_ALIVE = b": keep-alive\n\n"
DONE = b"data: [DONE]\n\n"


def encode(data: Any) -> bytes:
    """One event."""
    return b"data: " + json.dumps(data, separators=(",", ":")).encode() + b"\n\n"


async def read_chunks(response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
    """The chunks of a streamed completion, until ``[DONE]`` or its end.

    Raises:
        ApiError: The upstream broke off, sent no JSON, or reported an error itself.
    """
    open_choices: dict[int, bool] = {}
    try:
        async for event in httpx_sse.EventSource(response).aiter_sse():
            if event.data.strip() == "[DONE]":
                return
            if not event.data:
                continue
            chunk = _read_chunk(event.data, response)
            for choice in chunk["choices"]:
                ends = choice.get("finish_reason") is not None
                index = choice.get("index", 0)
                open_choices[index] = open_choices.get(index, True) and not ends
            yield chunk
    except httpx_sse.SSEError:
        raise ApiError(
            502,
            "the upstream did not answer with an event stream, though the request asked for one",
            code="upstream_invalid",
        ) from None
    except httpx.HTTPError as error:
        raise to_upstream_error(error) from None
    if any(open_choices.values()):  # some servers send no [DONE], but all say why they stop
        raise ApiError(
            502, "the upstream's stream ended before its answer did", code="upstream_broken"
        )


def _read_chunk(data: str, response: httpx.Response) -> dict[str, Any]:
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError):
        chunk = None
    if isinstance(chunk, dict) and chunk.get("error") and not chunk.get("choices"):
        error = chunk["error"] if isinstance(chunk["error"], dict) else {"message": chunk["error"]}
        said = f"the upstream broke off with an error: {error.get('message')}"
        # It was JSON, where a lone surrogate can be written that no answer can hold.
        shown = hide_key(said, response).encode("utf-8", "replace").decode()
        raise ApiError(502, shown, code="upstream")
    choices = chunk.get("choices") if isinstance(chunk, dict) else None
    if isinstance(chunk, dict) and isinstance(choices, list) and all(map(_is_choice, choices)):
        return chunk
    raise ApiError(
        502, "the upstream sent a chunk that is no chat completion", code="upstream_invalid"
    )


def _is_choice(choice: Any) -> bool:
    return (
        isinstance(choice, dict)
        and isinstance(choice.get("index", 0), int)
        and isinstance(choice.get("delta") or {}, dict)
        and isinstance(choice.get("logprobs") or {}, dict)
    )


async def with_keep_alive(
    events: AsyncGenerator[bytes, None], gateway: Gateway
) -> AsyncGenerator[bytes, None]:
    """The same events, with a comment wherever none came for long, and an end with the gateway's.

    Args:
        events: The events.
        gateway: Says how long is long, and when it ends; what runs then gets an error as its last
            event, so that no client takes a part for the whole.
    """
    seconds = gateway.settings.keep_alive
    coming: asyncio.Future[bytes] | None = None
    ending = asyncio.ensure_future(gateway.ending.wait())
    try:
        while True:
            coming = coming or asyncio.ensure_future(anext(events))
            either: set[asyncio.Future[Any]] = {coming, ending}
            await asyncio.wait(either, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
            if not coming.done() and ending.done():
                error = shutting_down()
                gateway.metrics.note_failure(error)
                yield encode(error.body())
                return
            if not coming.done():
                yield KEEP_ALIVE
                continue
            try:
                event = coming.result()
            except StopAsyncIteration:
                return
            coming = None
            yield event
    finally:
        ending.cancel()
        if coming is not None:
            coming.cancel()


class EventResponse(StreamingResponse):
    """A stream of events whose work ends with it, however it ends.

    Args:
        events: The events.
        close: Frees what the events come from; called once, also where not one was sent.
        headers: Further headers.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        events: AsyncGenerator[bytes, None],
        close: Callable[[], Awaitable[None]],
        headers: dict[str, str] | None = None,
    ) -> None:
        more = {"cache-control": "no-cache", "x-accel-buffering": "no"}
        super().__init__(events, headers={**more, **(headers or {})})
        self._close = close

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events; see ASGI."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            await asyncio.shield(asyncio.ensure_future(self._close()))
