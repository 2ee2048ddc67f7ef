"""How many requests are worked on, how many wait, and when no more are taken."""

from __future__ import annotations

import asyncio
from weakref import WeakSet

from aligner_integrations.server.errors import ApiError, shutting_down

ALL: WeakSet[Admission] = WeakSet()
"""Those of this process' gateways, for metrics that are its own."""


class Slot:
    """A request's place among those that are worked on; released once."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission
        self._held = True

    def release(self) -> None:
        """Let the next one in."""
        if self._held:
            self._held = False
            self._admission.leave()


class Admission:
    """A bounded queue before the work.

    Args:
        max_concurrent: Most requests that are worked on.
        max_waiting: Most that wait.
    """

    def __init__(self, max_concurrent: int, max_waiting: int) -> None:
        self._max_waiting = max_waiting
        self._free = asyncio.Semaphore(max_concurrent)
        self.working = 0
        self.waiting = 0
        self.closed = False
        ALL.add(self)

    @property
    def idle(self) -> bool:
        """Whether nothing is worked on or waits."""
        return not (self.working or self.waiting)

    async def enter(self) -> Slot:
        """Wait for a slot.

        Raises:
            ApiError: 429 where too many wait already, 503 where the gateway shuts down.
        """
        if self.closed:
            raise shutting_down()
        if self._free.locked() and self.waiting >= self._max_waiting:
            raise ApiError(
                429,
                f"{self.working} requests are worked on and {self.waiting} wait already; try "
                "again later, or raise --max-concurrent or --max-waiting",
                code="queue_full",
                retry=True,
            )
        self.waiting += 1
        try:
            await self._free.acquire()
        finally:
            self.waiting -= 1
        self.working += 1
        return Slot(self)

    def leave(self) -> None:
        """A slot is free again."""
        self.working -= 1
        self._free.release()
