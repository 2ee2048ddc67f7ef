"""Another model's answers in place of corrections: upstreams that were trained by SFT or DPO."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from aligner_integrations.evaluation.correcting import Corrected, Pair
from aligner_integrations.evaluation.local import LocalUpstream
from aligner_integrations.evaluation.records import Sample
from aligner_integrations.evaluation.store import Failure
from aligner_integrations.evaluation.upstreams import Upstream


class AnswerCorrector:
    """Answers each question anew, whatever the answer was.

    Its wins over the answers are what training the upstream itself gives, as section 4.2 of the
    paper compares it with an aligner.

    Args:
        name: Its name in the report.
        upstream: Who answers.
    """

    def __init__(self, name: str, upstream: Upstream) -> None:
        self.name = name
        self.remote = not isinstance(upstream, LocalUpstream)
        self.identity: Mapping[str, Any] | None = None
        if upstream.identity is not None:
            self.identity = {"answer": dict(upstream.identity)}
        self._upstream = upstream

    def correct(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Corrected | Failure]]:
        """Answer; the seconds are those since the answer before."""
        samples = [Sample("", str(index), question) for index, (question, _) in enumerate(pairs)]
        before = time.perf_counter()
        for index, answer in self._upstream.answer(samples):
            now = time.perf_counter()
            if isinstance(answer, Failure):
                yield index, answer
            else:
                yield index, Corrected(text=answer, seconds=round(now - before, 4), error=None)
            before = now

    def close(self) -> None:
        """Free a local model."""
        self._upstream.close()
