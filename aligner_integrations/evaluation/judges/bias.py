"""Does a pairwise judge look at the texts, or at where they stand?"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from aligner_integrations.evaluation.records import Case
from aligner_integrations.imports import require


@dataclass(frozen=True, slots=True)
class PositionBias:
    """How far one judge's verdicts on one dimension hang on the order of the texts.

    Attributes:
        judge: The judge's name.
        dimension: What it judged.
        cases: Cases that it judged in both orders.
        consistency: Share of them with the same verdict in both orders.
        consistency_interval: Its Wilson interval.
        first_share: Share that the first place won of all verdicts that were no tie; 0.5 is fair,
            None where all were ties.
        swayed: Cases in which one place won more often than the other.
        swayed_to_first: How many of these went to the first place.
        interval: Wilson interval of ``swayed_to_first / swayed``; (0, 1) without any.
        p_value: Two-sided exact binomial test that the swayed cases go either way alike; 1 without
            any. Each case counts once, since its two verdicts are not independent.
    """

    judge: str
    dimension: str
    cases: int
    consistency: float
    consistency_interval: tuple[float, float]
    first_share: float | None
    swayed: int
    swayed_to_first: int
    interval: tuple[float, float]
    p_value: float


def measure_position_bias(cases: Sequence[Case], *, confidence: float = 0.95) -> list[PositionBias]:
    """Measure position bias from the verdicts that `PairwiseJudge` keeps for each order.

    Cases with equal texts, errors or one order only say nothing about it and are left out. Swapping
    the order is Zheng et al. 2023 (arXiv 2306.05685, section 3.3); the test on the cases that the
    order sways is the sign test.

    Args:
        cases: Judged cases.
        confidence: Of the intervals.

    Returns:
        One value for each judge and dimension with at least one case, in the order of the cases.

    Raises:
        MissingExtraError: scipy is missing.
    """
    require("scipy", "eval")
    verdicts: dict[tuple[str, str], list[tuple[str, str]]] = defaultdict(list)
    for case in cases:
        for judgement in case.judgements:
            orders = judgement.details.get("orders", ())
            found = {one["first"]: _find_winner(one["first"], one["verdict"]) for one in orders}
            if judgement.error is None and len(found) == 2:
                pair = (found["answer"], found["correction"])
                verdicts[judgement.judge, judgement.dimension].append(pair)
    return [_measure(*key, pairs, confidence) for key, pairs in verdicts.items()]


def _find_winner(first: str, verdict: str) -> str:
    """Which place won: ``"first"``, ``"second"`` or ``"tie"``."""
    if verdict == "tie":
        return "tie"
    return "first" if (verdict == "win") == (first == "correction") else "second"


def _measure(
    judge: str, dimension: str, pairs: Sequence[tuple[str, str]], confidence: float
) -> PositionBias:
    from scipy.stats import binomtest

    swapped = {"first": "second", "second": "first", "tie": "tie"}
    same = binomtest(sum(second == swapped[first] for first, second in pairs), len(pairs))
    places = [place for pair in pairs for place in pair if place != "tie"]
    leanings = [pair.count("first") - pair.count("second") for pair in pairs]
    to_first, swayed = sum(lean > 0 for lean in leanings), sum(lean != 0 for lean in leanings)
    interval, p_value = (0.0, 1.0), 1.0
    if swayed:
        test = binomtest(to_first, swayed, 0.5)
        low, high = test.proportion_ci(confidence, method="wilson")
        interval, p_value = (float(low), float(high)), float(test.pvalue)
    low, high = same.proportion_ci(confidence, method="wilson")
    return PositionBias(
        judge,
        dimension,
        cases=len(pairs),
        consistency=float(same.statistic),
        consistency_interval=(float(low), float(high)),
        first_share=places.count("first") / len(places) if places else None,
        swayed=swayed,
        swayed_to_first=to_first,
        interval=interval,
        p_value=p_value,
    )
