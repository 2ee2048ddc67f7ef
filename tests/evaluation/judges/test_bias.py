from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from scipy.stats import binom

from aligner_integrations.evaluation.judges import PairwiseJudge, measure_position_bias
from aligner_integrations.evaluation.judges.bias import PositionBias
from aligner_integrations.evaluation.records import Case
from tests.evaluation.judges.cases import judge_all, make_case, prefer, read_pair, say
from tests.training.data.chat_models import Scripted


def judge_cases(says: Callable[[str], Any], count: int = 40, **options: Any) -> list[Case]:
    judge = PairwiseJudge(Scripted(says=says), ["helpful"], name="tested", **options)
    cases = [make_case(f"a{i}", f"b{i}") for i in range(count)]
    return [
        replace(case, judgements=judgements)
        for case, judgements in zip(cases, judge_all(judge, cases), strict=True)
    ]


def measure(says: Callable[[str], Any], count: int = 40) -> PositionBias:
    (found,) = measure_position_bias(judge_cases(says, count))
    assert (found.judge, found.dimension, found.cases) == ("tested", "helpful", count)
    return found


def test_a_judge_that_always_picks_the_first_is_detected() -> None:
    bias = measure(lambda _: say("first"))
    assert bias.consistency == 0
    assert bias.first_share == 1
    assert (bias.swayed, bias.swayed_to_first) == (40, 40)
    assert bias.interval[0] > 0.9
    assert bias.p_value == pytest.approx(2 * 0.5**40)


def test_a_judge_that_always_picks_the_second_is_detected() -> None:
    bias = measure(lambda _: say("second"))
    assert (bias.consistency, bias.first_share, bias.swayed_to_first) == (0, 0, 0)
    assert bias.interval[1] < 0.1
    assert bias.p_value < 1e-9


def test_a_judge_that_looks_at_the_texts_is_not() -> None:
    bias = measure(prefer(lambda first, second: first > second))
    assert bias.consistency == 1
    assert bias.consistency_interval[0] > 0.9
    assert bias.first_share == 0.5
    assert (bias.swayed, bias.swayed_to_first) == (0, 0)
    assert (bias.interval, bias.p_value) == ((0, 1), 1)


def test_a_judge_that_is_inconsistent_without_a_side_is_not_biased() -> None:
    def waver(prompt: str) -> str:
        number = int(read_pair(prompt)[0][1:])
        return say("first" if number % 2 else "second")

    bias = measure(waver)
    assert bias.consistency == 0
    assert bias.first_share == 0.5
    assert (bias.swayed, bias.swayed_to_first, bias.p_value) == (40, 20, 1)


def test_half_a_bias_is_measured_as_it_is() -> None:
    """Ties with the answer first, and leans to the first place in 9 of 10 cases."""

    def lean(prompt: str) -> str:
        first, _ = read_pair(prompt)
        if first.startswith("a"):
            return say("tie")
        return say("first" if int(first[1:]) % 10 else "second")

    bias = measure(lean, 20)
    assert bias.consistency == 0
    assert (bias.swayed, bias.swayed_to_first) == (20, 18)
    assert bias.first_share == pytest.approx(0.9)
    assert bias.p_value == pytest.approx(2 * binom.cdf(2, 20, 0.5))
    # Wilson's interval by its formula.
    z, n, p = 1.959963984540054, 20, 0.9
    middle, half = p + z * z / (2 * n), z * ((p * (1 - p) + z * z / (4 * n)) / n) ** 0.5
    assert bias.interval == pytest.approx(
        ((middle - half) / (1 + z * z / n), (middle + half) / (1 + z * z / n))
    )


def test_ties_alone_say_nothing() -> None:
    bias = measure(lambda _: say("tie"))
    assert (bias.consistency, bias.first_share, bias.p_value) == (1, None, 1)


def test_cases_that_say_nothing_are_left_out() -> None:
    failed = judge_cases(lambda _: ConnectionError("dead"), 3)
    once = judge_cases(lambda _: say("first"), 3, both_orders=False)
    same = make_case("same", "same")
    judge = PairwiseJudge(Scripted(says=str), ["helpful"])
    equal = replace(same, judgements=judge_all(judge, [same])[0])
    assert measure_position_bias([*failed, *once, equal, same]) == []


def test_judges_and_dimensions_are_kept_apart() -> None:
    cases = judge_cases(lambda _: say("first"), 5)
    fair = judge_cases(lambda _: say("tie"), 5)
    other = [
        replace(case, judgements=tuple(replace(j, judge="fair") for j in case.judgements))
        for case in fair
    ]
    found = measure_position_bias([*cases, *other])
    assert [(one.judge, one.consistency) for one in found] == [("tested", 0), ("fair", 1)]
