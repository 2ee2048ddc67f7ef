"""Chat completions: a request's way through upstream and aligner."""

from __future__ import annotations

import functools
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import Any

import httpx
from starlette.requests import Request
from starlette.responses import Response

from aligner_integrations.server.admission import Slot
from aligner_integrations.server.completions import correct_completion
from aligner_integrations.server.disconnect import until_gone
from aligner_integrations.server.errors import json_response
from aligner_integrations.server.gateway import Gateway
from aligner_integrations.server.records import CURRENT, UpstreamRecord
from aligner_integrations.server.requests import ChatRequest, check_model, read_chat
from aligner_integrations.server.sse import EventResponse, read_chunks, with_keep_alive
from aligner_integrations.server.streaming import CompletionStream
from aligner_integrations.server.upstream import (
    kept_headers,
    quote_path,
    read_body,
    read_completion,
)
from aligner_integrations.streams import AsyncCorrectionStream


async def complete(gateway: Gateway, request: Request) -> Response:
    """``POST /v1/chat/completions``."""
    chat = read_chat(await gateway.read(request), gateway.settings.model)
    return await until_gone(request, _Exchange(gateway, request, chat).run(), gateway.ending)


async def list_models(gateway: Gateway, request: Request) -> Response:
    """``GET /v1/models``: the one that is served, else the upstream's."""
    gateway.check_client(request)
    served = gateway.settings.model
    if served is None:
        return await until_gone(request, _fetch(gateway, request, "/models"), gateway.ending)
    return json_response({"object": "list", "data": [_describe(served)]})


async def show_model(gateway: Gateway, request: Request, name: str) -> Response:
    """``GET /v1/models/NAME``."""
    gateway.check_client(request)
    served = gateway.settings.model
    if served is None:
        path = f"/models/{quote_path(name)}"
        return await until_gone(request, _fetch(gateway, request, path), gateway.ending)
    check_model(name, served)
    return json_response(_describe(served))


class _Exchange:
    """One request and its answer."""

    def __init__(self, gateway: Gateway, request: Request, chat: ChatRequest) -> None:
        self._gateway = gateway
        self._request = request
        self._chat = chat
        self._question = ""
        self._started = time.perf_counter()
        self._asked = UpstreamRecord()

    async def run(self) -> Response:
        if not self._chat.is_json:  # before the upstream is asked in vain
            settings = self._gateway.settings
            self._question = self._chat.find_question(settings.history, self._gateway.step)
        slot = await self._gateway.admission.enter()
        self._gateway.metrics.note_wait(time.perf_counter() - self._started)
        response: httpx.Response | None = None
        try:
            if record := CURRENT.get():
                self._asked = record.ask_upstream(self._gateway.settings, self._chat.model)
            response = await self._gateway.upstream.send(
                "POST",
                "/chat/completions",
                self._request.headers,
                query=_read_query(self._request),
                content=self._chat.content,
                asked=self._asked,
            )
            if self._chat.stream:
                return self._stream(response, slot)
            answer = await self._correct(response)
        except BaseException as error:
            self._asked.end(error)
            if response is not None:
                await response.aclose()
            slot.release()
            raise
        slot.release()
        return answer

    async def _correct(self, response: httpx.Response) -> Response:
        content = await read_body(response)
        if self._chat.is_json:
            self._note_upstream()
            self._gateway.metrics.note_skipped("response_format")
            return _hand_on(response, content)
        completion = read_completion(content)
        self._asked.read(completion)
        self._note_upstream()
        step = self._gateway.step
        corrected = await correct_completion(completion, step, self._question, self._chat.tags)
        if corrected is completion:
            self._gateway.metrics.note_skipped("no_text")
            return _hand_on(response, content)
        return json_response(corrected, headers=kept_headers(response))

    def _stream(self, response: httpx.Response, slot: Slot) -> Response:
        close = functools.partial(_close, response, slot, self._asked)
        if self._chat.is_json:
            self._gateway.metrics.note_skipped("response_format")
            return EventResponse(self._copy(response), close, kept_headers(response))
        chunks = self._read_chunks(response)
        completion = CompletionStream(chunks, self._start, self._gateway.metrics)
        events = with_keep_alive(completion.events(), self._gateway)
        close = functools.partial(_close, response, slot, self._asked, completion)
        return EventResponse(events, close, kept_headers(response))

    async def _read_chunks(self, response: httpx.Response) -> AsyncIterator[dict[str, Any]]:
        try:
            async for chunk in read_chunks(response):
                self._asked.read(chunk)
                yield chunk
        except Exception as error:
            self._asked.end(error)
            raise
        self._note_upstream()

    async def _copy(self, response: httpx.Response) -> AsyncGenerator[bytes, None]:
        """JSON mode: bytes as they come. If they break off, so does the response."""
        async for part in response.aiter_bytes():
            yield part
        self._note_upstream()

    async def _start(self, pieces: AsyncIterator[str]) -> AsyncCorrectionStream:
        return await self._gateway.step.astream(self._question, pieces, self._chat.tags)

    def _note_upstream(self) -> None:
        self._gateway.metrics.note_upstream(time.perf_counter() - self._started)
        self._asked.end()


async def _close(
    response: httpx.Response,
    slot: Slot,
    asked: UpstreamRecord,
    completion: CompletionStream | None = None,
) -> None:
    try:
        asked.end()
        if completion is not None:
            await completion.aclose()
        await response.aclose()
    finally:
        slot.release()


async def _fetch(gateway: Gateway, request: Request, path: str) -> Response:
    query = _read_query(request)
    response = await gateway.upstream.send("GET", path, request.headers, query=query)
    return _hand_on(response, await read_body(response))


def _hand_on(response: httpx.Response, content: bytes) -> Response:
    # Never as the upstream's own type: a page of it would run under the gateway's name.
    headers = kept_headers(response)
    return Response(content, response.status_code, headers, media_type="application/json")


def _read_query(request: Request) -> str:
    """The query as it was sent; `Request.url` is put together with the Host header."""
    return str(request.scope["query_string"].decode("latin-1"))


def _describe(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": 0, "owned_by": "upstream"}
