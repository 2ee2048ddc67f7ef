"""What every corrector is: something that makes corrections of answers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from typing_extensions import TypedDict

from aligner_integrations.evaluation.store import Failure

Pair = tuple[str, str]


class Corrected(TypedDict):
    """What a corrector made of an answer.

    Attributes:
        text: The correction, or what a policy put in its place.
        seconds: Wall time.
        error: Why a policy was needed, in one line.
    """

    text: str
    seconds: float
    error: str | None


class Corrector(Protocol):
    """Whoever corrects.

    Attributes:
        name: Its name in the report.
        identity: All that its corrections depend on, as plain data: they are kept by it. None
            where they need not be kept.
        remote: Whether many failures in a row mean that something is down.
    """

    name: str
    identity: Mapping[str, Any] | None
    remote: bool

    def correct(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Corrected | Failure]]:
        """Corrections of (question, answer), each with its pair's index, as they are there."""
        ...

    def close(self) -> None:
        """Free what it holds; it may be used again."""
        ...
