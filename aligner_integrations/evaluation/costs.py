"""What correcting costs and how much it changes, whoever judges it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from aligner_integrations.evaluation.grid import order
from aligner_integrations.evaluation.records import Case
from aligner_integrations.evaluation.statistics import Share, estimate_median


@dataclass(frozen=True, slots=True)
class Cost:
    """One upstream, one aligner, one dataset.

    All but ``failures`` is of corrections that did not fail.

    Attributes:
        upstream: Who answered.
        aligner: Who corrected.
        dataset: What was asked.
        corrections: Answers that were corrected.
        failures: Answers that could not be.
        changed: Corrections that differ from their answer in any character.
        copies: Corrections that are exact copies of it.
        changed_share: ``changed`` of ``corrections``, 0 to 1.
        changed_low: The lower end of its Wilson interval.
        changed_high: The upper end.
        similarity: Quartiles (25, 50 and 75 %) of `Case.similarity`.
        length: Quartiles of the characters after / before; blank answers left out.
        seconds: Median wall time of a correction.
        seconds_low: The lower end of its bootstrap interval.
        seconds_high: The upper end.
        seconds_p95: 95 % took no longer.
    """

    upstream: str
    aligner: str
    dataset: str
    corrections: int
    failures: int
    changed: int
    copies: int
    changed_share: float | None
    changed_low: float | None
    changed_high: float | None
    similarity: tuple[float, float, float] | None
    length: tuple[float, float, float] | None
    seconds: float | None
    seconds_low: float | None
    seconds_high: float | None
    seconds_p95: float | None


def measure_costs(cases: Iterable[Case], *, seed: int = 0, confidence: float = 0.95) -> list[Cost]:
    """Costs of each upstream, aligner and dataset.

    Args:
        cases: Corrected cases; probes are left out.
        seed: Of the bootstrap.
        confidence: Of the intervals.
    """
    groups: dict[tuple[str, str, str], list[Case]] = {}
    for case in cases:
        if case.probe is None:
            place = (case.upstream, case.aligner, case.sample.dataset)
            groups.setdefault(place, []).append(case)
    upstreams, aligners, datasets = (order(place[field] for place in groups) for field in range(3))
    return [
        _measure((upstream, aligner, dataset), groups[upstream, aligner, dataset], seed, confidence)
        for dataset in datasets
        for aligner in aligners
        for upstream in upstreams
        if (upstream, aligner, dataset) in groups
    ]


def _measure(
    place: tuple[str, str, str], cases: Sequence[Case], seed: int, confidence: float
) -> Cost:
    good = [case for case in cases if case.error is None]
    changed = Share(sum(case.changed for case in good), len(good))
    interval = changed.interval(confidence)
    seconds = [case.seconds for case in good]
    median = estimate_median(seconds, confidence, seed=seed)
    bounds = median.interval if median else None
    return Cost(
        *place,
        corrections=len(good),
        failures=len(cases) - len(good),
        changed=changed.hits,
        copies=len(good) - changed.hits,
        changed_share=changed.value,
        changed_low=interval.low if interval else None,
        changed_high=interval.high if interval else None,
        similarity=_quartiles([case.similarity for case in good]),
        length=_quartiles([ratio for case in good if (ratio := length_ratio(case)) is not None]),
        seconds=median.value if median else None,
        seconds_low=bounds.low if bounds else None,
        seconds_high=bounds.high if bounds else None,
        seconds_p95=float(np.percentile(seconds, 95)) if seconds else None,
    )


def length_ratio(case: Case) -> float | None:
    """Characters of the correction / characters of the answer; None for a blank answer."""
    return len(case.correction) / len(case.answer) if case.answer.strip() else None


def _quartiles(values: Sequence[float]) -> tuple[float, float, float] | None:
    if not values:
        return None
    low, middle, high = (float(value) for value in np.percentile(values, [25, 50, 75]))
    return low, middle, high
