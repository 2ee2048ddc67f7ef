"""Torch's threads on a CPU, and how not to have too many of them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from typing import TypeVar

import torch

_Result = TypeVar("_Result")


def run_apart(work: Callable[[], _Result]) -> _Result:
    """Do work that uses torch in a thread that ends with it, and wait for it.

    Every thread that has used torch on a CPU keeps helpers of its own for as long as it lives. Once
    all threads together have more of them than there are cores, OpenMP sends helpers to sleep
    between any two operations, and to wake them costs more than a small operation itself: a pass
    of a single token took 1.6 times as long in an engine's thread when its model had been loaded in
    the main thread. With a GPU the work stays where it is, since each thread has a current one.

    Args:
        work: What to do.

    Example:
        >>> run_apart(lambda: 1 + 1)
        2
    """
    if torch.cuda.is_available():
        return work()
    with ThreadPoolExecutor(1, "aligner loads") as pool:
        return pool.submit(copy_context().run, work).result()
