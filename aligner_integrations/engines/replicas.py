"""Several servers with the same model: the least loaded is asked, a broken one is left out."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

from aligner_integrations.engines.retries import AttemptError
from aligner_integrations.errors import AlignerError

logger = logging.getLogger(__name__)

_LONGEST = 8  # times the first time that a breaker stays open


@dataclass(slots=True, eq=False)
class Replica:
    """One server, and how it has been doing.

    Attributes:
        url: Its API.
        in_flight: Requests that it is working on.
        asked: Requests that it ever got.
        failures: Failures in a row.
        open_until: Its circuit breaker is open: it gets no request before this time, and then
            a single one as a probe. None while the breaker is closed.
        openings: How often in a row the breaker opened; each time it stays open for longer.
        probing: The probe is under way.
        rest_until: The server asked for nothing more before this time.
    """

    url: str
    in_flight: int = 0
    asked: int = 0
    failures: int = 0
    open_until: float | None = None
    openings: int = 0
    probing: bool = False
    rest_until: float = 0.0

    def is_ready(self, now: float) -> bool:
        """Whether it may get a request."""
        closed = self.open_until is None or (self.open_until <= now and not self.probing)
        return closed and self.rest_until <= now


class Replicas:
    """Chooses among replicas. For one thread.

    Args:
        urls: Their APIs.
        breaker_failures: Failures in a row that open a replica's circuit breaker.
        breaker_seconds: How long it stays open at first; twice as long after each failed probe,
            up to eight times as long.
        clock: Seconds that only grow.
    """

    def __init__(
        self,
        urls: Sequence[str],
        *,
        breaker_failures: int = 5,
        breaker_seconds: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.all = [Replica(url) for url in urls]
        self._breaker_failures = breaker_failures
        self._breaker_seconds = breaker_seconds
        self._clock = clock

    def choose(self, tried: Collection[Replica] = ()) -> Replica | None:
        """The least loaded of those that may get a request, rather one that was not tried yet."""
        now = self._clock()
        ready = [replica for replica in self.all if replica.is_ready(now)]
        fresh = [replica for replica in ready if replica not in tried] or ready
        # One that is to be probed comes first: it must fail or heal, and others can help out.
        return min(
            fresh, key=lambda one: (one.open_until is None, one.in_flight, one.asked), default=None
        )

    def has_fresh(self, tried: Collection[Replica]) -> bool:
        """Whether one that was not tried yet may get a request."""
        now = self._clock()
        return any(replica.is_ready(now) for replica in self.all if replica not in tried)

    def find_rest(self) -> float | None:
        """Seconds until a replica that only rests may be asked again; None where all are broken."""
        now = self._clock()
        resting = [one.rest_until - now for one in self.all if one.open_until is None]
        return max(0.0, min(resting)) if resting else None

    def find_probe(self) -> float:
        """Seconds until the first broken replica is probed."""
        now = self._clock()
        return max(0.0, min((one.open_until or now) - now for one in self.all))

    @contextmanager
    def use(self, replica: Replica) -> Iterator[None]:
        """Count a request, and learn from how it ends."""
        replica.in_flight += 1
        replica.asked += 1
        probe = replica.open_until is not None
        replica.probing = replica.probing or probe
        try:
            yield
        except AttemptError as failure:
            replica.rest_until = max(replica.rest_until, self._clock() + failure.after)
            if failure.broken:
                self._count_failure(replica, failure.reason, probe)
            else:  # it answered
                self._close(replica)
            raise
        except AlignerError:  # it answered well, but with nothing of use
            self._close(replica)
            raise
        else:
            self._close(replica)
        finally:
            replica.in_flight -= 1
            replica.probing = replica.probing and not probe

    def _count_failure(self, replica: Replica, reason: str, probe: bool) -> None:
        replica.failures += 1
        if not probe and (
            replica.open_until is not None or replica.failures < self._breaker_failures
        ):
            return
        seconds = self._breaker_seconds * min(2**replica.openings, _LONGEST)
        replica.openings += 1
        replica.open_until = self._clock() + seconds
        logger.warning(
            "aligner server %s is left out for %.3g s after %d failures in a row, the last: %s",
            replica.url,
            seconds,
            replica.failures,
            reason,
        )

    def _close(self, replica: Replica) -> None:
        if replica.open_until is not None:
            logger.info("aligner server %s is back", replica.url)
        replica.failures, replica.openings, replica.open_until = 0, 0, None
