"""A completions server on loopback that can be told to fail in every way a network knows."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from aligner_integrations.models.bundled import DATA

TOKENIZER = Tokenizer.from_file(str(DATA / "tokenizer.json"))
SSE = "text/event-stream; charset=utf-8"


@dataclass
class Exchange:
    """One request, and ways to answer it."""

    server: FaultyServer
    headers: dict[str, str]
    body: dict[str, Any]
    writer: asyncio.StreamWriter

    @property
    def answer(self) -> str:
        """The answer that stands in the prompt, token ids or text."""
        prompt = self.body["prompt"]
        if not isinstance(prompt, str):
            prompt = TOKENIZER.decode(prompt, skip_special_tokens=False)
        return prompt.split("<|im_start|>answer\n")[1].split("<|im_end|>\n<|im_start|>corr")[0]

    @property
    def pieces(self) -> list[str]:
        """What a good server streams: the answer's words, and a bang."""
        head, *rest = self.answer.split(" ")
        return [head, *(f" {word}" for word in rest), "!"]

    async def head(self, status: int = 200, kind: str = SSE, **headers: str) -> None:
        lines = [f"HTTP/1.1 {status} X", f"content-type: {kind}", "transfer-encoding: chunked"]
        lines += [f"{name.replace('_', '-')}: {value}" for name, value in headers.items()]
        self.writer.write("\r\n".join([*lines, "", ""]).encode())
        await self.writer.drain()

    async def send(self, data: bytes) -> None:
        self.writer.write(b"%x\r\n%s\r\n" % (len(data), data))
        await self.writer.drain()

    async def event(self, data: Any) -> None:
        await self.send(b"data: " + json.dumps(data).encode() + b"\n\n")

    async def piece(self, text: str, end: str | None = None) -> None:
        await self.event({"choices": [{"index": 0, "text": text, "finish_reason": end}]})

    async def finish(self) -> None:
        await self.send(b"data: [DONE]\n\n")
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()

    async def error(self, status: int, content: bytes, **headers: str) -> None:
        await self.head(status, "application/json", **headers)
        if content:
            await self.send(content)
        self.writer.write(b"0\r\n\r\n")
        await self.writer.drain()


Behaviour = Callable[[Exchange], Awaitable[None]]


class DroppedError(Exception):
    """Ends the connection there and then."""


async def good(ask: Exchange) -> None:
    await ask.head()
    await ask.send(b": a comment\n\n")
    for piece in ask.pieces:
        await ask.piece(piece)
        if ask.server.pace:
            await asyncio.sleep(ask.server.pace)
    await ask.piece("", "stop")
    await ask.event({"choices": [], "usage": {"completion_tokens": 3}})
    await ask.finish()


async def drop_at_once(ask: Exchange) -> None:
    raise DroppedError


async def drop_midway(ask: Exchange) -> None:
    await ask.head()
    for piece in ask.pieces[:2]:
        await ask.piece(piece)
    raise DroppedError


async def end_midway(ask: Exchange) -> None:
    """A stream that ends in good order, but too early."""
    await ask.head()
    await ask.piece(ask.pieces[0])
    await ask.finish()


async def half_an_event(ask: Exchange) -> None:
    await ask.head()
    await ask.send(b'data: {"choices": [{"index": 0, "te')
    ask.writer.write(b"0\r\n\r\n")
    await ask.writer.drain()


async def wrong_json(ask: Exchange) -> None:
    await ask.head()
    await ask.event({"choices": [{"message": {"content": "chat?"}}], "text": 5})
    await ask.event(["no", "object"])
    await ask.finish()


async def text_is_a_number(ask: Exchange) -> None:
    await ask.head()
    await ask.event({"choices": [{"text": 7}]})
    await ask.finish()


async def no_json(ask: Exchange) -> None:
    await ask.head()
    await ask.send(b"data: <html>502</html>\n\n")
    await ask.finish()


async def garbage(ask: Exchange) -> None:
    await ask.head()
    await ask.send(b"data: \xff\xfe\x00\x80garbage\n\n" + bytes(range(128, 256)) + b"\n\n")
    await ask.finish()


async def no_http(ask: Exchange) -> None:
    ask.writer.write(b"\x00\x01\x02 no HTTP at all\r\n\r\n")
    await ask.writer.drain()
    raise DroppedError


async def empty(ask: Exchange) -> None:
    await ask.head()
    ask.writer.write(b"0\r\n\r\n")
    await ask.writer.drain()


async def no_stream(ask: Exchange) -> None:
    await ask.error(200, b'{"choices": [{"text": "whole"}]}')


async def error_event(ask: Exchange) -> None:
    await ask.head()
    await ask.piece(ask.pieces[0])
    await ask.event({"error": {"message": "engine died", "code": 500}})
    await ask.finish()


async def aborted(ask: Exchange) -> None:
    await ask.head()
    await ask.piece(ask.pieces[0], "abort")
    await ask.finish()


async def lone_surrogate(ask: Exchange) -> None:
    await ask.head()
    await ask.piece("\ud800")
    await ask.finish()


async def silent(ask: Exchange) -> None:
    """Never a first byte."""
    await asyncio.sleep(60)


async def silent_midway(ask: Exchange) -> None:
    await ask.head()
    await ask.piece(ask.pieces[0])
    await asyncio.sleep(60)


async def never_closes(ask: Exchange) -> None:
    """All is said, and the response goes on."""
    await ask.head()
    for piece in ask.pieces:
        await ask.piece(piece)
    await ask.piece("", "stop")
    await asyncio.sleep(60)


async def too_long(ask: Exchange) -> None:
    await ask.head()
    await ask.piece("on and on")
    await ask.piece("", "length")
    await ask.finish()


async def something_else(ask: Exchange) -> None:
    await ask.head()
    await ask.piece("Else.", "stop")
    await ask.finish()


def status(
    code: int, content: bytes = b'{"error": {"message": "no"}}', **headers: str
) -> Behaviour:
    async def answer(ask: Exchange) -> None:
        await ask.error(code, content, **headers)

    return answer


def late(seconds: float) -> Behaviour:
    async def answer(ask: Exchange) -> None:
        await asyncio.sleep(seconds)
        await good(ask)

    return answer


@dataclass
class FaultyServer:
    """Answers each request with the next behaviour, and well when there are no more."""

    script: list[Behaviour] = field(default_factory=list)
    default: Behaviour = good
    pace: float = 0.0
    port: int = 0
    requests: list[Exchange] = field(default_factory=list)
    times: list[float] = field(default_factory=list)
    writers: list[asyncio.StreamWriter] = field(default_factory=list)
    connections: int = 0
    running: int = 0
    most: int = 0
    left: int = 0
    """Requests whose client went away before their end."""

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self.writers.append(writer)
        with contextlib.suppress(DroppedError, ConnectionError, asyncio.IncompleteReadError):
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
                assert head[0] == "POST /v1/completions HTTP/1.1", head[0]
                pairs = (line.split(": ", 1) for line in head[1:] if line)
                headers = {name.lower(): value for name, value in pairs}
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                ask = Exchange(self, headers, body, writer)
                self.requests.append(ask)
                self.times.append(time.monotonic())
                behaviour = self.script.pop(0) if self.script else self.default
                await self._answer(behaviour, ask, reader)
        writer.close()

    async def _answer(
        self, behaviour: Behaviour, ask: Exchange, reader: asyncio.StreamReader
    ) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        answering = asyncio.ensure_future(behaviour(ask))
        try:
            while not answering.done():
                await asyncio.wait({answering}, timeout=0.01)
                if reader.at_eof() and not answering.done():
                    self.left += 1
                    raise DroppedError
            await answering
        finally:
            answering.cancel()
            self.running -= 1


@contextlib.contextmanager
def run_server(
    *script: Behaviour, default: Behaviour = good, pace: float = 0.0
) -> Iterator[FaultyServer]:
    """A server in a thread of its own."""
    server = FaultyServer(list(script), default, pace)
    started = threading.Event()
    stop: list[Callable[[], Any]] = []

    async def serve() -> None:
        stopped, loop = asyncio.Event(), asyncio.get_running_loop()
        stop.append(lambda: loop.call_soon_threadsafe(stopped.set))
        running = await asyncio.start_server(server._serve, "127.0.0.1", 0)
        server.port = running.sockets[0].getsockname()[1]
        started.set()
        await stopped.wait()
        running.close()
        for writer in server.writers:
            writer.close()
        await asyncio.sleep(0.02)  # the connections learn of it

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    assert started.wait(5)
    try:
        yield server
    finally:
        stop[0]()
        thread.join()
