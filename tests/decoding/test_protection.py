"""Protected tokens are copied, whatever the model would write, and alike in every decoder."""

from __future__ import annotations

import copy
import functools
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from aligner_integrations.decoding import exact, plain
from aligner_integrations.decoding.exact import Exactness, find_exactness
from aligner_integrations.decoding.packed import PackedModel, pack
from aligner_integrations.decoding.protection import Protection, Span
from aligner_integrations.decoding.rows import Row
from aligner_integrations.decoding.sampling import Sampler
from aligner_integrations.decoding.speculative import Decoder
from tests.tiny import make_model

STOP = 2
SOURCE = [10, 11, 12, 13, 14, 15, 16, 17, 18, 19]
SAMPLING = {"temperature": 1.0, "top_p": 0.95, "seed": 5}


def follow(source: list[int], spans: list[Span], wanted: Sequence[int]) -> list[int]:
    """The output of a model that writes ``wanted``, token by token, whatever was forced on it."""
    row = Row([1], source, frozenset({STOP}), 99, Sampler())
    row.protection = Protection(source, spans)
    for token in [*wanted, STOP, STOP, STOP, STOP]:
        row.append(*row.decide(token, 1.0))
        if row.stop_reason:
            break
    return row.output


@pytest.mark.parametrize(
    ("spans", "wanted", "output"),
    [
        ([], [10, 11, 50], [10, 11, 50]),
        ([(2, 4)], SOURCE, SOURCE),
        # At a span's start behind a copy: all of it, in place of what the model wants.
        ([(2, 4)], [10, 11, 50, 51, 52], [10, 11, 12, 13, 52]),
        ([(2, 3)], [10, 11, 13, 14], [10, 11, 12, 14]),
        # The end may not come there.
        ([(2, 4)], [10, 11, STOP], [10, 11, 12, 13]),
        ([(2, 4)], [10, 11, 12, STOP], [10, 11, 12, 13]),
        ([(4, 6)], [10, 11, 12, STOP], [10, 11, 12]),
        # At the answer's very start.
        ([(0, 2)], [50, 51, 52], [10, 11, 52]),
        ([(1, 2)], [10, 50], [10, 11]),
        # Entered in its middle, once the output has begun to copy it.
        ([(4, 8)], [50, 51, 52, 14, 15, 60, 61], [50, 51, 52, 14, 15, 16, 17]),
        ([(4, 8)], [50, 51, 52, 14, 60, 61], [50, 51, 52, 14, 60, 61]),
        # One copied token is no copy.
        ([(5, 6)], [50, 51, 52, 53, 14, 60], [50, 51, 52, 53, 14, 60]),
        ([(5, 6)], [50, 51, 52, 13, 14, 60], [50, 51, 52, 13, 14, 15]),
        # A rewrite is not held up.
        ([(2, 4), (6, 8)], [50, 51, 52, 53, 54], [50, 51, 52, 53, 54]),
        ([(2, 4)], [10, 50, 51, 52, 53], [10, 50, 51, 52, 53]),
        # Left before one span, back before the next.
        ([(2, 4), (7, 8)], [10, 50, 51, 15, 16, 60], [10, 50, 51, 15, 16, 17]),
        # Neighbours.
        ([(2, 3), (3, 4)], [10, 11, 50, 51, 52], [10, 11, 12, 13, 52]),
        # Up to the end of the answer, and no further.
        ([(8, 10)], [*SOURCE[:8], 50, 51, 52], [*SOURCE, 52]),
        # Once only: an output that goes round in circles goes on as the model wants.
        ([(2, 3)], [10, 11, 50, 10, 11, 50, 10, 11, 50], [10, 11, 12, 10, 11, 50, 10, 11, 50]),
    ],
)
def test_what_is_forced(spans: list[Span], wanted: list[int], output: list[int]) -> None:
    assert follow(SOURCE, spans, wanted) == output


def test_equal_spans_are_forced_each_in_its_place() -> None:
    source = [10, 11, 7, 12, 13, 7, 14]
    assert follow(source, [(2, 3), (5, 6)], [10, 11, 50, 12, 13, 51, 14]) == source


def test_asking_twice_changes_nothing() -> None:
    protection = Protection(SOURCE, [(1, 3)])
    protection.follow(10)
    assert [protection.demand(), protection.demand()] == [11, 11]
    protection.follow(11)
    assert protection.demand() == 12
    protection.follow(12)
    assert protection.demand() is None
    assert protection.restart().demand() is None


def test_a_forced_token_is_no_near_tie() -> None:
    row = Row([1], SOURCE, frozenset({STOP}), 9, Sampler(), protection=Protection(SOURCE, [(0, 1)]))
    assert row.decide(50, 0.0) == (10, float("inf"))
    row.append(*row.decide(50, 0.0), near_tie=1.0)
    assert (row.near_ties, row.output) == (0, [10])


@functools.cache
def load(architecture: str = "llama", dtype: torch.dtype = torch.float32) -> PackedModel:
    model: PreTrainedModel = make_model(architecture).to(dtype)
    packed = pack(copy.deepcopy(model))
    assert packed is not None
    return packed


@functools.cache
def find_fastest() -> Exactness:
    return find_exactness(load())


def make_row(prompt: list[int], draft: list[int], spans: list[Span] | None, **more: Any) -> Row:
    sampler = Sampler(**more.pop("sampling", {}))
    protection = None if spans is None else Protection(draft, spans)
    return Row(
        prompt,
        draft,
        frozenset({STOP}),
        16,
        sampler,
        protection=protection,
        **{"exact": False, **more},
    )


def write_plain(model: PackedModel, rows: list[Row]) -> list[list[int]]:
    for _ in plain.decode(model.model, rows):
        pass
    return [row.output for row in rows]


def write_surely(model: PackedModel, rows: list[Row]) -> list[list[int]]:
    """`write_plain`, where rounding decides nothing."""
    output = write_plain(model, rows)
    assume(not any(row.near_ties for row in rows))
    return output


def write(model: PackedModel, rows: list[Row]) -> list[list[int]]:
    decoder = Decoder(model)
    for row in rows:
        decoder.add(row)
    while any(row.stop_reason is None for row in rows):
        decoder.step()
    return [row.output for row in rows]


@st.composite
def tasks(draw: st.DrawFn) -> tuple[list[int], list[int], list[Span], dict[str, Any]]:
    """A prompt, an answer that the output copies but for changes, its spans, and sampling."""
    ids = st.integers(3, 90)
    prompt = draw(st.lists(ids, min_size=1, max_size=12))
    sampling = draw(st.sampled_from([{}, SAMPLING]))
    (draft,) = write_plain(load(), [make_row(prompt, [], None, sampling=sampling)])
    draft = draft[: draw(st.integers(0, len(draft)))] + draw(st.lists(ids, max_size=3))
    for _ in range(draw(st.integers(0, 2))):  # what the model would not copy
        at = draw(st.integers(0, len(draft)))
        draft[at : at + draw(st.integers(0, 2))] = draw(st.lists(ids, min_size=1, max_size=3))
    cuts = sorted(draw(st.sets(st.integers(0, len(draft)), max_size=6)))
    spans = list(zip(cuts[::2], cuts[1::2], strict=False))
    return prompt, draft, spans, sampling


@given(task=tasks())
@settings(max_examples=15)
def test_every_decoder_writes_the_same(task: Any) -> None:
    prompt, draft, spans, sampling = task
    model = load()
    (wanted,) = write_surely(model, [make_row(prompt, draft, spans, sampling=sampling)])
    assert write(model, [make_row(prompt, draft, spans, sampling=sampling)]) == [wanted]
    ways: list[Exactness] = ["replay", "plain"]
    fastest = find_fastest()
    for way in [fastest, *ways[ways.index(fastest) if fastest in ways else 0 :]]:
        exact._found[model] = way
        row = make_row(prompt, draft, spans, sampling=sampling, exact=True)
        assert write(model, [row]) == [wanted], way


@given(st.lists(tasks(), min_size=2, max_size=4))
@settings(max_examples=8)
def test_a_batch_is_what_each_row_writes_alone(several: Any) -> None:
    model = load()

    def rows() -> list[Row]:
        return [make_row(p, d, s, sampling=sampling) for p, d, s, sampling in several]

    alone = [write_surely(model, [row])[0] for row in rows()]
    assert write_plain(model, rows()) == alone
    assert write(model, rows()) == alone


@given(task=tasks())
@settings(max_examples=10)
def test_without_spans_nothing_changes(task: Any) -> None:
    prompt, draft, _, sampling = task
    model = load()
    (wanted,) = write_surely(model, [make_row(prompt, draft, None, sampling=sampling)])
    for spans in (None, []):
        row = make_row(prompt, draft, spans, sampling=sampling)
        assert write(model, [row]) == [wanted]


@pytest.mark.parametrize("sampling", [{}, SAMPLING])
def test_a_changed_token_is_forced_in_a_running_model(sampling: dict[str, Any]) -> None:
    """The answer is the model's own text with one token changed, which it would change back."""
    model, prompt = load(), [5, 6, 7]
    (own,) = write_plain(model, [make_row(prompt, [], None, sampling=sampling)])
    assert len(own) > 8
    draft = [*own[:4], 91, *own[5:]]
    assert write(model, [make_row(prompt, draft, None, sampling=sampling)]) == [own]
    (kept,) = write(model, [make_row(prompt, draft, [(4, 5)], sampling=sampling)])
    assert kept[:5] == draft[:5]
    # Up to the answer's end, where the model would have gone on or ended elsewhere.
    (kept,) = write(model, [make_row(prompt, draft, [(4, len(draft))], sampling=sampling)])
    assert kept[: len(draft)] == draft


def test_a_row_goes_on_elsewhere_with_its_protection() -> None:
    """After a failure each row goes on in a new decoder, in the midst of a span or not."""
    model, prompt = load(), [5, 6, 7]
    (own,) = write_plain(model, [make_row(prompt, [], None)])
    draft = [*own[:4], 91, 92, 93, *own[7:]]
    (wanted,) = write_plain(model, [make_row(prompt, draft, [(4, 7)])])
    for steps in range(1, 8):
        for exactly, later in ((False, Decoder), (True, Decoder)):
            row = make_row(prompt, draft, [(4, 7)])
            start = plain.decode(model.model, [row])
            for _ in range(steps):
                next(start, None)
            row.exact = exactly
            exact._found[model] = "plain"
            decoder = later(model)
            decoder.add(row)
            while row.stop_reason is None:
                decoder.step()
            assert row.output == wanted
