"""Importing heavy libraries late, fast, and with a clear word where one is missing."""

from __future__ import annotations

import contextlib
import gc
import importlib.util
from collections.abc import Iterator

from aligner_integrations.errors import MissingExtraError


def require(package: str, extra: str, least: str | None = None) -> None:
    """Raise `MissingExtraError` unless a package is installed, in this version or a later one."""
    if importlib.util.find_spec(package) is None:
        raise MissingExtraError(package, extra)
    if least is not None:
        from importlib.metadata import version

        from packaging.version import Version

        if Version(version(package)) < Version(least):
            raise MissingExtraError(f"{package}>={least}", extra)


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
