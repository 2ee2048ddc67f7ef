"""An evaluation in numbers: the grid, its averages, the costs, the guards, the judges."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from aligner_integrations.evaluation.averages import Average, make_averages
from aligner_integrations.evaluation.costs import Cost, measure_costs
from aligner_integrations.evaluation.grid import Cell, make_grid, order
from aligner_integrations.evaluation.guards import GuardMetric
from aligner_integrations.evaluation.judges.bias import PositionBias
from aligner_integrations.evaluation.records import Case
from aligner_integrations.evaluation.statistics import Share


@dataclass(frozen=True, slots=True)
class Guard:
    """A `GuardMetric` with its share and Wilson interval, 0 to 1; None of nothing."""

    upstream: str
    aligner: str
    dataset: str
    name: str
    hits: int
    total: int
    share: float | None
    low: float | None
    high: float | None
    better: Literal["high", "low"]
    heuristic: bool
    meaning: str


@dataclass(frozen=True, slots=True)
class Summary:
    """An evaluation in numbers; `to_json` is what machines read.

    Attributes:
        cases: Cases that count in the grid.
        probes: Cases that count for guard metrics only.
        upstreams: Who answered, as they came.
        aligners: Who corrected.
        datasets: What was asked.
        cells: The grid.
        averages: Means of its cells over upstreams and datasets.
        costs: Time, and how much was changed.
        guards: What guards are judged by.
        bias: How far judges hang on the order they are shown.
        seed: Of all bootstraps.
        confidence: Of all intervals.
    """

    cases: int
    probes: int
    upstreams: tuple[str, ...]
    aligners: tuple[str, ...]
    datasets: tuple[str, ...]
    cells: tuple[Cell, ...]
    averages: tuple[Average, ...]
    costs: tuple[Cost, ...]
    guards: tuple[Guard, ...]
    bias: tuple[PositionBias, ...]
    seed: int
    confidence: float

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return asdict(self)

    def to_json(self) -> str:
        """JSON by the letter of its standard: no NaN, no infinity."""
        return json.dumps(self.to_dict(), indent=2, allow_nan=False) + "\n"


def summarise(
    cases: Iterable[Case],
    *,
    guards: Iterable[GuardMetric] = (),
    bias: Iterable[PositionBias] = (),
    seed: int = 0,
    confidence: float = 0.95,
) -> Summary:
    """Sum up an evaluation.

    Args:
        cases: All cases. Probes are counted, and otherwise left to ``guards``.
        guards: What `measure_guards` counted over cases and probes.
        bias: What `measure_position_bias` found.
        seed: Of all bootstraps.
        confidence: Of all intervals.

    Raises:
        MissingExtraError: scipy or statsmodels is not installed.

    Example:
        >>> from aligner_integrations.evaluation.records import Judgement, Sample
        >>> sample = Sample("eggs", "1", "How long?")
        >>> judged = (Judgement("rubric", "helpful", "win"),)
        >>> case = Case(sample, "llm", "aligner", "3 h.", "3 minutes.", judgements=judged)
        >>> summarise([case]).cells[0].net
        100.0
    """
    known = list(cases)
    counted = [case for case in known if case.probe is None]
    return Summary(
        cases=len(counted),
        probes=len(known) - len(counted),
        upstreams=order(case.upstream for case in counted),
        aligners=order(case.aligner for case in counted),
        datasets=order(case.sample.dataset for case in counted),
        cells=tuple(make_grid(counted, seed=seed, confidence=confidence)),
        averages=tuple(make_averages(counted, seed=seed, confidence=confidence)),
        costs=tuple(measure_costs(counted, seed=seed, confidence=confidence)),
        guards=tuple(_bound_guards(guards, confidence)),
        bias=tuple(bias),
        seed=seed,
        confidence=confidence,
    )


def _bound_guards(metrics: Iterable[GuardMetric], confidence: float) -> Iterator[Guard]:
    for one in metrics:
        share = Share(one.hits, one.total)
        interval = share.interval(confidence)
        yield Guard(
            upstream=one.upstream,
            aligner=one.aligner,
            dataset=one.dataset,
            name=one.name,
            hits=one.hits,
            total=one.total,
            share=share.value,
            low=interval.low if interval else None,
            high=interval.high if interval else None,
            better=one.better,
            heuristic=one.heuristic,
            meaning=one.meaning,
        )


def pool_guards(guards: Sequence[Guard], confidence: float) -> list[Guard]:
    """The same over all upstreams: hits and totals added up, ``upstream`` is ``""``."""
    groups: dict[tuple[str, str, str], list[Guard]] = {}
    for one in guards:
        groups.setdefault((one.dataset, one.name, one.aligner), []).append(one)
    sums = [
        GuardMetric(
            "",
            aligner,
            dataset,
            name,
            sum(one.hits for one in group),
            sum(one.total for one in group),
            group[0].better,
            group[0].heuristic,
            group[0].meaning,
        )
        for (dataset, name, aligner), group in groups.items()
    ]
    return list(_bound_guards(sums, confidence))
