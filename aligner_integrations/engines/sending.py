"""Sending requests to an aligner's servers: slots, attempts, pauses, connections."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator

import anyio
import httpx

from aligner_integrations.engines.completions import (
    Chunk,
    read_chunks,
    read_failure,
    to_attempt_error,
)
from aligner_integrations.engines.connection import Connection
from aligner_integrations.engines.remote import RemoteTask
from aligner_integrations.engines.replicas import Replica, Replicas
from aligner_integrations.engines.retries import AttemptError, find_pause
from aligner_integrations.errors import AlignerError, CorrectionError, LatencyError, ServerError

logger = logging.getLogger(__name__)

_CONNECT = 5.0  # seconds
_DRAIN = 1.0  # seconds for what follows a completion's end, so that its connection can be reused


class Sender:
    """Sends requests; all of it belongs to one event loop.

    Args:
        connection: Where to, and how.
    """

    def __init__(self, connection: Connection) -> None:
        self.replicas = Replicas(
            connection.urls,
            breaker_failures=connection.breaker_failures,
            breaker_seconds=connection.breaker_seconds,
        )
        self._connection = connection
        self._slots = asyncio.Semaphore(connection.max_concurrency)
        key = connection.api_key
        silence = min(connection.silence, connection.timeout)
        self._client = httpx.AsyncClient(
            headers={"accept": "text/event-stream"}
            | ({} if key is None else {"authorization": f"Bearer {key}"}),
            timeout=httpx.Timeout(silence, connect=min(_CONNECT, silence), pool=None),
            limits=httpx.Limits(
                max_connections=None, max_keepalive_connections=connection.max_concurrency
            ),
        )

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    async def run(self, task: RemoteTask) -> None:
        """Correct, and end the task, come what may."""
        timeout = self._connection.timeout
        try:
            async with self._slots:
                task.waited = time.perf_counter() - task.job.started
                with anyio.move_on_after(timeout) as scope:
                    await self._try(task, time.monotonic() + timeout)
            if scope.cancelled_caught:
                task.fail(
                    LatencyError(
                        f"the server of {task.model!r} took longer than timeout={timeout} s, all "
                        "attempts together; allow it more time, or set on_error='original' or "
                        "'refuse'"
                    )
                )
        except AlignerError as error:
            task.fail(error)
        except Exception as error:
            failure = CorrectionError(f"{task.model!r} failed: {error!r}")
            failure.__cause__ = error
            task.fail(failure)

    async def _try(self, task: RemoteTask, deadline: float) -> None:
        tried: set[Replica] = set()
        reason = "its circuit breaker is open"
        attempts = self._connection.retries + 1
        for attempt in range(attempts):
            replica = await self._choose(tried, deadline)
            if replica is None:
                raise self._give_up(task, attempt, reason)
            try:
                with self.replicas.use(replica):
                    await self._ask(replica, task)
            except AttemptError as failure:
                if not failure.retry:
                    raise failure.error or ServerError(
                        f"{task.model!r} at {replica.url}: {failure.reason}"
                    ) from None
                reason = f"{replica.url}: {failure.reason}"
                logger.info(
                    "attempt %d for %r at %s failed: %s",
                    attempt + 1,
                    task.model,
                    replica.url,
                    failure.kind,  # without what the server said, which may quote
                )
                tried.add(replica)
                if not self.replicas.has_fresh(tried) and attempt + 1 < attempts:
                    tried.clear()
                    await asyncio.sleep(find_pause(attempt))
            else:
                return
        raise self._give_up(task, attempts, reason)

    async def _choose(self, tried: set[Replica], deadline: float) -> Replica | None:
        """A replica, waiting for one that asked for a rest; None where that is in vain."""
        while (replica := self.replicas.choose(tried)) is None:
            rest = self.replicas.find_rest()
            if rest is None or time.monotonic() + rest > deadline:
                return None
            # Not all of those that were sent away at the same time at the same time again.
            await asyncio.sleep(rest + find_pause(0))
        return replica

    def _give_up(self, task: RemoteTask, attempts: int, reason: str) -> ServerError:
        servers = f"{len(self.replicas.all)} server" + "s" * (len(self.replicas.all) > 1)
        return ServerError(
            f"{servers} of {task.model!r} did not answer in {attempts} "
            f"attempt{'s' * (attempts != 1)}, the last reason: {reason}; check the servers, or set "
            f"on_error='original' or 'refuse'"
            + (
                f" (the next probe is in {self.replicas.find_probe():.1f} s)"
                if self.replicas.find_rest() is None
                else ""
            )
        )

    async def _ask(self, replica: Replica, task: RemoteTask) -> None:
        """One attempt."""
        url = f"{replica.url}/completions"
        try:
            asking = self._client.stream("POST", url, json=task.body, headers=dict(task.job.trace))
            async with asking as response:
                if not response.is_success:
                    raise await read_failure(response, task.model)
                task.begin()
                async with contextlib.aclosing(read_chunks(response)) as chunks:
                    async for chunk in chunks:
                        task.take(chunk)
                        if task.ended:
                            with anyio.move_on_after(_DRAIN):
                                await _exhaust(chunks)
        except (httpx.HTTPError, AttemptError) as error:
            if task.ended:  # what came behind the end is of no interest
                return
            if isinstance(error, httpx.HTTPError):
                raise to_attempt_error(error) from error
            raise


async def _exhaust(chunks: AsyncIterator[Chunk]) -> None:
    async for _ in chunks:
        pass
