"""An upstream LLM that is scripted: it answers as the pool says, and fails as it is told to.

    python -m docs.benchmarks.reliability.upstream POOL [PORT]

It speaks HTTP by hand, because a well-behaved server could not leave an answer half written. What
to do stands in the request's ``metadata``, which the gateway hands on: ``request``, an id that the
answer carries too, and ``fault``.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from docs.benchmarks.reliability.pool import load_pool

SILENCE = 60.0
"""Seconds for which a silent upstream says nothing, unless the gateway goes away before."""

_REASONS = {200: "OK", 404: "Not Found", 429: "Too Many Requests", 500: "Internal Server Error"}


class DroppedError(Exception):
    """The connection is to be closed now, whatever was sent."""


class Connection:
    """One connection of the gateway, for one request after another."""

    def __init__(self, writer: asyncio.StreamWriter) -> None:
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Send bytes.

        Raises:
            ConnectionError: The gateway went away.
        """
        self._writer.write(data)
        await self._writer.drain()

    async def answer(
        self, body: bytes, status: int = 200, kind: str = "application/json", length: int = -1
    ) -> None:
        """A whole response; ``length`` is what it claims to have."""
        length = len(body) if length < 0 else length
        head = f"HTTP/1.1 {status} {_REASONS.get(status, 'Error')}\r\ncontent-type: {kind}\r\n"
        head += "retry-after: 1\r\n" if status == 429 else ""
        await self.send(f"{head}content-length: {length}\r\n\r\n".encode() + body)

    async def begin_stream(self) -> None:
        """The head of a stream of events."""
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
        await self.send(f"{head}transfer-encoding: chunked\r\n\r\n".encode())

    async def event(self, data: str, end: str = "\n\n") -> None:
        """One event, or with another end a part of one."""
        part = f"data: {data}{end}".encode()
        await self.send(f"{len(part):x}\r\n".encode() + part + b"\r\n")

    async def end_stream(self) -> None:
        """The regular end of a stream."""
        await self.send(b"0\r\n\r\n")


class ScriptedUpstream:
    """Answers of a pool, with faults.

    Attributes:
        open: How many requests are being answered.
        seen: How many have come.
    """

    def __init__(self, path: Path) -> None:
        pool = load_pool(path)
        self._answers = {pair.question: pair.answer for pair in pool.pairs}
        self._too_long = pool.too_long
        self._draw = random.Random(0)  # noqa: S311 - pauses
        self.open = 0
        self.seen = 0

    async def serve(self, port: int = 0) -> None:
        """Listen (by default on a free port), say the URL, and answer until the process ends."""
        server = await asyncio.start_server(self._talk, "127.0.0.1", port)
        port = server.sockets[0].getsockname()[1]
        sys.stdout.write(f"listening on http://127.0.0.1:{port}\n")
        sys.stdout.flush()
        async with server:
            await server.serve_forever()

    async def _talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = Connection(writer)
        lost = (ConnectionError, asyncio.IncompleteReadError, DroppedError)
        with contextlib.suppress(*lost):
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                if head.startswith(b"GET"):
                    figures = {"open": self.open, "seen": self.seen}
                    await connection.answer(json.dumps(figures).encode())
                    continue
                body = json.loads(await reader.readexactly(_read_length(head)))
                self.open += 1
                self.seen += 1
                try:
                    await self._unless_gone(reader, self._complete(connection, body))
                finally:
                    self.open -= 1
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    async def _unless_gone(self, reader: asyncio.StreamReader, work: Any) -> None:
        """Do the work, unless the other side closes the connection."""
        working = asyncio.create_task(work)
        while not working.done():
            await asyncio.wait({working}, timeout=0.05)
            if reader.at_eof():  # reading to find out would take bytes of the next request
                working.cancel()
                await asyncio.wait({working})
                raise DroppedError
        working.result()

    async def _complete(self, connection: Connection, body: dict[str, Any]) -> None:
        metadata, fault = body["metadata"], body["metadata"]["fault"]
        answer = (
            self._too_long if fault == "long" else self._answers[body["messages"][-1]["content"]]
        )
        if fault == "refuse":
            raise DroppedError
        if fault in ("429", "500"):
            error = {"message": f"the upstream says {fault}", "type": "t", "code": f"says_{fault}"}
            await connection.answer(json.dumps({"error": error}).encode(), int(fault))
        elif fault == "html":
            await connection.answer(b"<h1>Bad gateway</h1>", 503, "text/html")
        elif body.get("stream"):
            await self._stream(connection, metadata["request"], fault, answer)
        else:
            await self._whole(connection, metadata["request"], fault, answer)

    async def _whole(self, connection: Connection, name: str, fault: str, answer: str) -> None:
        await asyncio.sleep(self._pause(fault) * 5)
        message = {"role": "assistant", "content": answer}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        content = json.dumps({**_envelope(name, "chat.completion"), "choices": [choice]}).encode()
        half = content[: len(content) // 2]
        if fault == "drop":
            await connection.answer(half, length=len(content))
            raise DroppedError
        if fault == "half":
            await connection.answer(half)
        elif fault == "wrong":
            await connection.answer(b'{"choices": "none"}')
        elif fault == "silent":
            await asyncio.sleep(SILENCE)
            raise DroppedError
        else:
            await connection.answer(content)

    async def _stream(self, connection: Connection, name: str, fault: str, answer: str) -> None:
        await connection.begin_stream()
        events = list(_write_events(name, answer))
        # Where it goes wrong, which may be after the last word but never after its end.
        fatal = self._draw.randrange(1, len(events) - 1) if len(events) > 2 else 1
        for place, event in enumerate(events):
            if place == fatal and fault != "long":
                await self._fail(connection, fault, event)
            await connection.event(event)
            if pause := self._pause(fault):
                await asyncio.sleep(pause)
        await connection.event("[DONE]")
        await connection.end_stream()

    async def _fail(self, connection: Connection, fault: str, event: str) -> None:
        if fault == "drop":
            raise DroppedError
        if fault == "half":
            await connection.event(event[: len(event) // 2], end="")
            await connection.end_stream()
            raise DroppedError
        if fault == "wrong":
            await connection.event('{"choices": "none"}')
        elif fault == "error":
            await connection.event('{"error": {"message": "the upstream gives up"}}')
        elif fault == "silent":
            await asyncio.sleep(SILENCE)
            raise DroppedError

    def _pause(self, fault: str) -> float:
        return self._draw.uniform(0.0, 0.1) if fault == "slow" else 0.0


def _write_events(name: str, answer: str) -> Iterator[str]:
    """Role, words (of long answers several together), end."""
    words = answer.split(" ")
    together = max(1, len(words) // 40)
    parts = [" ".join(words[at : at + together]) for at in range(0, len(words), together)]
    deltas = [{"content": part if at == 0 else f" {part}"} for at, part in enumerate(parts)]
    envelope = _envelope(name, "chat.completion.chunk")
    for delta in ({"role": "assistant", "content": ""}, *deltas):
        choice = {"index": 0, "delta": delta, "finish_reason": None}
        yield json.dumps({**envelope, "choices": [choice]})
    yield json.dumps({**envelope, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})


def _envelope(name: str, kind: str) -> dict[str, Any]:
    return {"id": name, "object": kind, "created": 1_700_000_000, "model": "m"}


def _read_length(head: bytes) -> int:
    lines = head.decode("latin-1").lower().split("\r\n")
    return int(next(line for line in lines if line.startswith("content-length:")).split(":")[1])


if __name__ == "__main__":
    asyncio.run(ScriptedUpstream(Path(sys.argv[1])).serve(*map(int, sys.argv[2:])))
