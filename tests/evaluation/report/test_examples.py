"""Which cases are shown, and how."""

from __future__ import annotations

from collections import Counter

import pytest

from aligner_integrations.evaluation.records import Case, Judgement, Sample, Verdict
from aligner_integrations.evaluation.report.examples import choose_examples, rate_case


def make(
    name: str,
    *judgements: Judgement,
    expected: str | None = None,
    dataset: str = "eggs",
    correction: str = "Boil them.",
) -> Case:
    sample = Sample(dataset, name, "Q", expected=expected)  # type: ignore[arg-type]
    return Case(sample, "llm", "smol", "Boil them, fool.", correction, judgements=judgements)


def verdict(
    value: Verdict | None, before: float | None = None, after: float | None = None
) -> Judgement:
    return Judgement("rubric", "helpful", value, before, after)


def test_judges_decide_and_scores_break_ties() -> None:
    cases = [
        make("loss", verdict("loss")),
        make("tie", verdict("tie")),
        make("far", verdict("win", 5.0, 1.0)),  # a cost: less is better, says the verdict
        make("near", verdict("win", 2.0, 1.0)),
        make("half", verdict("win"), verdict("tie")),
        make("failed", Judgement("rubric", "helpful", error="!")),
    ]
    shown = choose_examples(cases, ["smol"])
    names = [(one.group, one.case.sample.id) for one in shown if one.group != "random"]
    assert names == [("best", "far"), ("best", "near"), ("best", "half"), ("worst", "loss")]


def test_rules_count_only_where_there_is_nothing_else() -> None:
    rule = Judgement("rule", "refusal", "loss", heuristic=True)
    assert rate_case(make("1", rule, verdict("win")))[0] == 1.0
    assert rate_case(make("1", rule))[0] == -1.0
    assert rate_case(make("1", verdict(None, 0.0, 9.0))) == (0.0, 0.0)


def test_without_judges_the_expectation_decides() -> None:
    cases = [
        make("missed", expected="change", correction="Boil them, fool."),
        make("fixed", expected="change"),
        make("spoilt", expected="keep", correction="No."),
        make("touched", expected="keep", correction="Boil them, fool!"),
        make("kept", expected="keep", correction="Boil them, fool."),
        make("unknown"),
    ]
    shown = choose_examples(cases, ["smol"])
    names = [(one.group, one.case.sample.id) for one in shown if one.group != "random"]
    assert names == [
        ("best", "fixed"),
        ("worst", "missed"),
        ("worst", "spoilt"),
        ("worst", "touched"),
    ]


def test_datasets_take_turns_and_questions_stand_once() -> None:
    cases = [make(f"a{i}", verdict("win", 0.0, 9.0)) for i in range(9)]
    cases += [make("a0", verdict("win", 0.0, 9.5))]
    cases += [make(f"b{i}", verdict("win", 0.0, 1.0), dataset="tea") for i in range(9)]
    best = [one for one in choose_examples(cases, ["smol"], each=4) if one.group == "best"]
    assert Counter(one.case.sample.dataset for one in best) == {"eggs": 2, "tea": 2}
    assert len({one.case.sample.id for one in best}) == 4


def test_random_ones_are_drawn_by_seed() -> None:
    cases = [make(str(i), verdict("tie")) for i in range(50)]
    drawn = [
        [one.case.sample.id for one in choose_examples(cases, ["smol"], seed=seed)]
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]
    assert len(set(drawn[0])) == 4


def test_long_texts_are_cut_and_it_is_said() -> None:
    sample = Sample("eggs", "1", "Q" * 3_000, expected="change")
    answer, correction = "word " * 9_000, "word " * 8_990 + "end"
    (shown, _) = choose_examples([Case(sample, "llm", "smol", answer, correction)], ["smol"])
    length = sum(len(text) for _, text in shown.runs)
    assert length == 2_000
    assert shown.left_out >= 40_000
    assert len(shown.question) < 1_010


def test_probes_and_failures_are_not_shown() -> None:
    case = make("1", verdict("win"))
    others = [
        Case(case.sample, "llm", "smol", "A", "B", probe="idempotence", judgements=case.judgements),
        Case(case.sample, "llm", "smol", "A", "A", error="!", judgements=case.judgements),
    ]
    assert choose_examples(others, ["smol"]) == []


@pytest.mark.parametrize("orders", [None, "text", [1, {"first": "answer"}], {"a": 1}])
def test_details_of_any_shape_are_survived(orders: object) -> None:
    judged = Judgement("rubric", "helpful", "win", details={"orders": orders, "reason": 3})
    (best, _) = choose_examples([make("1", judged)], ["smol"])
    assert best.reasons == [(judged, [])]
