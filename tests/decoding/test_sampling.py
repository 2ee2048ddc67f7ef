from __future__ import annotations

from collections import Counter

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations.decoding.sampling import Sampler

LOGITS = torch.log(torch.tensor([0.1, 0.4, 0.2, 0.3]))


def test_greedy_takes_the_likeliest() -> None:
    assert Sampler().choose(LOGITS) == 1
    assert Sampler(temperature=0, top_p=0.1, seed=3).choose(LOGITS) == 1


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (1.0, [0.1, 0.4, 0.2, 0.3]),
        (0.95, [0.1, 0.4, 0.2, 0.3]),
        (0.8, [0, 4 / 9, 2 / 9, 3 / 9]),
        (0.69, [0, 4 / 7, 0, 3 / 7]),
        (0.39, [0, 1, 0, 0]),
        (1e-9, [0, 1, 0, 0]),
    ],
)
def test_nucleus_is_the_smallest_set_that_reaches_top_p(
    top_p: float, expected: list[float]
) -> None:
    probabilities = Sampler(1.0, top_p, 0).probabilities(LOGITS)
    assert probabilities.tolist() == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_temperature_divides_the_logits(temperature: float) -> None:
    logits = torch.tensor([0.0, 1.0, -2.0])
    expected = torch.softmax(logits / temperature, 0)
    assert torch.allclose(Sampler(temperature, seed=0).probabilities(logits), expected)


@given(
    logits=st.lists(st.floats(-20, 20), min_size=1, max_size=20),
    top_p=st.floats(0, 1, exclude_min=True),
    temperature=st.floats(0.05, 10),
)
def test_distribution_is_one_for_any_logits(
    logits: list[float], top_p: float, temperature: float
) -> None:
    full = torch.softmax(torch.tensor(logits) / temperature, 0)
    kept = Sampler(temperature, top_p, 0).probabilities(torch.tensor(logits))
    assert kept.sum().item() == pytest.approx(1, abs=1e-5)
    assert full[kept > 0].max() == full.max()
    assert full[kept > 0].sum().item() >= top_p - 1e-4
    if (kept == 0).any():
        assert full[kept == 0].max() <= full[kept > 0].min()


def test_draws_follow_the_distribution() -> None:
    sampler = Sampler(temperature=1.0, top_p=0.8, seed=1)
    drawn = Counter(sampler.choose(LOGITS) for _ in range(3000))
    assert drawn[0] == 0
    assert drawn[1] / 3000 == pytest.approx(4 / 9, abs=0.04)
    assert drawn[3] / 3000 == pytest.approx(3 / 9, abs=0.04)


def test_seed_gives_the_same_draws_whatever_else_is_drawn() -> None:
    def draw(seed: int | None) -> list[int]:
        sampler = Sampler(1.0, 1.0, seed)
        return [sampler.choose(LOGITS) for _ in range(40)]

    first = draw(7)
    torch.rand(3)
    assert draw(7) == first
    assert draw(8) != first
    assert draw(None) != draw(None)


def test_sampling_leaves_torchs_own_random_numbers_alone() -> None:
    torch.manual_seed(0)
    expected = torch.rand(2)
    torch.manual_seed(0)
    Sampler(1.0, 0.9, 5).choose(LOGITS)
    assert torch.equal(torch.rand(2), expected)


def test_logits_stay_as_they_are() -> None:
    logits = LOGITS.clone()
    Sampler(0.7, 0.5, 0).choose(logits)
    assert torch.equal(logits, LOGITS)


def test_half_precision_logits_are_drawn_in_single() -> None:
    assert Sampler(1.0, 0.9, 0).probabilities(LOGITS.bfloat16()).dtype == torch.float32
