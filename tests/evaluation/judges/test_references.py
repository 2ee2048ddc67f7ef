from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.evaluation.judges import ReferenceJudge
from aligner_integrations.evaluation.judges.margins import find_verdict
from aligner_integrations.evaluation.judges.references import (
    compute_rouge_l,
    compute_token_f1,
    is_exact_match,
    split_words,
)
from aligner_integrations.evaluation.records import make_key
from tests.evaluation.judges.cases import judge_all, make_case

GOOD = ("The Nile flows north.", "It flows to the sea in the north.")
WRONG = ("The Nile flows south.",)
words = st.lists(st.sampled_from("abcd"), max_size=8).map(" ".join)


def find_longest_common(one: list[str], other: list[str]) -> int:
    """By the textbook."""
    table = [[0] * (len(other) + 1) for _ in range(len(one) + 1)]
    for i, a in enumerate(one):
        for j, b in enumerate(other):
            same = table[i][j] + 1 if a == b else 0
            table[i + 1][j + 1] = max(same, table[i][j + 1], table[i + 1][j])
    return table[-1][-1]


@given(words, words)
def test_overlaps_are_the_textbooks(one: str, other: str) -> None:
    a, b = one.split(), other.split()
    total = len(a) + len(b)
    common = sum(min(Counter(a)[w], Counter(b)[w]) for w in "abcd")
    assert compute_token_f1(one, other) == pytest.approx(2 * common / total if total else 0)
    longest = find_longest_common(a, b)
    assert compute_rouge_l(one, other) == pytest.approx(2 * longest / total if total else 0)
    assert compute_rouge_l(one, other) <= compute_token_f1(one, other) + 1e-12


def test_words_are_found_in_any_script() -> None:
    assert split_words("Straße, ＡＢＣ_d!") == ["strasse", "abc", "d"]
    assert split_words("水是wet") == ["水", "是", "wet"]


@pytest.mark.parametrize(
    ("text", "same"),
    [("nile", True), ("The Nile!", True), ("River nile", False), ("", False), ("the", False)],
)
def test_exact_match(text: str, same: bool) -> None:
    assert is_exact_match(text, ["Amazon", "The Nile"]) is same
    assert not is_exact_match(text, [])


def test_a_correction_nearer_to_the_truth_wins() -> None:
    case = make_case(WRONG[0], GOOD[0], references=GOOD, wrong=WRONG)
    overlap, exact = judge_all(ReferenceJudge(), [case])[0]
    assert (overlap.verdict, exact.verdict) == ("win", "win")
    assert [overlap.before, overlap.after] == pytest.approx([-0.25, 0.25])
    assert overlap.details["after"] == {"reference": 1, "wrong": 0.75}
    assert (exact.before, exact.after) == (0, 1)


def test_a_correction_away_from_the_truth_loses() -> None:
    case = make_case(GOOD[1], WRONG[0], references=GOOD, wrong=WRONG)
    assert [one.verdict for one in judge_all(ReferenceJudge(), [case])[0]] == ["loss", "loss"]


def test_a_small_step_is_a_tie_by_the_margin() -> None:
    case = make_case("The Nile flows.", GOOD[0], references=GOOD)
    judgement = judge_all(ReferenceJudge(), [case])[0][0]
    assert judgement.before is not None
    assert judgement.after is not None
    gain = judgement.after - judgement.before
    assert judgement.verdict == "win"
    assert judge_all(ReferenceJudge(margin=gain + 1e-9), [case])[0][0].verdict == "tie"
    assert judge_all(ReferenceJudge(margin=gain - 1e-9), [case])[0][0].verdict == "win"


def test_order_counts_for_rouge_alone() -> None:
    case = make_case("north flows Nile the", GOOD[0], references=GOOD)
    assert judge_all(ReferenceJudge("rouge-l"), [case])[0][0].verdict == "win"
    assert judge_all(ReferenceJudge("token-f1"), [case])[0][0].verdict == "tie"


def test_a_sample_without_references_is_an_error_and_stops_no_other() -> None:
    cases = [make_case("a", "b"), make_case("a", "b", references=("b",))]
    failed, judged = judge_all(ReferenceJudge(), cases)
    for one in failed:
        assert (one.verdict, one.before) == (None, None)
        assert one.error is not None
        assert "'1' of 'made' has no references" in one.error
    assert judged[0].verdict == "win"


@given(st.floats(-5, 5), st.floats(-5, 5), st.floats(0, 2))
def test_verdicts_turn_with_the_scores(before: float, after: float, margin: float) -> None:
    turned = {"win": "loss", "loss": "win", "tie": "tie"}
    verdict = find_verdict(before, after, margin=margin)
    assert verdict == turned[find_verdict(after, before, margin=margin)]
    assert verdict == turned[find_verdict(before, after, margin=margin, lower_is_better=True)]
    assert (verdict == "tie") == (abs(after - before) <= margin)
    assert find_verdict(before, before) == "tie"


def test_what_cannot_work_is_said() -> None:
    with pytest.raises(ConfigurationError, match="bleu"):
        ReferenceJudge("bleu")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="margin"):
        ReferenceJudge(margin=-1)


def test_identities_differ() -> None:
    judges = [ReferenceJudge(), ReferenceJudge("token-f1"), ReferenceJudge(margin=0.1)]
    assert len({make_key(judge.identity) for judge in judges}) == 3
