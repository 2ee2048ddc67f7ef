"""A scripted OpenAI-compatible upstream, and real servers in threads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import uvicorn
from fastapi import FastAPI, Request
from starlette.responses import JSONResponse, Response, StreamingResponse

TOOL_CALL = {
    "id": "call_1",
    "type": "function",
    "function": {"name": "get_weather", "arguments": '{"city": "Paris"}'},
}


class FakeUpstream:
    """Answers what the test says, and remembers what it was asked.

    Attributes:
        answers: The texts of the choices, in order; the last one also for further choices.
        message: Further fields of each message, and of deltas.
        delay: Seconds between two words of a stream, and before a whole answer.
        error: Status and body to answer with instead.
        raw: Events to send instead of a stream's own.
        hang: Never answer; in a stream, stop after the first words.
        requests: The bodies that came.
        headers: Their headers.
        gone: Set when a client closed its connection before the answer's end.
    """

    def __init__(self) -> None:
        self.reset()

    def reset(self) -> None:
        self.answers = ["Boil them for 8 minutes."]
        self.message: dict[str, Any] = {}
        self.choice: dict[str, Any] = {}
        self.finish = "stop"
        self.delay = 0.0
        self.error: tuple[int, Any] | None = None
        self.raw: list[str] | None = None
        self.hang = False
        self.requests: list[dict[str, Any]] = []
        self.bodies: list[bytes] = []
        self.headers: list[dict[str, str]] = []
        self.gone = threading.Event()
        self.arrived = threading.Event()

    def app(self) -> FastAPI:
        # Another process in real life: what FastAPI tells of it is none of the gateway's spans.
        app = FastAPI(telemetry={"tracing": False, "metrics": False, "logs": False})

        @app.get("/v1/models")
        async def models() -> dict[str, Any]:
            return {"object": "list", "data": [{"id": "raw-model", "object": "model"}]}

        @app.post("/v1/chat/completions")
        async def complete(request: Request) -> Response:
            self.bodies.append(await request.body())
            body = json.loads(self.bodies[-1])
            self.requests.append(body)
            self.headers.append(dict(request.headers))
            self.arrived.set()
            if self.error is not None:
                status, content = self.error
                if isinstance(content, str):
                    return Response(content, status, {"location": "/elsewhere"})
                return JSONResponse(content, status, {"retry-after": "7", "set-cookie": "a=b"})
            if body.get("stream"):
                events = self._write(body)
                return StreamingResponse(events, media_type="text/event-stream")
            await self._wait(request)
            return JSONResponse(self._completion(body), headers={"x-request-id": "req-1"})

        return app

    async def _wait(self, request: Request) -> None:
        end = time.monotonic() + (30 if self.hang else self.delay)
        while time.monotonic() < end:
            if await request.is_disconnected():
                self.gone.set()
                return
            await asyncio.sleep(0.01)

    def _envelope(self, body: dict[str, Any], kind: str) -> dict[str, Any]:
        return {
            "id": "chatcmpl-7",
            "object": kind,
            "created": 1_700_000_000,
            "model": body["model"],
            "system_fingerprint": "fp_1",
            "vendor_field": {"kept": True},
        }

    def _texts(self, body: dict[str, Any]) -> list[str]:
        count = body.get("n") or 1
        return [self.answers[min(index, len(self.answers) - 1)] for index in range(count)]

    def _completion(self, body: dict[str, Any]) -> dict[str, Any]:
        choices = []
        for index, text in enumerate(self._texts(body)):
            message = {"role": "assistant", "content": text, "refusal": None, **self.message}
            choice = {"index": index, "message": message, "finish_reason": self.finish}
            choice["logprobs"] = make_logprobs(text) if body.get("logprobs") else None
            choices.append({**choice, **self.choice})
        usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
        return {**self._envelope(body, "chat.completion"), "choices": choices, "usage": usage}

    async def _write(self, body: dict[str, Any]) -> AsyncIterator[str]:
        try:
            for event in self.raw if self.raw is not None else self._events(body):
                yield f"data: {event}\n\n"
                await asyncio.sleep(self.delay)
                if self.hang and "content" in event and "role" not in event:
                    await asyncio.sleep(30)
        except asyncio.CancelledError:
            self.gone.set()
            raise

    def _events(self, body: dict[str, Any]) -> Iterator[str]:
        def chunk(index: int, delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
            choice = {"index": index, "delta": delta, "finish_reason": finish, **more}
            kind = self._envelope(body, "chat.completion.chunk")
            return json.dumps({**kind, "choices": [choice]})

        texts = self._texts(body)
        for index in range(len(texts)):
            yield chunk(index, {"role": "assistant", "content": ""})
        for key, value in self.message.items():
            if key not in ("tool_calls", "content"):
                yield chunk(0, {key: value})
        words = [text.split(" ") for text in texts]
        for at in range(max(map(len, words))):  # choices interleave
            for index, own in enumerate(words):
                if at < len(own):
                    word = own[at] if at == 0 else f" {own[at]}"
                    logprobs = {"logprobs": make_logprobs(word)} if body.get("logprobs") else {}
                    yield chunk(index, {"content": word}, **{**self.choice, **logprobs})
        for call in self.message.get("tool_calls", ()):
            function = {"name": call["function"]["name"], "arguments": ""}
            yield chunk(0, {"tool_calls": [{**call, "index": 0, "function": function}]})
            part = {"index": 0, "function": {"arguments": call["function"]["arguments"]}}
            yield chunk(0, {"tool_calls": [part]})
        for index in range(len(texts)):
            yield chunk(index, {}, self.finish)
        if (body.get("stream_options") or {}).get("include_usage"):
            usage = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
            kind = self._envelope(body, "chat.completion.chunk")
            yield json.dumps({**kind, "choices": [], "usage": usage})
        yield "[DONE]"


def make_logprobs(text: str) -> dict[str, Any]:
    token = {"token": text, "logprob": -0.1, "bytes": list(text.encode()), "top_logprobs": []}
    return {"content": [token], "refusal": None}


@contextlib.contextmanager
def serving(app: Any) -> Iterator[str]:
    """A real server on a free port of this machine; its URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, access_log=False, timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        wait_for(lambda: server.started)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join(10)
        listener.close()


def wait_for(condition: Any, seconds: float = 20.0) -> None:
    """Wait until a condition holds."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "it took too long"
        time.sleep(0.01)
