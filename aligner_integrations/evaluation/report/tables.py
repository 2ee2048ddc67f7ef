"""The tables of the report: what stands in which row and column."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from aligner_integrations.evaluation.averages import Average
from aligner_integrations.evaluation.grid import Cell, order, order_dimensions
from aligner_integrations.evaluation.records import Case
from aligner_integrations.evaluation.report.text import shorten
from aligner_integrations.evaluation.statistics import Interval, Share
from aligner_integrations.evaluation.summary import Guard, Summary, pool_guards

_MOST_FAILURES = 60


@dataclass(frozen=True, slots=True)
class GridRow:
    """One upstream: a cell for each aligner and dimension."""

    upstream: str
    cells: list[Cell | None]


@dataclass(frozen=True, slots=True)
class GridGroup:
    """One dataset: its upstreams, then their average where there are several."""

    dataset: str
    least: int
    most: int
    rows: list[GridRow]
    averages: list[Average | None]
    upstreams: int


@dataclass(frozen=True, slots=True)
class Grid:
    """What one judge made of everything."""

    judge: str
    heuristic: bool
    aligners: list[str]
    dimensions: tuple[str, ...]
    groups: list[GridGroup]
    overall: list[Average | None]

    @property
    def columns(self) -> int:
        """Cells in a row."""
        return len(self.aligners) * len(self.dimensions)


def find_moving(summary: Summary) -> tuple[str, ...]:
    """Aligners that changed an answer or failed; all of them if none did."""
    moving = {cost.aligner for cost in summary.costs if cost.changed or cost.failures}
    return tuple(name for name in summary.aligners if name in moving) or summary.aligners


def make_net_grids(summary: Summary, aligners: Sequence[str]) -> list[Grid]:
    """Net rates, a table for each judge that gives verdicts."""
    return _make_grids(summary, [c for c in summary.cells if c.total], aligners)


def make_score_grids(summary: Summary, aligners: Sequence[str]) -> list[Grid]:
    """Scores before and after, a table for each judge that scores."""
    return _make_grids(summary, [c for c in summary.cells if c.scored], aligners)


def _make_grids(summary: Summary, cells: Sequence[Cell], aligners: Sequence[str]) -> list[Grid]:
    grids = []
    for judge in order(cell.judge for cell in cells):
        own = [cell for cell in cells if cell.judge == judge and cell.aligner in aligners]
        if not own:
            continue
        dimensions = order_dimensions(cell.dimension for cell in own)
        shown = [name for name in aligners if any(cell.aligner == name for cell in own)]
        columns = [(aligner, dimension) for aligner in shown for dimension in dimensions]
        means = {
            (one.dataset, one.aligner, one.dimension): one
            for one in summary.averages
            if one.judge == judge
        }
        places = {(c.dataset, c.upstream, c.aligner, c.dimension): c for c in own}
        groups = []
        for dataset in order((c.dataset for c in own), summary.datasets):
            inside = [cell for cell in own if cell.dataset == dataset]
            upstreams = order((cell.upstream for cell in inside), summary.upstreams)
            counts = [cell.total or cell.scored for cell in inside]
            rows = [
                GridRow(name, [places.get((dataset, name, *column)) for column in columns])
                for name in upstreams
            ]
            averages = [means.get((dataset, *column)) for column in columns]
            groups.append(
                GridGroup(dataset, min(counts), max(counts), rows, averages, len(upstreams))
            )
        overall = [means.get((None, *column)) for column in columns]
        heuristic = any(cell.heuristic for cell in own)
        grids.append(Grid(judge, heuristic, shown, dimensions, groups, overall))
    return grids


@dataclass(frozen=True, slots=True)
class Overview:
    """One aligner in a line.

    Attributes:
        aligner: Its name.
        averages: Its mean net rate for each judge and dimension; None where not judged.
        changed: Corrections that differ from their answer.
        changed_interval: Wilson's.
        failed: Answers that could not be corrected.
        seconds: Median over the cells of their median seconds; None without any.
    """

    aligner: str
    averages: list[Average | None]
    changed: Share
    changed_interval: Interval | None
    failed: Share
    seconds: float | None


def make_overview(
    summary: Summary, columns: Sequence[tuple[str, str]], aligners: Sequence[str]
) -> list[Overview]:
    """Each aligner in a line; ``columns`` are pairs of judge and dimension."""
    lines = []
    for aligner in aligners:
        own = [cost for cost in summary.costs if cost.aligner == aligner]
        good = sum(cost.corrections for cost in own)
        failures = sum(cost.failures for cost in own)
        changed = Share(sum(cost.changed for cost in own), good)
        seconds = sorted(cost.seconds for cost in own if cost.seconds is not None)
        lines.append(
            Overview(
                aligner,
                [_find_overall(summary, aligner, *column) for column in columns],
                changed,
                changed.interval(summary.confidence),
                Share(failures, good + failures),
                seconds[len(seconds) // 2] if seconds else None,
            )
        )
    return lines


def _find_overall(summary: Summary, aligner: str, judge: str, dimension: str) -> Average | None:
    """Over all datasets; over the only one where there is one."""
    found = [
        one
        for one in summary.averages
        if (one.aligner, one.judge, one.dimension) == (aligner, judge, dimension)
    ]
    return next((one for one in found if one.dataset is None), found[0] if found else None)


@dataclass(frozen=True, slots=True)
class GuardTable:
    """One metric: a row for each dataset, a share for each aligner."""

    name: str
    better: str
    heuristic: bool
    meaning: str
    rows: list[tuple[str, list[Guard | None]]]


def make_guard_tables(
    guards: Sequence[Guard], aligners: Sequence[str], confidence: float
) -> list[GuardTable]:
    """Guard metrics, added up over upstreams."""
    pooled = [one for one in pool_guards(guards, confidence) if one.total]
    places = {(one.dataset, one.name, one.aligner): one for one in pooled}
    tables = []
    for name in order(one.name for one in pooled):
        own = [one for one in pooled if one.name == name]
        rows = [
            (dataset, [places.get((dataset, name, aligner)) for aligner in aligners])
            for dataset in order(one.dataset for one in own)
        ]
        tables.append(GuardTable(name, own[0].better, own[0].heuristic, own[0].meaning, rows))
    return tables


@dataclass(frozen=True, slots=True)
class JudgeRow:
    """One judge on one dimension, over the whole grid."""

    judge: str
    dimension: str
    heuristic: bool
    verdicts: int
    failed: int
    disagreement: Share
    interval: Interval | None


def make_judge_table(summary: Summary) -> list[JudgeRow]:
    """What judges did, and how often their two orders disagree."""
    groups: dict[tuple[str, str], list[Cell]] = {}
    for cell in summary.cells:
        groups.setdefault((cell.judge, cell.dimension), []).append(cell)
    rows = []
    for (judge, dimension), cells in groups.items():
        disagreement = Share(sum(c.disagreements for c in cells), sum(c.swapped for c in cells))
        rows.append(
            JudgeRow(
                judge,
                dimension,
                any(cell.heuristic for cell in cells),
                sum(cell.total or cell.scored for cell in cells),
                sum(cell.failed for cell in cells),
                disagreement,
                disagreement.interval(summary.confidence),
            )
        )
    return rows


@dataclass(frozen=True, slots=True)
class FailureRow:
    """One kind of failure: who, where, why, how often."""

    what: str
    who: str
    upstream: str
    dataset: str
    error: str
    count: int
    example: str


def make_failure_table(cases: Iterable[Case]) -> tuple[list[FailureRow], int]:
    """Failures by kind, the most frequent first; and how many kinds were left out."""
    counts: Counter[tuple[str, str, str, str, str]] = Counter()
    examples: dict[tuple[str, str, str, str, str], str] = {}
    for case in cases:
        of = f" of {case.probe} probe" if case.probe else ""
        found = [(f"correction{of}", case.aligner, case.error)] if case.error is not None else []
        found += [
            (f"judgement{of}", f"{one.judge}, {one.dimension}", one.error)
            for one in case.judgements
            if one.error is not None
        ]
        for what, who, error in found:
            key = (what, who, case.upstream, case.sample.dataset, shorten(error, 300))
            counts[key] += 1
            examples.setdefault(key, case.sample.id)
    rows = [FailureRow(*key, count, examples[key]) for key, count in counts.most_common()]
    return rows[:_MOST_FAILURES], max(0, len(rows) - _MOST_FAILURES)
