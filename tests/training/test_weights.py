"""Weights: copied tokens weigh 1, changed ones more, departures most."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations.training.config import LossConfig
from aligner_integrations.training.weights import weigh_tokens

LOSS = LossConfig(changed=2, departure=4)
END = 99
tokens = st.lists(st.integers(0, 5), max_size=12).map(lambda ids: [*ids, END])


@pytest.mark.parametrize(
    ("answer", "correction", "weights"),
    [
        ([1, 2, END], [1, 2, END], [1, 1, 1]),
        ([1, 2, 3, END], [1, 5, 6, 3, END], [1, 4, 2, 1, 1]),  # replaced by two
        ([1, 2, 3, 4, END], [1, 4, END], [1, 4, 1]),  # left out: the token behind
        ([1, 2, END], [1, END], [1, 4]),  # the end, where the answer goes on
        ([1, END], [1, 7, END], [1, 4, 1]),  # put in
        ([1, 2, END], [8, 9, END], [4, 2, 1]),  # rewritten
        ([END], [7, END], [4, 1]),
    ],
)
def test_weights(answer: list[int], correction: list[int], weights: list[float]) -> None:
    assert weigh_tokens(answer, correction, LOSS) == weights


@given(tokens, tokens)
def test_each_difference_has_a_departure(answer: list[int], correction: list[int]) -> None:
    weights = weigh_tokens(answer, correction, LOSS)
    assert len(weights) == len(correction)
    assert set(weights) <= {1.0, 2.0, 4.0}
    assert (4.0 in weights) == (answer != correction)
    assert weigh_tokens(answer, correction, LossConfig(1, 1)) == [1.0] * len(correction)
