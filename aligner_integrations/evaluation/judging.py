"""What every judge is: something that looks at cases and says what it makes of them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Protocol

from aligner_integrations.evaluation.records import Case, Judgement


class Judge(Protocol):
    """A judge of cases.

    Attributes:
        name: Its name in the report.
        dimensions: What it judges.
    """

    name: str
    dimensions: tuple[str, ...]

    @property
    def identity(self) -> Mapping[str, Any]:
        """All that its verdicts depend on, as plain data: judgements are cached by it."""
        ...

    def judge(self, cases: Sequence[Case]) -> Iterator[tuple[int, tuple[Judgement, ...]]]:
        """Judge cases; yields ``(index, one judgement for each dimension)`` as they are done.

        A case that can't be judged gets judgements with an ``error``, and never stops the others.
        """
        ...
