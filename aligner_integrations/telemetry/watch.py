"""The one place where a correction's end is observed, and whoever wants to know is told.

OpenTelemetry is never imported here. An application that wants spans and metrics has imported it
to set up where they go; one that has not pays for one look into `sys.modules`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextvars import ContextVar
from typing import TYPE_CHECKING

from aligner_integrations.correction import Correction

if TYPE_CHECKING:
    from aligner_integrations.request import Request

Listener = Callable[[Correction], None]

LISTENER: ContextVar[Listener | None] = ContextVar("aligner_listener", default=None)
"""Told of each correction that is asked for in its context."""


class Watch:
    """Follows one correction. This one tells its listener, if there is one.

    Args:
        listener: Called with the correction.
    """

    __slots__ = ("_listener",)

    def __init__(self, listener: Listener | None = None) -> None:
        self._listener = listener

    def begin(self) -> None:
        """The answer is whole."""

    def carry_on(self) -> dict[str, str]:
        """Headers by which a server that is asked can carry the trace on."""
        return {}

    def settle(self, correction: Correction) -> None:
        """The correction is there, written, skipped, or put there by a policy."""
        if self._listener is not None:
            self._listener(correction)

    def fail(self, error: BaseException) -> None:
        """There is none: it failed with an `Exception`, or was given up with something else."""

    def drop(self) -> None:
        """Nobody waits any longer. For finalizers: waits for nothing and takes no lock."""


_SILENT = Watch()


def watch(request: Request) -> Watch:
    """What follows a correction that the caller asks for just now."""
    listener = LISTENER.get()
    if "opentelemetry.trace" in sys.modules:
        from aligner_integrations.telemetry.corrections import CorrectionWatch

        return CorrectionWatch(request, listener)
    return _SILENT if listener is None else Watch(listener)
