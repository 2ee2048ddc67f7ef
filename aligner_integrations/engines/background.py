"""An event loop in a thread of its own, for callers with loops and without."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any

import anyio

Farewell = Callable[[], Awaitable[None]]


class Background:
    """Runs coroutines; one instance may be used from any thread.

    The thread holds nothing but the loop, so an owner that is dropped can be collected.

    Args:
        farewell: Awaited in the loop before it ends.
    """

    def __init__(self, farewell: Farewell) -> None:
        self.process = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._running: set[_Work] = set()
        self._thread = threading.Thread(
            target=_run,
            args=(self.loop, self._running, farewell),
            name="aligner-server",
            daemon=True,
        )
        self._thread.start()

    def start(
        self, coroutine: Coroutine[Any, Any, None], end: Callable[[], None]
    ) -> Callable[[], None]:
        """Run a coroutine, and return at once.

        Args:
            coroutine: What to run.
            end: Called once it has ended or was cancelled, even before it began; in the loop.

        Returns:
            What cancels it, from any thread, at any time.
        """
        work = _Work(coroutine)
        future: Future[None] = asyncio.run_coroutine_threadsafe(work.run(self._running), self.loop)
        future.add_done_callback(lambda _: end())

        def cancel() -> None:
            with contextlib.suppress(RuntimeError):  # the loop has ended, and all work with it
                self.loop.call_soon_threadsafe(work.cancel)

        return cancel

    def stop(self, *, wait: bool = False) -> None:
        """Cancel all that runs, and end the thread."""
        if self.process != os.getpid():  # a forked process has the loop, but not its thread
            return
        with contextlib.suppress(RuntimeError):
            self.loop.call_soon_threadsafe(self.loop.stop)
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()


class _Work:
    """A coroutine that can be cancelled in a way that lets connections be closed.

    `asyncio.Task.cancel` breaks into httpx while it closes connections, other requests' among
    them, and leaves them open. anyio's cancellation waits for what httpx shields from it.
    """

    def __init__(self, coroutine: Coroutine[Any, Any, None]) -> None:
        self._coroutine = coroutine
        self._scope: anyio.CancelScope | None = None
        self._cancelled = False

    async def run(self, running: set[_Work]) -> None:
        if self._cancelled:
            self._coroutine.close()
            return
        running.add(self)
        try:
            with anyio.CancelScope() as self._scope:
                await self._coroutine
        finally:
            running.discard(self)

    def cancel(self) -> None:
        self._cancelled = True
        if self._scope is not None:
            self._scope.cancel()


def _run(loop: asyncio.AbstractEventLoop, running: set[_Work], farewell: Farewell) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(_end(running, farewell))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _end(running: set[_Work], farewell: Farewell) -> None:
    await asyncio.sleep(0)  # what was handed in last begins
    tasks = asyncio.all_tasks() - {asyncio.current_task()}
    for work in list(running):
        work.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    await farewell()
