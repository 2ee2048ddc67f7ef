"""The cases are what their names say."""

from __future__ import annotations

import pytest
from rapidfuzz.distance import LCSseq

from aligner_integrations import Aligner
from aligner_integrations.benchmarking.cases import Case, CaseMaker, make_cases
from aligner_integrations.engines.local import LocalEngine


@pytest.fixture(scope="module")
def maker(aligner: Aligner) -> CaseMaker:
    assert isinstance(aligner.engine, LocalEngine)
    return CaseMaker(aligner.engine.loaded.encoder)


def kept(case: Case) -> float:
    """Share of the correction's tokens that are copied in order."""
    return LCSseq.similarity(case.draft, case.target) / len(case.target)


@pytest.mark.parametrize("tokens", [60, 200, 500])
def test_identical(maker: CaseMaker, tokens: int) -> None:
    case = maker.identical(tokens)
    assert case.target == case.draft
    assert abs(len(case.target) - tokens) <= 2
    assert len(case.prompt) > len(case.draft)


@pytest.mark.parametrize(("share", "least", "most"), [(0.01, 0.97, 1), (0.05, 0.9, 0.99)])
def test_edited(maker: CaseMaker, share: float, least: float, most: float) -> None:
    cases = [maker.edited(share) for _ in range(10)]
    assert least <= sum(map(kept, cases)) / 10 < most
    assert all(case.target != case.draft for case in cases)


def test_other_kinds(maker: CaseMaker) -> None:
    beginning, removed, rewritten = maker.new_beginning(), maker.removed(), maker.rewritten()
    assert beginning.target[-40:] == beginning.draft[-40:]
    assert beginning.target[:4] != beginning.draft[:4]
    assert kept(removed) == 1
    assert len(removed.target) < len(removed.draft)
    assert kept(rewritten) < 0.5


def test_mix_has_its_shares(maker: CaseMaker) -> None:
    cases = maker.mix(100)
    identical = sum(case.target == case.draft for case in cases)
    rewritten = sum(kept(case) < 0.6 for case in cases)
    assert identical == 90
    assert rewritten == 3
    lengths = [len(case.target) for case in cases]
    assert 35 <= min(lengths) < 60
    assert 180 < max(lengths) <= 260


def test_equal_seeds_make_equal_cases(aligner: Aligner) -> None:
    assert isinstance(aligner.engine, LocalEngine)
    encoder = aligner.engine.loaded.encoder
    one, same, other = (
        [case.target for row in make_cases(CaseMaker(encoder, seed), 1, (60,), 80) for case in row]
        for seed in (1, 1, 2)
    )
    assert one == same != other
    assert len(one) == 7
