"""The web page, and the stream of one correction that it shows."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncGenerator
from importlib.resources import files

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from aligner_integrations.server.admission import Slot
from aligner_integrations.server.disconnect import until_gone
from aligner_integrations.server.errors import ApiError, to_api_error
from aligner_integrations.server.gateway import Gateway
from aligner_integrations.server.requests import read_object
from aligner_integrations.server.sse import EventResponse, encode, with_keep_alive
from aligner_integrations.streams import AsyncCorrectionStream

_HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "connect-src 'self'; img-src 'self'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "referrer-policy": "no-referrer",
    "cache-control": "no-cache",
}
FILES = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
"""What the page loads besides itself, with its type."""


def show_page(gateway: Gateway) -> Response:
    """``GET /``, with a field for a key where one is needed."""
    text = _read("page.html")
    if gateway.settings.api_keys:
        text = text.replace('<details id="key-box" hidden>', '<details id="key-box" open>')
    return HTMLResponse(text, headers=_HEADERS)


def show_file(name: str) -> Response:
    """``GET /aligner/NAME``: the page's script and style."""
    return Response(_read(name), media_type=FILES[name], headers=_HEADERS)


async def stream_correction(gateway: Gateway, request: Request) -> Response:
    """``POST /aligner/stream``: question and answer in, events out.

    Events with a ``piece`` of corrected text each, then one with the whole ``correction`` and the
    ``first`` piece's seconds, or one with an ``error``.
    """
    body = read_object(await gateway.read(request))
    question, answer = body.get("question"), body.get("answer")
    if not isinstance(question, str) or not isinstance(answer, str):
        raise ApiError(400, "question and answer must both be given, as strings")
    return await until_gone(request, _start(gateway, question, answer), gateway.ending)


async def _start(gateway: Gateway, question: str, answer: str) -> Response:
    slot = await gateway.admission.enter()
    try:
        stream = await gateway.step.astream(question, answer)
        events = with_keep_alive(_write(gateway, stream), gateway)
    except BaseException:
        slot.release()
        raise
    return EventResponse(events, functools.partial(_close, stream, slot))


async def _write(gateway: Gateway, stream: AsyncCorrectionStream) -> AsyncGenerator[bytes, None]:
    started, first = time.perf_counter(), None
    try:
        async for piece in stream:
            first = first or time.perf_counter() - started
            yield encode({"piece": piece})
        yield encode({"correction": stream.correction.to_dict(), "first": first})
    except Exception as error:
        told = to_api_error(error)
        gateway.metrics.note_failure(told)
        yield encode(told.body())


async def _close(stream: AsyncCorrectionStream, slot: Slot) -> None:
    await stream.aclose()
    slot.release()


@functools.cache
def _read(name: str) -> str:
    return (files(__package__) / name).read_text(encoding="utf-8")
