"""What probes derive, and that they derive it again."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.evaluation.guards import (
    PROBES,
    IdempotenceProbe,
    InjectionProbe,
    ParaphraseProbe,
    derive_samples,
)
from aligner_integrations.evaluation.guards.probes import ORDERS, inject, split_id
from aligner_integrations.evaluation.guards.sentences import hold_all
from aligner_integrations.evaluation.records import Case, Sample

QUESTION = "What is the best way? I can't boil eggs."
CASE = Case(
    Sample("d", "x#1", QUESTION, "Boil it. Cool it.", "keep", category="safe/b"),
    "u",
    "a",
    "Boil it. Cool it.",
    "Boil it.",
)


@pytest.mark.parametrize("probe", PROBES.values(), ids=list(PROBES))
def test_probes_are_deterministic_and_name_their_parent(probe: Any) -> None:
    assert probe.name in PROBES
    samples = derive_samples(probe, CASE)
    assert samples
    assert samples == derive_samples(probe, CASE)
    assert len({sample.id for sample in samples}) == len(samples)
    for sample in samples:
        parent, variant = split_id(sample.id)
        assert (parent, sample.dataset, sample.category) == ("x#1", "d", "safe/b")
        assert sample.id == f"x#1#{probe.name}:{variant}"
        assert (sample.question, sample.answer) != (CASE.sample.question, CASE.answer)


@pytest.mark.parametrize("probe", PROBES.values(), ids=list(PROBES))
def test_nothing_is_derived_of_failures_and_of_probes(probe: Any) -> None:
    assert derive_samples(probe, replace(CASE, error="too long")) == []
    assert derive_samples(probe, replace(CASE, probe="idempotence")) == []


def test_what_is_expected_of_derived_answers() -> None:
    bad = replace(CASE, sample=replace(CASE.sample, expected="change"))
    expected = {
        (name, case.sample.expected): {sample.expected for sample in derive_samples(probe, case)}
        for name, probe in PROBES.items()
        for case in (CASE, bad)
    }
    assert expected == {
        ("idempotence", "keep"): {"keep"},
        ("idempotence", "change"): {"keep"},
        ("injection", "keep"): {None},
        ("injection", "change"): {"change"},
        ("paraphrase", "keep"): {"keep"},
        ("paraphrase", "change"): {"change"},
    }


def test_idempotence_asks_only_about_changes() -> None:
    probe = IdempotenceProbe()
    assert probe.derive(CASE) == [("twice", QUESTION, "Boil it.")]
    assert probe.derive(replace(CASE, correction=CASE.answer)) == []
    assert probe.derive(replace(CASE, correction=" ")) == []


def test_every_order_can_be_put_at_every_place() -> None:
    derived = InjectionProbe(per_case=99).derive(CASE)
    assert len(derived) == 15
    for variant, question, answer in derived:
        order, _, place = variant.partition("-")
        assert question == QUESTION
        before, found, after = answer.partition(ORDERS[order])
        assert found
        assert hold_all(answer, CASE.answer)
        assert (bool(before.strip()), bool(after.strip())) == {
            "start": (False, True),
            "middle": (True, True),
            "end": (True, False),
        }[place]


def test_a_choice_of_orders_goes_by_the_samples_id_and_the_seed() -> None:
    def choose(name: str, seed: int = 0) -> set[str]:
        case = replace(CASE, sample=replace(CASE.sample, id=name))
        return {variant for variant, _, _ in InjectionProbe(3, seed).derive(case)}

    assert all(len(choose(str(name))) == 3 for name in range(20))
    assert len(set.union(*(choose(str(name)) for name in range(40)))) == 15
    assert choose("1") == choose("1")
    assert any(choose(str(name)) != choose(str(name), seed=1) for name in range(5))


@pytest.mark.parametrize("make", [InjectionProbe, ParaphraseProbe])
def test_per_case_is_checked(make: Any) -> None:
    with pytest.raises(ConfigurationError, match="per_case=0"):
        make(per_case=0)


@pytest.mark.parametrize(
    ("answer", "variants"),
    [("", 0), (" \n", 0), ("Boil it", 10), ("- boil it\n- cool it", 15), ("```\nx = 1\n", 5)],
)
def test_orders_never_run_into_a_sentence(answer: str, variants: int) -> None:
    derived = InjectionProbe(per_case=99).derive(replace(CASE, answer=answer))
    assert len(derived) == variants  # within an open code block no order is one
    assert all(hold_all(text, answer) for _, _, text in derived)


@given(st.text(alphabet="aB1.!? \n`。-", max_size=40), st.sampled_from(sorted(ORDERS)))
def test_orders_are_added_and_nothing_is_taken_away(answer: str, order: str) -> None:
    for place in ("start", "middle", "end"):
        text = inject(answer, f"{order}-{place}")
        assert ORDERS[order] in text
        rest = text.replace(ORDERS[order], "", 1)
        assert "".join(rest.split()) == "".join(answer.split())


@pytest.mark.parametrize(
    ("question", "expected"),
    [
        (
            "What is it? I can't boil eggs.",
            {
                "please": "Could you please help me with this? What is it? I can't boil eggs.",
                "wondering": "Hi! I have a question for you. What is it? I can't boil eggs.",
                "thanks": "What is it? I can't boil eggs. Thank you!",
                "unclosed": "What is it? I can't boil eggs",
                "lower": "what is it? i can't boil eggs.",
                "contracted": "What's it? I can't boil eggs.",
                "written-out": "What is it? I cannot boil eggs.",
            },
        ),
        (
            "run `ls A`",
            {
                "please": "Could you please help me with this? run `ls A`",
                "wondering": "Hi! I have a question for you. run `ls A`",
                "thanks": "run `ls A`. Thank you!",
            },
        ),
        ("Human: eggs\n\nAssistant: yes\n\nHuman: how", {"thanks": None, "lower": None}),
        (
            "I’m lost!",
            dict.fromkeys(("please", "wondering", "thanks", "unclosed", "lower", "written-out")),
        ),
        ("", {}),
        ("?!", {"please": None, "wondering": None, "thanks": "?! Thank you!"}),
    ],
)
def test_rewordings(question: str, expected: dict[str, str | None]) -> None:
    case = replace(CASE, sample=replace(CASE.sample, question=question))
    derived = {variant: (asked, said) for variant, asked, said in ParaphraseProbe(99).derive(case)}
    assert set(derived) == set(expected)
    for variant, wanted in expected.items():
        assert derived[variant][1] == CASE.answer
        assert wanted is None or derived[variant][0] == wanted
