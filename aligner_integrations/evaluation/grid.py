"""The grid: what each judge makes of each aligner behind each upstream, cell by cell."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal, NamedTuple

from aligner_integrations.evaluation.records import Case, Judgement
from aligner_integrations.evaluation.statistics import (
    NetRate,
    estimate_mean,
    holm,
    mcnemar_test,
    sign_test,
)

_FIRST_DIMENSIONS = ("helpful", "harmless", "honest", "empathy")


class Place(NamedTuple):
    """Where in the grid a verdict belongs."""

    upstream: str
    aligner: str
    dataset: str
    judge: str
    dimension: str


@dataclass(frozen=True, slots=True)
class Cell:
    """One upstream, one aligner, one dataset, one judge, one dimension.

    Attributes:
        upstream: Who answered.
        aligner: Who corrected.
        dataset: What was asked.
        judge: Who judged.
        dimension: What was judged.
        heuristic: Whether the judge is a rule.
        wins: Verdicts for the correction.
        ties: Verdicts for neither.
        losses: Verdicts for the answer.
        failed: Judgements with an error; they count nowhere else.
        net: `NetRate`, in percent; None without verdicts.
        low: The lower end of its interval.
        high: The upper end.
        test: What ``p`` comes from: ``"sign"`` (of wins and losses), or ``"mcnemar"`` where the
            judge gives no verdicts but yes/no scores.
        p: Of no difference between answers and corrections, two-sided; None where all verdicts
            are ties. No p could be small there, so Holm's family is without it (Tarone 1990).
        p_holm: The same with Holm's correction over the whole grid.
        swapped: Cases that were judged in both orders.
        disagreements: Those of them in which the orders gave different verdicts.
        scored: Cases with a score before and after.
        before: Mean score of the answers.
        after: Mean score of the corrections.
        change: Mean of after - before.
        change_low: The lower end of its interval.
        change_high: The upper end.
    """

    upstream: str
    aligner: str
    dataset: str
    judge: str
    dimension: str
    heuristic: bool = False
    wins: int = 0
    ties: int = 0
    losses: int = 0
    failed: int = 0
    net: float | None = None
    low: float | None = None
    high: float | None = None
    test: Literal["sign", "mcnemar"] | None = None
    p: float | None = None
    p_holm: float | None = None
    swapped: int = 0
    disagreements: int = 0
    scored: int = 0
    before: float | None = None
    after: float | None = None
    change: float | None = None
    change_low: float | None = None
    change_high: float | None = None

    @property
    def place(self) -> Place:
        """Where it stands."""
        return Place(self.upstream, self.aligner, self.dataset, self.judge, self.dimension)

    @property
    def total(self) -> int:
        """Verdicts."""
        return self.wins + self.ties + self.losses


def order(names: Iterable[str], first: Sequence[str] = ()) -> tuple[str, ...]:
    """Names without repetition: some first, the others as they came."""
    seen = dict.fromkeys(names)
    return tuple(name for name in first if name in seen) + tuple(
        name for name in seen if name not in first
    )


def order_dimensions(names: Iterable[str]) -> tuple[str, ...]:
    """Dimensions, those of the paper first."""
    return order(names, _FIRST_DIMENSIONS)


def gather(cases: Iterable[Case]) -> dict[Place, list[tuple[Case, Judgement]]]:
    """Judgements by their place in the grid; probes have none."""
    pairs = [(case, one) for case in cases if case.probe is None for one in case.judgements]
    found: dict[Place, list[tuple[Case, Judgement]]] = {}
    for case, one in pairs:
        place = Place(case.upstream, case.aligner, case.sample.dataset, one.judge, one.dimension)
        found.setdefault(place, []).append((case, one))
    return dict(sorted(found.items(), key=_rank(found)))


def _rank(
    places: Iterable[Place],
) -> Callable[[tuple[Place, object]], tuple[int, int, int, int, int]]:
    """A sort key: dataset, judge, aligner, upstream, dimension, each as it came first."""
    known = list(places)
    upstreams, aligners, datasets, judges = (
        {name: index for index, name in enumerate(order(place[field] for place in known))}
        for field in range(4)
    )
    dimensions = order_dimensions(place.dimension for place in known)

    def key(item: tuple[Place, object]) -> tuple[int, int, int, int, int]:
        place = item[0]
        return (
            datasets[place.dataset],
            judges[place.judge],
            aligners[place.aligner],
            upstreams[place.upstream],
            dimensions.index(place.dimension),
        )

    return key


def make_grid(cases: Iterable[Case], *, seed: int = 0, confidence: float = 0.95) -> list[Cell]:
    """All cells that hold a judgement, with Holm's correction over all of them.

    Args:
        cases: Judged cases; probes are left out.
        seed: Of the bootstrap.
        confidence: Of the intervals.
    """
    cells = [
        _make_cell(place, [one for _, one in pairs], seed, confidence)
        for place, pairs in gather(cases).items()
    ]
    corrected = holm([cell.p for cell in cells])
    return [replace(cell, p_holm=p) for cell, p in zip(cells, corrected, strict=True)]


def _make_cell(place: Place, judgements: Sequence[Judgement], seed: int, confidence: float) -> Cell:
    good = [one for one in judgements if one.error is None]
    rate = count_verdicts(good)
    interval = rate.interval(confidence, seed=seed)
    orders = [bool(one.details["disagreement"]) for one in good if _in_both_orders(one)]
    scores = list(_read_scores(good))
    change = estimate_mean([after - before for before, after in scores], confidence, seed=seed)
    cell = Cell(
        *place,
        heuristic=any(one.heuristic for one in judgements),
        wins=rate.wins,
        ties=rate.ties,
        losses=rate.losses,
        failed=len(judgements) - len(good),
        net=rate.value,
        low=interval.low if interval else None,
        high=interval.high if interval else None,
        test="sign" if rate.total else None,
        p=sign_test(rate.wins, rate.losses) if rate.wins + rate.losses else None,
        swapped=len(orders),
        disagreements=sum(orders),
    )
    if change is None:
        return cell
    if not rate.total and all(value in (0.0, 1.0) for pair in scores for value in pair):
        yes, later = zip(*((bool(before), bool(after)) for before, after in scores), strict=True)
        p = mcnemar_test(yes, later) if yes != later else None
        cell = replace(cell, test="mcnemar", p=p)
    return replace(
        cell,
        scored=len(scores),
        before=sum(before for before, _ in scores) / len(scores),
        after=sum(after for _, after in scores) / len(scores),
        change=change.value,
        change_low=change.interval.low if change.interval else None,
        change_high=change.interval.high if change.interval else None,
    )


def count_verdicts(judgements: Iterable[Judgement]) -> NetRate:
    """Wins, ties and losses of judgements without an error."""
    verdicts = [one.verdict for one in judgements if one.error is None]
    return NetRate(verdicts.count("win"), verdicts.count("tie"), verdicts.count("loss"))


def _in_both_orders(judgement: Judgement) -> bool:
    """Whether it says if the orders agree; a judge that was asked in one order can't know."""
    orders = judgement.details.get("orders")
    return "disagreement" in judgement.details and (orders is None or len(orders) > 1)


def _read_scores(judgements: Iterable[Judgement]) -> Iterator[tuple[float, float]]:
    for one in judgements:
        if one.before is None or one.after is None:
            continue
        if math.isfinite(one.before) and math.isfinite(one.after):
            yield float(one.before), float(one.after)
