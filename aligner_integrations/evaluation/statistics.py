"""Shares, net rates, medians: each with an interval, and the tests that belong to them.

Formulas are those of scipy and statsmodels. Nothing here returns NaN: what can't be said is None.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from aligner_integrations.imports import require

RESAMPLES = 9_999
"""Bootstrap resamples of counts, as scipy's default."""
VALUE_RESAMPLES = 2_000
"""Bootstrap resamples of values, which cost more than those of counts."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval, in the unit of what it belongs to."""

    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Share:
    """How many of how many.

    Example:
        >>> share = Share(8, 10)
        >>> share.value, round(share.interval().low, 3), round(share.interval().high, 3)
        (0.8, 0.49, 0.943)
    """

    hits: int
    total: int

    @property
    def value(self) -> float | None:
        """Between 0 and 1; None of nothing."""
        return self.hits / self.total if self.total else None

    def interval(self, confidence: float = 0.95) -> Interval | None:
        """Wilson's score interval (`statsmodels.stats.proportion.proportion_confint`).

        Raises:
            MissingExtraError: statsmodels is not installed.
        """
        return _wilson(self.hits, self.total, confidence) if self.total else None


@lru_cache(maxsize=4096)
def _wilson(hits: int, total: int, confidence: float) -> Interval:
    require("statsmodels", "eval")
    from statsmodels.stats.proportion import proportion_confint

    low, high = proportion_confint(hits, total, alpha=1 - confidence, method="wilson")
    return Interval(float(low) if hits else 0.0, float(high) if hits < total else 1.0)


@dataclass(frozen=True, slots=True)
class NetRate:
    """The paper's statistic: (wins - losses) / (wins + ties + losses), in percent.

    Source: Ji et al. 2024 (arXiv 2402.02416), the caption of Table 1.

    Example:
        >>> rate = NetRate(wins=30, ties=60, losses=10)
        >>> rate.value
        20.0
    """

    wins: int
    ties: int
    losses: int

    @property
    def total(self) -> int:
        """Verdicts."""
        return self.wins + self.ties + self.losses

    @property
    def value(self) -> float | None:
        """Percent, from -100 to 100; None without verdicts."""
        return 100 * (self.wins - self.losses) / self.total if self.total else None

    def interval(
        self, confidence: float = 0.95, *, seed: int = 0, resamples: int = RESAMPLES
    ) -> Interval | None:
        """Percentile bootstrap over verdicts, in percent.

        To draw verdicts again is to draw their counts from a multinomial distribution, so that is
        what is drawn. Where all verdicts are equal every draw is too, which says nothing: then
        the other verdicts get what Wilson's interval leaves them, at their worst.
        """
        if not self.total:
            return None
        counts = np.array([self.wins, self.ties, self.losses])
        if counts.max() == self.total:
            return self._widen(confidence)
        draws = np.random.default_rng([seed, *counts]).multinomial(
            self.total, counts / self.total, size=resamples
        )
        return take_percentiles(100 * (draws[:, 0] - draws[:, 2]) / self.total, confidence)

    def _widen(self, confidence: float) -> Interval:
        left = 100 * (1 - _wilson(self.total, self.total, confidence).low)
        if self.wins:
            return Interval(100 - 2 * left, 100.0)
        if self.losses:
            return Interval(-100.0, 2 * left - 100)
        return Interval(-left, left)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number that was estimated, and its interval; None where one value is too few for it."""

    value: float
    interval: Interval | None


def sign_test(wins: int, losses: int) -> float:
    """Two-sided exact sign test (`scipy.stats.binomtest`); ties count on no side.

    Example:
        >>> round(sign_test(8, 2), 4), sign_test(0, 0)
        (0.1094, 1.0)
    """
    if not wins + losses:
        return 1.0
    require("scipy", "eval")
    from scipy.stats import binomtest

    return float(binomtest(wins, wins + losses, 0.5).pvalue)


def mcnemar_test(before: Sequence[bool], after: Sequence[bool]) -> float | None:
    """Exact McNemar test of a yes/no measure, taken of the same cases twice.

    Source: `statsmodels.stats.contingency_tables.mcnemar`.

    Args:
        before: Of the answers.
        after: Of their corrections, in the same order.

    Raises:
        ValueError: They are not of one length.

    Example:
        >>> mcnemar_test([True] * 6 + [False] * 4, [False] * 10)
        0.03125
    """
    pairs = list(zip(before, after, strict=True))
    if not pairs:
        return None
    require("statsmodels", "eval")
    from statsmodels.stats.contingency_tables import mcnemar

    table = [[pairs.count((one, two)) for two in (True, False)] for one in (True, False)]
    if not table[0][1] + table[1][0]:
        return 1.0
    return float(min(1.0, mcnemar(table, exact=True).pvalue))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down correction (`statsmodels.stats.multitest.multipletests`).

    Args:
        p_values: Of all tests of one family; None stands for no test, and stays.

    Example:
        >>> [round(p, 4) for p in holm([0.01, 0.04, 0.03, 0.005])]
        [0.03, 0.06, 0.06, 0.02]
    """
    tested = [p for p in p_values if p is not None]
    if not tested:
        return list(p_values)
    require("statsmodels", "eval")
    from statsmodels.stats.multitest import multipletests

    corrected = iter(multipletests(tested, method="holm")[1])
    return [None if p is None else float(next(corrected)) for p in p_values]


def estimate_median(
    values: Sequence[float], confidence: float = 0.95, *, seed: int = 0
) -> Estimate | None:
    """The median with a percentile bootstrap interval (`scipy.stats.bootstrap`).

    Example:
        >>> estimate_median([1.0, 2.0, 9.0]).value
        2.0
    """
    return _bootstrap(values, np.median, confidence, seed)


def estimate_mean(
    values: Sequence[float], confidence: float = 0.95, *, seed: int = 0
) -> Estimate | None:
    """The mean with a percentile bootstrap interval (`scipy.stats.bootstrap`)."""
    return _bootstrap(values, np.mean, confidence, seed)


def _bootstrap(
    values: Sequence[float], statistic: object, confidence: float, seed: int
) -> Estimate | None:
    known = np.asarray(values, dtype=float)
    known = known[np.isfinite(known)]
    if not known.size:
        return None
    value = float(statistic(known))  # type: ignore[operator]
    if known.size == 1:
        return Estimate(value, None)
    if np.ptp(known) == 0:
        return Estimate(value, Interval(value, value))
    require("scipy", "eval")
    from scipy.stats import bootstrap

    interval = bootstrap(
        (known,),
        statistic,
        n_resamples=VALUE_RESAMPLES,
        batch=max(1, 2_000_000 // known.size),
        vectorized=True,
        confidence_level=confidence,
        method="percentile",
        random_state=np.random.default_rng(seed),
    ).confidence_interval
    return Estimate(value, Interval(float(interval.low), float(interval.high)))


def take_percentiles(draws: NDArray[np.floating], confidence: float = 0.95) -> Interval:
    """The middle part of bootstrap draws that holds ``confidence`` of them."""
    tail = 50 * (1 - confidence)
    low, high = np.percentile(draws, [tail, 100 - tail])
    return Interval(float(low), float(high))
