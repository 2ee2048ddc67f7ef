"""Bounds that find what takes quadratic time, and not a machine that is busy."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator


@contextlib.contextmanager
def within(seconds: float) -> Iterator[None]:
    """What is done in it takes this thread no more time than that; waiting does not count.

    Linear work on 100,000 characters takes some 0.1 s; quadratic work takes minutes.
    """
    started = time.thread_time()
    yield
    assert time.thread_time() - started < seconds
