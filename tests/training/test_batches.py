"""Batches by tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.training.batches import TokenBatches, fill_batches
from aligner_integrations.training.config import TrainingConfig

lengths = st.lists(st.integers(1, 50), min_size=1, max_size=60)


@given(lengths, st.integers(50, 300))
def test_each_example_comes_once_within_the_budget(lengths: list[int], tokens: int) -> None:
    batches = [*fill_batches(lengths, tokens)]
    assert sorted(index for batch in batches for index in batch) == [*range(len(lengths))]
    assert all(len(batch) * max(lengths[i] for i in batch) <= tokens for batch in batches)


def test_a_longer_example_stands_alone() -> None:
    assert [*fill_batches([5, 90, 5], tokens=20)] == [[0, 2], [1]]


@given(lengths, st.integers(1, 4))
def test_processes_get_equally_many(lengths: list[int], processes: int) -> None:
    batches = TokenBatches(lengths, 60, seed=1, multiple=processes)
    assert len(batches) % processes == 0
    assert {index for batch in batches for index in batch} == {*range(len(lengths))}


def test_epochs_have_orders_of_their_own() -> None:
    def order(epoch: int) -> list[list[int]]:
        batches = TokenBatches([*range(10, 50)], tokens=100, seed=3)
        batches.sampler.set_epoch(epoch)
        return [*batches]

    assert order(0) == order(0)
    assert order(0) != order(1)
    assert sorted(order(0)) == sorted(order(1))


def test_a_budget_below_the_longest_example_is_an_error() -> None:
    data = {"train": ["a.jsonl"], "max_length": 2000}
    with pytest.raises(ConfigurationError, match=r"batch\.tokens=1000 is less than data\.max"):
        TrainingConfig.from_dict(
            {"base": "b", "output": "o", "data": data, "batch": {"tokens": 1000}}
        )
