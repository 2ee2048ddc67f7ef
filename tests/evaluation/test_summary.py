"""Known verdicts give known tables."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence

import pytest

from aligner_integrations.evaluation.averages import Average
from aligner_integrations.evaluation.grid import Cell
from aligner_integrations.evaluation.guards import GuardMetric
from aligner_integrations.evaluation.judges.bias import PositionBias
from aligner_integrations.evaluation.records import Case, Judgement, Sample, Verdict
from aligner_integrations.evaluation.summary import Summary, pool_guards, summarise

VERDICTS: dict[str, Verdict] = {"w": "win", "t": "tie", "l": "loss"}


def judge(
    letters: str,
    upstream: str = "llm",
    aligner: str = "smol",
    dataset: str = "eggs",
    dimension: str = "helpful",
) -> list[Case]:
    """A case for each letter: win, tie, loss, or x for a judgement that failed."""
    return [
        Case(
            Sample(dataset, str(index), "How long?"),
            upstream,
            aligner,
            "Boil them for 3 h.",
            "Boil them for 3 minutes.",
            judgements=(
                Judgement(
                    "rubric", dimension, VERDICTS.get(letter), error="!" if letter == "x" else None
                ),
            ),
        )
        for index, letter in enumerate(letters)
    ]


def score(pairs: Sequence[tuple[float, float]], verdict: Verdict | None = None) -> list[Case]:
    return [
        Case(
            Sample("eggs", str(index), "Q"),
            "llm",
            "smol",
            "A",
            "B",
            judgements=(Judgement("cost", "harmless", verdict, before, after, heuristic=True),),
        )
        for index, (before, after) in enumerate(pairs)
    ]


def only(summary: Summary) -> Cell:
    (cell,) = summary.cells
    return cell


def find(summary: Summary, dataset: str | None, aligner: str = "smol") -> Average:
    (one,) = [a for a in summary.averages if (a.dataset, a.aligner) == (dataset, aligner)]
    return one


def test_a_cell_by_hand() -> None:
    cell = only(summarise(judge("w" * 8 + "t" * 8 + "l" * 2 + "xx")))
    assert (cell.wins, cell.ties, cell.losses, cell.failed) == (8, 8, 2, 2)
    assert cell.net == pytest.approx(100 * 6 / 18)
    assert cell.test == "sign"
    assert cell.p == cell.p_holm == pytest.approx(112 / 1024)
    assert cell.low is not None
    assert cell.high is not None
    assert 0 <= cell.low < cell.net < cell.high <= 100
    assert cell.place == ("llm", "smol", "eggs", "rubric", "helpful")


def test_the_grid_and_holm_over_all_of_it() -> None:
    cases = [
        *judge("w" * 10, "b"),  # p = 2 / 1024
        *judge("w" * 8, "a"),  # p = 2 / 256
        *judge("w" * 8 + "l" * 2, "a", dataset="tea"),  # p = 112 / 1024
        *judge("t" * 30, "a", aligner="none"),  # no test
    ]
    summary = summarise(cases)
    found = {(c.upstream, c.aligner, c.dataset): c for c in summary.cells}
    assert [*found] == [
        ("b", "smol", "eggs"),
        ("a", "smol", "eggs"),
        ("a", "none", "eggs"),
        ("a", "smol", "tea"),
    ]
    assert found["b", "smol", "eggs"].p_holm == pytest.approx(3 * 2 / 1024)
    assert found["a", "smol", "eggs"].p_holm == pytest.approx(2 * 2 / 256)
    assert found["a", "smol", "tea"].p_holm == pytest.approx(112 / 1024)
    none = found["a", "none", "eggs"]
    assert (none.net, none.p, none.p_holm) == (0.0, None, None)
    assert summary.upstreams == ("b", "a")
    assert summary.aligners == ("smol", "none")
    assert summary.datasets == ("eggs", "tea")


def test_dimensions_stand_as_in_the_paper() -> None:
    cases = [case for d in ("wit", "honest", "helpful") for case in judge("w", dimension=d)]
    assert [c.dimension for c in summarise(cases).cells] == ["helpful", "honest", "wit"]


def test_orders_that_disagree_are_counted() -> None:
    orders = [{"first": "answer"}, {"first": "correction"}]
    details = [
        {"orders": orders, "disagreement": True},
        {"orders": orders, "disagreement": False},
        {"orders": orders[:1], "disagreement": False},  # asked once: it can't know
        {"identical": True},
    ]
    cases = [
        Case(
            Sample("eggs", str(index), "Q"),
            "llm",
            "smol",
            "A",
            "B",
            judgements=(Judgement("rubric", "honest", "tie", details=one),),
        )
        for index, one in enumerate(details)
    ]
    cell = only(summarise(cases))
    assert (cell.disagreements, cell.swapped, cell.ties) == (1, 2, 4)


def test_scores_and_what_cannot_be_averaged() -> None:
    cell = only(summarise(score([(1.0, 3.0), (2.0, 3.0), (math.nan, 1.0), (0.0, math.inf)])))
    assert (cell.scored, cell.before, cell.after, cell.change) == (2, 1.5, 3.0, 1.5)
    assert (cell.net, cell.p, cell.test, cell.total) == (None, None, None, 0)
    assert cell.change_low == 1.0
    assert cell.change_high == 2.0
    assert cell.heuristic


def test_yes_and_no_get_mcnemars_test() -> None:
    pairs = [(1.0, 0.0)] * 6 + [(0.0, 1.0)] + [(1.0, 1.0)] * 5
    cell = only(summarise(score(pairs)))
    assert cell.test == "mcnemar"
    assert cell.p == pytest.approx(16 / 128)
    judged = only(summarise(score(pairs, "win")))
    assert judged.test == "sign"
    still = only(summarise(score([(1.0, 1.0), (0.0, 0.0)])))
    assert (still.test, still.p) == ("mcnemar", None)


def test_probes_count_nowhere() -> None:
    cases = judge("wl")
    probe = Case(
        cases[0].sample,
        "ghost",
        "smol",
        "A",
        "B",
        probe="idempotence",
        judgements=cases[0].judgements,
    )
    assert summarise([*cases, probe]).to_dict() == summarise(cases).to_dict() | {"probes": 1}


def test_costs_by_hand() -> None:
    sample = Sample("eggs", "1", "Q")
    cases = [
        Case(sample, "llm", "smol", "abcd", "abcd", seconds=1.0),
        Case(sample, "llm", "smol", "abcd", "ab", seconds=2.0),
        Case(sample, "llm", "smol", "abcd", "abcdabcd", seconds=4.0),
        Case(sample, "llm", "smol", "   ", "   ", seconds=3.0),
        Case(sample, "llm", "smol", "abcd", "abcd", seconds=99.0, error="TimeoutError"),
    ]
    (cost,) = summarise(cases).costs
    assert (cost.corrections, cost.failures, cost.changed, cost.copies) == (4, 1, 2, 2)
    assert cost.changed_share == 0.5
    assert cost.seconds == 2.5
    assert cost.seconds_p95 == pytest.approx(3.85)
    assert cost.length == (0.75, 1.0, 1.5)  # of 0.5, 1 and 2
    assert cost.similarity == pytest.approx((2 / 3, 5 / 6, 1.0))  # of 2/3, 2/3, 1 and 1


def test_averages_weigh_cells_alike() -> None:
    cases = [*judge("wwww", "a"), *judge("wl" * 10, "b"), *judge("l" * 4, "a", dataset="tea")]
    summary = summarise(cases)
    eggs = find(summary, "eggs")
    assert (eggs.net, eggs.win, eggs.loss) == pytest.approx((50.0, 75.0, 25.0))
    assert (eggs.cells, eggs.samples, eggs.verdicts) == (2, 20, 24)
    both = find(summary, None)
    assert both.net == pytest.approx((100 + 0 - 100) / 3)
    assert both.cells == 3
    assert both.low < both.net < both.high
    tea = find(summary, "tea")
    assert (tea.loss, tea.loss_high) == (100.0, pytest.approx(100.0))
    assert tea.high > -100  # four equal verdicts are no certainty
    assert tea.win_high > 40


def test_upstreams_that_fail_together_are_no_more_evidence() -> None:
    letters = "wwtlwtwwlt" * 6
    one = find(summarise(judge(letters, "a")), "eggs")
    copies = [case for name in "abcdef" for case in judge(letters, name)]
    six = find(summarise(copies), "eggs")
    assert six.high - six.low == pytest.approx(one.high - one.low, abs=0.01)
    shifted = [
        case
        for shift, name in enumerate("abcdef")
        for case in judge(letters[shift:] + letters[:shift], name)
    ]
    apart = find(summarise(shifted), "eggs")
    assert apart.high - apart.low < 0.8 * (one.high - one.low)


def test_average_of_one_upstream_agrees_with_its_cell() -> None:
    summary = summarise(judge("wwtlwtwwlt" * 10))
    cell, average = only(summary), find(summary, "eggs")
    assert average.net == pytest.approx(cell.net)
    assert average.low == pytest.approx(cell.low, abs=2.5)
    assert average.high == pytest.approx(cell.high, abs=2.5)


def test_guards_get_wilsons_intervals() -> None:
    metrics = [
        GuardMetric("a", "smol", "eggs", "over-correction", 1, 10, "low", False, "Changed."),
        GuardMetric("b", "smol", "eggs", "over-correction", 3, 10, "low", False, "Changed."),
        GuardMetric("a", "smol", "eggs", "idempotence", 0, 0, "high", True, "Same twice."),
    ]
    summary = summarise(judge("w"), guards=metrics)
    first, _, nothing = summary.guards
    assert first.share == 0.1
    assert (first.low, first.high) == pytest.approx((0.0179, 0.4042), abs=1e-4)
    assert (nothing.share, nothing.low, nothing.better, nothing.heuristic) == (
        None,
        None,
        "high",
        True,
    )
    pooled, empty = pool_guards(summary.guards, 0.95)
    assert (pooled.hits, pooled.total, pooled.share, pooled.upstream) == (4, 20, 0.2, "")
    assert empty.share is None


def test_json_is_strict_whatever_comes_in() -> None:
    bias = PositionBias("rubric", "honest", 9, 0.9, (0.5, 1), None, 0, 0, (0, 1), 1.0)
    lone = judge("w", upstream="\ud800")
    summary = summarise([*lone, *score([(math.nan, math.inf)])], bias=[bias])

    def refuse(name: str) -> None:
        raise AssertionError(name)

    read = json.loads(summary.to_json(), parse_constant=refuse)
    assert read["upstreams"] == ["\ud800", "llm"]
    assert read["bias"][0]["first_share"] is None
    assert read["cells"][0]["wins"] == 1
    assert (
        summary.to_json()
        == summarise([*lone, *score([(math.nan, math.inf)])], bias=[bias]).to_json()
    )


def test_nothing_and_one() -> None:
    nothing = summarise([])
    assert (nothing.cells, nothing.averages, nothing.costs, nothing.cases) == ((), (), (), 0)
    json.loads(nothing.to_json())
    one = summarise(judge("w"))
    cell = only(one)
    assert (cell.net, cell.p, cell.high) == (100.0, 1.0, 100.0)
    assert cell.low is not None
    assert cell.low < 0  # one win proves nothing
    assert one.costs[0].seconds_low is None
    failed = only(summarise(judge("x")))
    assert (failed.net, failed.low, failed.p, failed.failed) == (None, None, None, 1)
