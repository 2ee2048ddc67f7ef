"""When to ask a server again, and when not."""

from __future__ import annotations

import math
import random
import time
from email.utils import parsedate_to_datetime

from aligner_integrations.errors import AlignerError

RETRIED_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 529})
"""HTTP statuses that may be other ones the next time."""

FIRST_PAUSE, LONGEST_PAUSE = 0.25, 8.0
"""Seconds of the first and of the longest pause between attempts, before jitter."""

LONGEST_RETRY_AFTER = 300.0
"""Seconds beyond which a server's ``Retry-After`` is not believed."""


class AttemptError(Exception):
    """One attempt failed.

    Args:
        kind: What happened, in a few words that are ours.
        said: What the server said of it, without keys. It may quote, so logs leave it out.
        error: What the caller gets if this is the end; by default a `ServerError` with
            both.
        retry: Whether another attempt may go better.
        broken: Whether it speaks against the replica; a server that is only busy is not broken.
        after: Seconds that the server asks to be left alone for.
    """

    def __init__(
        self,
        kind: str,
        said: str = "",
        *,
        error: AlignerError | None = None,
        retry: bool = True,
        broken: bool = True,
        after: float = 0.0,
    ) -> None:
        super().__init__(kind)
        self.kind = kind
        self.reason = f"{kind}: {said}" if said else kind
        self.error = error
        self.retry = retry
        self.broken = broken
        self.after = after


def find_pause(attempt: int) -> float:
    """Seconds to wait after a failed attempt: exponential, with full jitter.

    Clients that failed together would otherwise all come back together (Brooker, "Exponential
    Backoff and Jitter", AWS Architecture Blog, 2015).

    Args:
        attempt: How many attempts failed before this one.

    Example:
        >>> 0 <= find_pause(0) <= 0.25
        True
    """
    return random.uniform(0, min(LONGEST_PAUSE, FIRST_PAUSE * 2**attempt))  # noqa: S311


def read_retry_after(value: str | None) -> float:
    """Seconds that a ``Retry-After`` header asks for: a number, or a date (RFC 9110, 10.2.3).

    Returns:
        0 where there is no such header, or none that can be read.

    Example:
        >>> read_retry_after("1.5"), read_retry_after("soon"), read_retry_after(None)
        (1.5, 0.0, 0.0)
    """
    if not value:
        return 0.0
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, TypeError, OverflowError):
            return 0.0
    return 0.0 if math.isnan(seconds) else min(max(seconds, 0.0), LONGEST_RETRY_AFTER)
