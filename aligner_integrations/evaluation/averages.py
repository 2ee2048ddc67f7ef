"""Averages over upstreams and datasets, with intervals that know which answers share a question."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from aligner_integrations.evaluation.grid import gather
from aligner_integrations.evaluation.records import Case, Judgement
from aligner_integrations.evaluation.statistics import (
    VALUE_RESAMPLES,
    Interval,
    NetRate,
    Share,
    take_percentiles,
)

_Draws = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Average:
    """The mean of an aligner's grid cells: the last row of the paper's table.

    Every cell counts the same, however many cases it has. The intervals come from drawing questions
    again, each with all that was said of it, for several upstreams answer the same questions.

    Attributes:
        aligner: Who corrected.
        dataset: What was asked; None for the mean over all datasets.
        judge: Who judged.
        dimension: What was judged.
        cells: How many cells it is the mean of.
        samples: Questions in them.
        verdicts: Verdicts in them.
        net: Mean net rate, in percent.
        low: The lower end of its interval.
        high: The upper end.
        win: Mean share of wins, in percent.
        win_low: The lower end of its interval.
        win_high: The upper end.
        loss: Mean share of losses, in percent.
        loss_low: The lower end of its interval.
        loss_high: The upper end.
    """

    aligner: str
    dataset: str | None
    judge: str
    dimension: str
    cells: int
    samples: int
    verdicts: int
    net: float
    low: float
    high: float
    win: float
    win_low: float
    win_high: float
    loss: float
    loss_low: float
    loss_high: float


@dataclass(frozen=True, slots=True)
class _Drawn:
    """Verdicts of cells that share their questions: shares, and the same for each draw.

    Attributes:
        shares: Of wins, ties and losses, ``[3, cells]``.
        draws: Of wins and losses, ``[draws, 2, cells]``.
    """

    shares: _Draws
    draws: _Draws
    samples: int
    verdicts: int


def make_averages(
    cases: Iterable[Case], *, seed: int = 0, confidence: float = 0.95
) -> list[Average]:
    """Means over upstreams for each dataset, then the mean over datasets where there are several.

    Args:
        cases: Judged cases; probes are left out.
        seed: Of the bootstrap.
        confidence: Of the intervals.
    """
    places = gather(cases)
    samples: dict[str, dict[str, int]] = {}
    rows: dict[tuple[str, str, str], dict[str, list[list[tuple[Case, Judgement]]]]] = {}
    for place, pairs in places.items():
        judged = [(case, one) for case, one in pairs if one.error is None and one.verdict]
        if not judged:
            continue
        known = samples.setdefault(place.dataset, {})
        for case, _ in judged:
            known.setdefault(case.sample.id, len(known))
        row = rows.setdefault((place.aligner, place.judge, place.dimension), {})
        row.setdefault(place.dataset, []).append(judged)
    averages = []
    for (aligner, judge, dimension), datasets in rows.items():
        drawn = {
            dataset: _draw(columns, samples[dataset], dataset, seed)
            for dataset, columns in datasets.items()
        }
        parts: list[tuple[str | None, list[_Drawn]]] = [
            (name, [one]) for name, one in drawn.items()
        ]
        if len(drawn) > 1:
            parts.append((None, list(drawn.values())))
        averages += [
            _average(aligner, dataset, judge, dimension, part, confidence)
            for dataset, part in parts
        ]
    return averages


def _draw(
    columns: Sequence[Sequence[tuple[Case, Judgement]]],
    samples: dict[str, int],
    dataset: str,
    seed: int,
) -> _Drawn:
    counts = np.zeros((3, len(samples), len(columns)))
    for column, pairs in enumerate(columns):
        for case, one in pairs:
            verdict = ("win", "tie", "loss").index(one.verdict or "tie")
            counts[verdict, samples[case.sample.id], column] += 1
    weights = _weigh(len(samples), zlib.crc32(dataset.encode("utf-8", "surrogatepass")), seed)
    totals = weights @ counts.sum(0)
    wins, losses = weights @ counts[0], weights @ counts[2]
    kept = (totals > 0).all(axis=1)  # a draw may hold no question of a cell with few of them
    draws = np.stack([wins[kept] / totals[kept], losses[kept] / totals[kept]], axis=1)
    return _Drawn(
        shares=counts.sum(1) / counts.sum((0, 1)),
        draws=draws,
        samples=int((counts.sum((0, 2)) > 0).sum()),
        verdicts=int(counts.sum()),
    )


@lru_cache(maxsize=16)
def _weigh(samples: int, salt: int, seed: int) -> NDArray[np.float32]:
    """How often each draw holds each sample, ``[draws, samples]``."""
    random = np.random.default_rng([seed, salt, samples])
    even = np.full(samples, 1 / samples)
    return random.multinomial(samples, even, size=VALUE_RESAMPLES).astype(np.float32)


def _average(
    aligner: str,
    dataset: str | None,
    judge: str,
    dimension: str,
    parts: Sequence[_Drawn],
    confidence: float,
) -> Average:
    shares = np.concatenate([part.shares for part in parts], axis=1).mean(1)
    size = min(len(part.draws) for part in parts)
    draws = np.concatenate([part.draws[:size] for part in parts], axis=2).mean(2)
    samples = sum(part.samples for part in parts)
    win, _, loss = (float(share) for share in shares)
    ends = [
        end
        for interval in (
            _bound_net(shares, draws, samples, confidence),
            _bound_share(win, draws[:, 0], samples, confidence),
            _bound_share(loss, draws[:, 1], samples, confidence),
        )
        for end in (interval.low, interval.high)
    ]
    return Average(
        aligner=aligner,
        dataset=dataset,
        judge=judge,
        dimension=dimension,
        cells=sum(part.shares.shape[1] for part in parts),
        samples=samples,
        verdicts=sum(part.verdicts for part in parts),
        net=100 * (win - loss),
        low=ends[0],
        high=ends[1],
        win=100 * win,
        win_low=ends[2],
        win_high=ends[3],
        loss=100 * loss,
        loss_low=ends[4],
        loss_high=ends[5],
    )


def _bound_net(shares: _Draws, draws: _Draws, samples: int, confidence: float) -> Interval:
    if shares.max() == 1 or not len(draws):  # draws can't differ: as in `NetRate.interval`
        rate = NetRate(*(samples if share == shares.max() else 0 for share in shares))
        return rate.interval(confidence) or Interval(-100.0, 100.0)
    return take_percentiles(100 * (draws[:, 0] - draws[:, 1]), confidence)


def _bound_share(share: float, draws: _Draws, samples: int, confidence: float) -> Interval:
    if share in (0.0, 1.0) or not len(draws):
        wilson = Share(round(share * samples), samples).interval(confidence) or Interval(0.0, 1.0)
        return Interval(100 * wilson.low, 100 * wilson.high)
    return take_percentiles(100 * draws, confidence)
