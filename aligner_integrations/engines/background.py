"""An event loop in a thread of its own, for callers with loops and without."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

Farewell = Callable[[], Awaitable[None]]

_MARK = "aligner-job"  # the name of tasks that were handed in


class Background:
    """Runs coroutines; one instance may be used from any thread.

    The thread holds nothing but the loop, so an owner that is dropped can be collected.

    Args:
        farewell: Awaited in the loop before it ends.
    """

    def __init__(self, farewell: Farewell) -> None:
        self.process = os.getpid()
        self.loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=_run, args=(self.loop, farewell), name="aligner-server", daemon=True
        )
        self._thread.start()

    def start(self, work: Coroutine[Any, Any, None], end: Callable[[], None]) -> Callable[[], None]:
        """Run a coroutine, and return at once.

        Args:
            work: What to run.
            end: Called once it has ended or was cancelled, even before it began; from any thread.

        Returns:
            What cancels it, from any thread, at any time.
        """
        future = asyncio.run_coroutine_threadsafe(_mark(work), self.loop)
        future.add_done_callback(lambda _: end())

        def cancel() -> None:
            future.cancel()

        return cancel

    def stop(self, *, wait: bool = False) -> None:
        """Cancel all that runs, and end the thread."""
        if self.process != os.getpid():  # a forked process has the loop, but not its thread
            return
        if not self.loop.is_closed():
            self.loop.call_soon_threadsafe(self.loop.stop)
        if wait and threading.current_thread() is not self._thread:
            self._thread.join()


def _run(loop: asyncio.AbstractEventLoop, farewell: Farewell) -> None:
    asyncio.set_event_loop(loop)
    try:
        loop.run_forever()
        loop.run_until_complete(_end(farewell))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


async def _mark(work: Coroutine[Any, Any, None]) -> None:
    task = asyncio.current_task()
    if task is not None:
        task.set_name(_MARK)
    await work


async def _end(farewell: Farewell) -> None:
    await asyncio.sleep(0)  # what was handed in last begins, and so can clean up after itself
    running = asyncio.all_tasks() - {asyncio.current_task()}
    for task in running:
        # Not those that wait_for made for them, which would be cancelled twice: the second time in
        # the middle of closing their connections.
        if task.get_name() == _MARK:
            task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    await farewell()
