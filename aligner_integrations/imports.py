"""Importing heavy libraries late, fast, and with a clear word where one is missing."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
from collections.abc import Iterator

from aligner_integrations.errors import MissingExtraError


def require(package: str, extra: str) -> None:
    """Raise `MissingExtraError` unless a top-level package is installed."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, extra)


@contextlib.contextmanager
def paused_garbage_collection() -> Iterator[None]:
    """Import torch and transformers without garbage collection.

    They make some millions of objects that stay; looking through them again and again takes a
    quarter of the import's 2.7 s.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
