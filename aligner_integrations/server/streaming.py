"""Streamed chat completions: the text of each choice is held back until it is corrected."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any

from aligner_integrations.server.content import (
    RAW_COPIES,
    is_tool_call,
    make_record,
    split_content,
)
from aligner_integrations.server.errors import ApiError, to_api_error
from aligner_integrations.server.metrics import Metrics
from aligner_integrations.server.sse import DONE, encode
from aligner_integrations.step import RECORD_KEY
from aligner_integrations.streams import AsyncCorrectionStream

Chunk = dict[str, Any]
_COPIES = RAW_COPIES | {"message"}  # some send the whole answer so far with each chunk


class _Choice:
    """What is known of one choice so far."""

    def __init__(self, index: int) -> None:
        self.index = index
        self.answer = ""
        self.logprobs: dict[str, Any] | None = None
        self.pieces: asyncio.Queue[str | None] = asyncio.Queue()
        self.correcting: asyncio.Task[None] | None = None
        self.last: Chunk | None = None
        self.ended = False
        self.passes = False  # it calls tools

    async def read_pieces(self) -> AsyncIterator[str]:
        while (piece := await self.pieces.get()) is not None:
            yield piece

    def add_logprobs(self, logprobs: dict[str, Any]) -> None:
        merged = self.logprobs = self.logprobs or {}
        for key, value in logprobs.items():
            held = merged.get(key)
            both = isinstance(held, list) and isinstance(value, list)
            merged[key] = held + value if both else value


class CompletionStream:
    """A stream of chunks, corrected.

    What is no text of an answer (roles, reasoning, refusals, unknown fields) goes on at once, and
    so does a choice as soon as it calls a tool. The aligner reads texts while they arrive; their
    corrections are sent from when they are whole.

    Args:
        chunks: The upstream's.
        start: Begins the correction of an answer that arrives piece by piece.
        metrics: Where failures are counted.
    """

    def __init__(
        self,
        chunks: AsyncIterator[Chunk],
        start: Callable[[AsyncIterator[str]], Awaitable[AsyncCorrectionStream]],
        metrics: Metrics,
    ) -> None:
        self._chunks = chunks
        self._start = start
        self._metrics = metrics
        self._choices: dict[int, _Choice] = {}
        self._envelope: Chunk = {}
        self._tail: list[Chunk] = []
        self._out: asyncio.Queue[Chunk | Exception | None] = asyncio.Queue(maxsize=64)
        self._reading: asyncio.Task[None] | None = None

    async def events(self) -> AsyncGenerator[bytes, None]:
        """The corrected stream, to its end or to an error."""
        self._reading = asyncio.create_task(self._run())
        while True:
            item = await self._out.get()
            if item is None:
                yield DONE
                return
            if isinstance(item, Exception):
                error = to_api_error(item)
                self._metrics.note_failure(error)
                yield encode(error.body())
                return
            yield encode(item)

    async def aclose(self) -> None:
        """Stop reading and correcting, and wait until both have stopped."""
        tasks = [choice.correcting for choice in self._choices.values()]
        running = [task for task in (self._reading, *tasks) if task is not None]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)

    async def _run(self) -> None:
        try:
            async for chunk in self._chunks:
                await self._take(chunk)
            for choice in self._choices.values():
                await self._end(choice)
            tasks = [choice.correcting for choice in self._choices.values()]
            await asyncio.gather(*(task for task in tasks if task is not None))
            for chunk in self._tail:
                await self._out.put(chunk)
            await self._out.put(None)
        except Exception as error:
            await self._out.put(error)

    async def _take(self, chunk: Chunk) -> None:
        chunk = {key: value for key, value in chunk.items() if key not in _COPIES}
        self._envelope = {
            key: value for key, value in chunk.items() if key not in ("choices", "usage")
        }
        if not chunk["choices"]:
            if chunk.get("usage") is None:
                await self._out.put(chunk)
            else:  # what it cost comes last
                self._tail.append(chunk)
            return
        for part in chunk["choices"]:
            index = part.get("index", 0)
            if index not in self._choices:
                self._choices[index] = _Choice(index)
            await self._take_part(self._choices[index], part, {**chunk, "choices": [part]})
            chunk = {key: value for key, value in chunk.items() if key != "usage"}  # told once

    async def _take_part(self, choice: _Choice, part: Chunk, chunk: Chunk) -> None:
        delta = part.get("delta") or {}
        if is_tool_call(delta) and not choice.passes:
            await self._let_pass(choice)
        if choice.passes:
            await self._out.put(chunk)
            return
        text, rest = split_content(delta.get("content"))
        if text:
            self._hold(choice, text)
        if part.get("logprobs"):
            choice.add_logprobs(part["logprobs"])
        delta = {key: value for key, value in delta.items() if key not in _COPIES}
        if rest or not text:
            delta = {**delta, **({"content": rest} if "content" in delta else {})}
        else:
            delta.pop("content", None)
        kept = {key: value for key, value in part.items() if key not in _COPIES}
        chunk = {**chunk, "choices": [{**kept, "delta": delta}]}
        if choice.ended:  # some say once more how it ended, and what it cost
            self._tail.append(chunk)
        elif part.get("finish_reason") is not None:
            choice.ended, choice.last = True, chunk
            await self._end(choice)
        elif _says_something(kept, delta) or chunk.get("usage"):
            await self._out.put(chunk)

    def _hold(self, choice: _Choice, text: str) -> None:
        if choice.ended:
            raise ApiError(
                502,
                f"the upstream went on with choice {choice.index} after its end",
                code="upstream_invalid",
            )
        choice.answer += text
        choice.pieces.put_nowait(text)
        if choice.correcting is None:
            choice.correcting = asyncio.create_task(self._correct(choice))

    async def _let_pass(self, choice: _Choice) -> None:
        """The choice calls a tool: its text so far is no final answer, and goes on as it was."""
        choice.passes = True
        if choice.correcting is None:
            return
        choice.correcting.cancel()
        await asyncio.wait({choice.correcting})
        choice.correcting = None
        held = self._make_chunk(choice, choice.answer)
        if choice.logprobs is not None:
            held["choices"][0]["logprobs"] = choice.logprobs
        await self._out.put(held)

    async def _end(self, choice: _Choice) -> None:
        """The choice is whole, by its own word or because the stream is."""
        if choice.correcting is not None:
            choice.pieces.put_nowait(None)
        elif choice.last is not None:
            await self._out.put(choice.last)
            choice.last = None

    async def _correct(self, choice: _Choice) -> None:
        try:
            async with await self._start(choice.read_pieces()) as stream:
                async for piece in stream:
                    await self._out.put(self._make_chunk(choice, piece))
            correction = stream.correction
            last = choice.last or self._make_chunk(choice, None)
            end = last["choices"][0]
            if choice.logprobs is not None:
                end["logprobs"] = None if correction.changed else choice.logprobs
            end[RECORD_KEY] = make_record(correction)
            await self._out.put(last)
        except Exception as error:
            await self._out.put(error)

    def _make_chunk(self, choice: _Choice, text: str | None) -> Chunk:
        delta = {} if text is None else {"content": text}
        part = {"index": choice.index, "delta": delta, "finish_reason": None}
        return {**self._envelope, "choices": [part]}


def _says_something(part: Chunk, delta: Chunk) -> bool:
    """Whether anything is left to send of a part whose text was held back."""
    known = ("index", "delta", "finish_reason")
    fields = [*delta.values(), *(value for key, value in part.items() if key not in known)]
    return any(value is not None for value in fields)
