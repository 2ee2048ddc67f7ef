"""Shares, net rates, medians and tests: against numbers worked out by hand and by others."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import bootstrap

from aligner_integrations.evaluation.statistics import (
    Interval,
    NetRate,
    Share,
    estimate_mean,
    estimate_median,
    holm,
    mcnemar_test,
    sign_test,
    take_percentiles,
)


def wilson(hits: int, total: int, z: float = 1.959963984540054) -> tuple[float, float]:
    """The formula as Wilson (1927) has it."""
    share = hits / total
    middle = share + z * z / (2 * total)
    spread = z * math.sqrt(share * (1 - share) / total + z * z / (4 * total * total))
    scale = 1 + z * z / total
    return (middle - spread) / scale, (middle + spread) / scale


@pytest.mark.parametrize(("hits", "total"), [(8, 10), (0, 10), (10, 10), (1, 1), (37, 500)])
def test_share_has_wilsons_interval(hits: int, total: int) -> None:
    share = Share(hits, total)
    interval = share.interval()
    assert share.value == hits / total
    assert interval is not None
    assert (interval.low, interval.high) == pytest.approx(wilson(hits, total), abs=1e-12)
    narrower = share.interval(0.5)
    assert narrower is not None
    assert interval.low <= narrower.low <= share.value <= narrower.high <= interval.high


def test_nothing_gives_none() -> None:
    assert Share(0, 0).value is None
    assert Share(0, 0).interval() is None
    assert NetRate(0, 0, 0).value is None
    assert NetRate(0, 0, 0).interval() is None
    assert mcnemar_test([], []) is None
    assert estimate_median([]) is None
    assert estimate_median([math.nan]) is None
    assert holm([]) == []
    assert holm([None, None]) == [None, None]


def test_net_rate_is_the_papers() -> None:
    assert NetRate(30, 60, 10).value == 20.0
    assert NetRate(0, 1, 3).value == -75.0
    assert NetRate(1, 0, 0).total == 1


@pytest.mark.parametrize("counts", [(30, 60, 10), (3, 2, 15), (100, 0, 100), (1, 40, 0)])
def test_drawing_counts_is_drawing_cases(counts: tuple[int, int, int]) -> None:
    wins, ties, losses = counts
    values = [100.0] * wins + [0.0] * ties + [-100.0] * losses
    expected = bootstrap(
        (values,),
        np.mean,
        n_resamples=9_999,
        method="percentile",
        random_state=np.random.default_rng(7),
    ).confidence_interval
    interval = NetRate(*counts).interval()
    assert interval is not None
    step = 100 / sum(counts)  # the rate moves in such steps
    assert interval.low == pytest.approx(expected.low, abs=step + 0.5)
    assert interval.high == pytest.approx(expected.high, abs=step + 0.5)


def test_equal_verdicts_leave_room_for_others() -> None:
    low, _ = wilson(10, 10)
    left = 100 * (1 - low)  # 27.8 %
    assert NetRate(0, 10, 0).interval() == Interval(
        pytest.approx(-left),  # type: ignore[arg-type]
        pytest.approx(left),  # type: ignore[arg-type]
    )
    wins, losses = NetRate(10, 0, 0).interval(), NetRate(0, 0, 10).interval()
    assert wins is not None
    assert losses is not None
    assert (wins.low, wins.high) == (pytest.approx(100 - 2 * left), 100)
    assert (losses.low, losses.high) == (-100, pytest.approx(2 * left - 100))


def test_intervals_hold_the_truth_as_often_as_they_say() -> None:
    random = np.random.default_rng(1)
    chances = np.array([0.35, 0.45, 0.2])
    draws = random.multinomial(120, chances, size=400)
    held = {0.95: 0, 0.8: 0}
    for counts in draws:
        for confidence in held:
            interval = NetRate(*map(int, counts)).interval(confidence, resamples=1_000)
            assert interval is not None
            held[confidence] += interval.low <= 15.0 <= interval.high
    # 400 tries: three standard errors are 3.3 and 6 points.
    assert 0.917 <= held[0.95] / 400 <= 0.983
    assert 0.74 <= held[0.8] / 400 <= 0.86


def test_seeds_decide() -> None:
    rate = NetRate(13, 20, 9)
    assert rate.interval(seed=3) == rate.interval(seed=3)
    values = [0.1, 0.5, 0.9, 1.3, 4.0, 0.2, 0.25]
    assert estimate_median(values, seed=3) == estimate_median(values, seed=3)
    assert estimate_mean(values, seed=3) != estimate_mean(values, seed=4)


def test_sign_test_by_hand() -> None:
    # 2 * (C(10,0) + C(10,1) + C(10,2)) / 2^10
    assert sign_test(8, 2) == pytest.approx(2 * (1 + 10 + 45) / 1024)
    assert sign_test(2, 8) == sign_test(8, 2)
    assert sign_test(5, 5) == 1.0
    assert sign_test(0, 0) == 1.0


def test_mcnemar_by_hand() -> None:
    # Six went from yes to no, one the other way: 2 * (C(7,0) + C(7,1)) / 2^7.
    before = [True] * 6 + [False] + [True] * 20 + [False] * 20
    after = [False] * 6 + [True] + [True] * 20 + [False] * 20
    assert mcnemar_test(before, after) == pytest.approx(2 * (1 + 7) / 128)
    assert mcnemar_test(before, before) == 1.0
    with pytest.raises(ValueError, match="zip"):
        mcnemar_test([True], [])


def test_holm_by_the_book() -> None:
    # Sorted .005 .01 .03 .04 times 4 3 2 1, never falling.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, None, 0.7]) == [1.0, None, 1.0]


def test_holm_never_makes_smaller_and_keeps_order() -> None:
    random = np.random.default_rng(5)
    for size in (1, 2, 7, 30):  # statsmodels collects garbage at each call: a tenth of a second
        values = sorted(random.uniform(0, 0.2, size))
        corrected = [p for p in holm(values) if p is not None]
        assert corrected == sorted(corrected)
        assert all(b <= a <= 1 for b, a in zip(values, corrected, strict=True))
        assert corrected[0] == pytest.approx(min(1, size * values[0]))


def test_medians_and_their_intervals() -> None:
    one = estimate_median([2.5])
    assert one is not None
    assert (one.value, one.interval) == (2.5, None)
    same = estimate_median([2.0, 2.0, 2.0])
    assert same is not None
    assert same.interval == Interval(2.0, 2.0)
    values = [1.0, math.inf, 2.0, math.nan, 9.0]
    cleaned = estimate_median(values)
    assert cleaned is not None
    assert cleaned.value == 2.0
    many = estimate_median(list(np.random.default_rng(2).lognormal(0, 1, 400)))
    assert many is not None
    assert many.interval is not None
    assert 0.7 < many.interval.low < 1.0 < many.interval.high < 1.4


def test_percentiles_hold_the_middle() -> None:
    interval = take_percentiles(np.arange(101.0), 0.9)
    assert (interval.low, interval.high) == pytest.approx((5.0, 95.0))
