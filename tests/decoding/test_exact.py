"""Exact rows write what plain decoding writes, to the token, in every dtype and in every way."""

from __future__ import annotations

import functools
import random
from collections.abc import Sequence
from typing import Any, get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import DynamicCache

from aligner_integrations.decoding import exact, plain
from aligner_integrations.decoding.exact import Exactness, ExactRow, PlainRow, find_exactness
from aligner_integrations.decoding.kv import cache_keyword
from aligner_integrations.decoding.linears import pack_linears
from aligner_integrations.decoding.packed import PackedModel, Part, pack
from aligner_integrations.decoding.rows import Row
from aligner_integrations.decoding.sampling import Sampler, near_tie
from aligner_integrations.decoding.speculative import Decoder
from tests.decoding.packing import needs_packed_bfloat16
from tests.tiny import make_model

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
ARCHITECTURES = ["llama", "gemma3", "qwen2"]
KINDS = [
    pytest.param(
        (architecture, dtype, layers),
        marks=needs_packed_bfloat16 if (dtype, layers) == ("bfloat16", "oneDNN") else (),
    )
    for architecture in ARCHITECTURES
    for dtype in DTYPES
    for layers in ("stock", "oneDNN")
]
SAMPLING = {"temperature": 1.0, "top_p": 0.9, "seed": 3}
IDS = st.integers(3, 90)


@functools.cache
def load(architecture: str, dtype: str, layers: str) -> tuple[PackedModel, Exactness]:
    """A model, and the fastest way in which it can be exact here."""
    sliding = {"sliding_window": 8} if architecture == "gemma3" else {}
    model = make_model(architecture, **sliding).to(DTYPES[dtype])
    if layers == "oneDNN":
        assert pack_linears(model)
    packed = PackedModel(model)
    return packed, find_exactness(packed)


def find_ways(architecture: str, dtype: str, layers: str) -> list[Exactness]:
    fastest = load(architecture, dtype, layers)[1]
    ways: tuple[Exactness, ...] = get_args(Exactness)
    return list(ways[ways.index(fastest) :])


def make_row(prompt: list[int], draft: Sequence[int] = (), **options: Any) -> Row:
    sampler = Sampler(**options.pop("sampling", {}))
    stop, limit = options.pop("stop", 2), options.pop("limit", 24)
    return Row(prompt, list(draft), frozenset({stop}), limit, sampler, **options)


def write_plain(packed: PackedModel, prompt: list[int], **options: Any) -> Row:
    row = make_row(prompt, **options)
    for _ in plain.decode(packed.model, [row]):
        pass
    return row


def write(packed: PackedModel, rows: list[Row], late: Sequence[Row] = ()) -> None:
    """Run to the end; of the late rows one joins before each pass."""
    decoder, coming = Decoder(packed), list(late)
    for row in rows:
        decoder.add(row)
    written: dict[int, list[int]] = {id(row): list(row.output) for row in (*rows, *late)}
    while coming or any(row.stop_reason is None for row in (*rows, *late)):
        if coming:
            decoder.add(coming.pop(0))
        for row, ids in decoder.step():
            written[id(row)] += ids
    assert all(written[id(row)] == row.output for row in (*rows, *late))


@st.composite
def drafts(draw: st.DrawFn, output: list[int]) -> list[int]:
    """An answer like the output: a copy, edited here and there, or another text."""
    draft = list(output)
    for _ in range(draw(st.integers(0, 3))):
        start = draw(st.integers(0, len(draft)))
        end = draw(st.integers(start, min(len(draft), start + 6)))
        draft[start:end] = draw(st.lists(IDS, max_size=6))
    return draft if draw(st.integers(0, 4)) else draw(st.lists(IDS, max_size=24))


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@given(data=st.data())
@settings(max_examples=12)
def test_same_output_for_any_prompt_and_draft(
    kind: tuple[str, str, str], data: st.DataObject
) -> None:
    packed, _ = load(*kind)
    exact._found[packed] = data.draw(st.sampled_from(find_ways(*kind)))
    prompt = data.draw(st.lists(IDS, min_size=1, max_size=30))
    sampling = data.draw(st.sampled_from([{}, {}, SAMPLING]))
    wanted = write_plain(packed, prompt, sampling=sampling)
    row = make_row(prompt, data.draw(drafts(wanted.output)), sampling=sampling, exact=True)
    write(packed, [row])
    assert row.output == wanted.output
    assert row.stop_reason == wanted.stop_reason


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@given(data=st.data())
@settings(max_examples=8)
def test_same_output_in_company(kind: tuple[str, str, str], data: st.DataObject) -> None:
    """Rows that come and go change the size of a pass, and with it what kernels it runs on."""
    packed, _ = load(*kind)
    exact._found[packed] = data.draw(st.sampled_from(find_ways(*kind)))
    rows, outputs = [], []
    for _ in range(data.draw(st.integers(2, 4))):
        prompt = data.draw(st.lists(IDS, min_size=1, max_size=20))
        limit = data.draw(st.integers(1, 20))
        sampling = data.draw(st.sampled_from([{}, {}, {}, SAMPLING]))
        wanted = write_plain(packed, prompt, limit=limit, sampling=sampling).output
        draft = data.draw(drafts(wanted))
        is_exact = not rows or data.draw(st.booleans())
        rows.append(make_row(prompt, draft, limit=limit, sampling=sampling, exact=is_exact))
        outputs.append(wanted)
    at = data.draw(st.integers(1, len(rows)))
    write(packed, rows[:at], late=rows[at:])
    for row, wanted in zip(rows, outputs, strict=True):
        if row.exact or packed.dtype == torch.float32:
            assert row.output == wanted


def test_bfloat16_without_it_writes_something_else() -> None:
    """The comparisons above would mean little if no choice hung on rounding."""
    packed, _ = load("llama", "bfloat16", "stock")
    rng = random.Random(0)
    different = near_ties = 0
    for _ in range(40):
        prompt = [rng.randrange(3, 90) for _ in range(12)]
        wanted = write_plain(packed, prompt, limit=40)
        row = make_row(prompt, wanted.output, limit=40)
        write(packed, [row])
        different += row.output != wanted.output
        near_ties += wanted.near_ties
    assert different > 0
    assert near_ties > 40


@pytest.mark.parametrize("dtype", DTYPES)
def test_flat_logits_are_full_of_near_ties(dtype: str) -> None:
    """All margins are tiny, so with the way 'replay' every token is read again by itself."""
    model = make_model("llama", initializer_range=2e-5).to(DTYPES[dtype])
    packed = PackedModel(model)
    wanted = write_plain(packed, [5, 6, 7, 8, 9])
    assert wanted.near_ties == len(wanted.output) == 24
    for way in get_args(Exactness)[1:]:
        exact._found[packed] = way
        for draft in (wanted.output, wanted.output[::-1], []):
            row = make_row([5, 6, 7, 8, 9], draft, exact=True)
            write(packed, [row])
            assert row.output == wanted.output
            assert row.near_ties == 24


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
@given(data=st.data())
@settings(max_examples=8)
def test_a_row_goes_on_behind_its_output(kind: tuple[str, str, str], data: st.DataObject) -> None:
    """As rows do whose batch failed: what is written stays, and the rest comes as it would have."""
    packed, _ = load(*kind)
    exact._found[packed] = data.draw(st.sampled_from(find_ways(*kind)))
    prompt = data.draw(st.lists(IDS, min_size=1, max_size=20))
    wanted = write_plain(packed, prompt)
    row = make_row(prompt, data.draw(drafts(wanted.output)), exact=True)
    row.output = wanted.output[: data.draw(st.integers(0, 23))]
    if len(row.output) == len(wanted.output):  # it ended early, so nothing is left to write
        row.output = []
    write(packed, [row])
    assert row.output == wanted.output
    assert row.stop_reason == wanted.stop_reason


def test_a_plain_row_goes_on_behind_its_output() -> None:
    """Its output must be read again as it was written, token by token."""
    packed, _ = load("llama", "bfloat16", "stock")
    exact._found[packed] = "plain"
    rng = random.Random(0)
    different = []
    for _ in range(30):
        prompt = [rng.randrange(3, 90) for _ in range(10)]
        wanted = write_plain(packed, prompt, stop=-1)
        for at in (5, 10, 15):
            row = make_row(prompt, wanted.output, stop=-1, exact=True)
            row.output = wanted.output[:at]
            write(packed, [row])
            if row.output != wanted.output:
                different.append((prompt, at))
    assert different == []


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_stop_and_limit(kind: tuple[str, str, str]) -> None:
    packed, _ = load(*kind)
    prompt = [5, 6, 7]
    wanted = write_plain(packed, prompt, stop=-1).output
    for way in find_ways(*kind):
        exact._found[packed] = way
        for limit in (1, 2, 7, 23):
            row = make_row(prompt, wanted, limit=limit, stop=-1, exact=True)
            write(packed, [row])
            assert (row.output, row.stop_reason) == (wanted[:limit], "length")
        for end in set(wanted):
            row = make_row(prompt, wanted, stop=end, exact=True)
            write(packed, [row])
            assert (row.output, row.stop_reason) == (wanted[: wanted.index(end)], "stop")


@pytest.mark.parametrize(
    "dtype", ["float32", pytest.param("bfloat16", marks=needs_packed_bfloat16)]
)
def test_packed_layers_give_the_same_bits(dtype: str) -> None:
    """oneDNN's layers, at least on the machines that we know; elsewhere a slower way is found."""
    packed, exactness = load("llama", dtype, "oneDNN")
    assert exactness == "bitwise"
    tokens = list(range(3, 60))
    with torch.inference_mode():
        cache, first = packed.prefill_alone(tokens[:9])
        single = [packed.forward([Part(cache, [token], 1, single=True)])[0] for token in tokens[9:]]
        cache, again = packed.prefill_alone(tokens[:9])
        (shared,) = packed.forward([Part(cache, tokens[9:], len(tokens) - 9, single=True)])
    assert torch.equal(first, again)
    assert torch.equal(torch.cat(single), shared)


def test_identical_answers_are_as_cheap_as_otherwise() -> None:
    packed, exactness = load("llama", "float32", "oneDNN")
    exact._found[packed] = exactness
    wanted = write_plain(packed, [5, 6, 7], limit=300, stop=-1)
    rows = [make_row([5, 6, 7], wanted.output, limit=300, stop=-1, exact=exact) for exact in (0, 1)]
    for row in rows:
        write(packed, [row])
        assert row.output == wanted.output
    assert rows[1].forward_passes <= rows[0].forward_passes + 1


@pytest.mark.parametrize(
    ("way", "kind_of_row"), [("bitwise", ExactRow), ("replay", ExactRow), ("plain", PlainRow)]
)
def test_each_way_has_its_rows(way: Exactness, kind_of_row: type[Any]) -> None:
    packed, _ = load("llama", "float32", "oneDNN")
    exact._found[packed] = way
    started = exact.start_exact(packed, make_row([5, 6], exact=True))
    assert type(started) is kind_of_row
    assert started.single is (way == "bitwise")


def test_the_way_is_found_once(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    packed = PackedModel(make_model("llama"))
    trials: list[PackedModel] = []
    monkeypatch.setattr(
        exact, "find_exactness", lambda model: trials.append(model) or find_exactness(model)
    )
    with caplog.at_level("INFO"):
        for _ in range(3):
            write(packed, [make_row([5, 6], exact=True)])
    assert trials == [packed]
    assert caplog.text.count("exact=True is ") == 1


def test_a_trial_that_fails_means_plain_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    packed = PackedModel(make_model("llama"))

    def fail(tokens: list[int]) -> Any:
        raise AttributeError("a cache of another make")

    monkeypatch.setattr(packed, "prefill_alone", fail)
    assert find_exactness(packed) == "plain"
    wanted = write_plain(packed, [5, 6, 7])
    row = make_row([5, 6, 7], wanted.output, exact=True)
    write(packed, [row])
    assert row.output == wanted.output
    assert row.forward_passes == wanted.forward_passes


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_eager_attention(architecture: str, dtype: str) -> None:
    """It is no function of transformers' register, so packed passes have other bits than it."""
    sliding = {"sliding_window": 8} if architecture == "gemma3" else {}
    model = make_model(architecture, attn_implementation="eager", **sliding).to(DTYPES[dtype])
    assert model.config._attn_implementation == "eager"
    packed = PackedModel(model)
    rng = random.Random(0)
    for _ in range(5):
        prompt = [rng.randrange(3, 90) for _ in range(15)]
        wanted = write_plain(packed, prompt)
        row = make_row(prompt, wanted.output, exact=True)
        write(packed, [row])
        assert row.output == wanted.output


def measure_margins(packed: PackedModel, row: Row) -> list[float]:
    """By how much each of a row's tokens was ahead, by the model's own passes over one token."""
    margins = []
    cache = DynamicCache(config=packed.model.config)
    inputs = {cache_keyword(packed.model): cache, "use_cache": True, "logits_to_keep": 1}
    with torch.inference_mode():
        logits = packed.model(input_ids=torch.tensor([row.prompt]), **inputs).logits
        for token in row.output:
            scores = logits[0, -1].float()
            others = torch.cat([scores[:token], scores[token + 1 :]])
            margins.append(float(scores[token] - others.max()))
            logits = packed.model(input_ids=torch.tensor([[token]]), **inputs).logits
    return margins


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_near_ties_and_margins_are_counted(kind: tuple[str, str, str]) -> None:
    packed, fastest = load(*kind)
    tie = near_tie(packed.dtype)
    rng = random.Random(4)
    counted = 0
    for _ in range(6):
        prompt = [rng.randrange(3, 90) for _ in range(10)]
        wanted = write_plain(packed, prompt, stop=-1)
        margins = measure_margins(packed, wanted)
        assert min(margins) >= 0  # what was written is what was likeliest
        assert wanted.smallest_margin == min(margins)
        assert wanted.near_ties == sum(margin < tie for margin in margins)
        for way in find_ways(*kind):
            exact._found[packed] = way
            row = make_row(prompt, wanted.output, stop=-1, exact=True)
            write(packed, [row])
            if way == "replay":  # margins of shared passes are a little different
                assert row.smallest_margin == pytest.approx(min(margins), abs=tie / 2)
            else:
                assert row.smallest_margin == min(margins)
                assert row.near_ties == wanted.near_ties
        counted += wanted.near_ties
    assert fastest in get_args(Exactness)
    assert counted > 10 or packed.dtype == torch.float32


def test_sampled_tokens_have_no_margin() -> None:
    packed, _ = load("llama", "bfloat16", "stock")
    for is_exact in (False, True):
        row = make_row([5, 6, 7], sampling=SAMPLING, exact=is_exact)
        write(packed, [row])
        assert (row.near_ties, row.smallest_margin) == (0, float("inf"))


def test_the_stop_token_counts_too() -> None:
    """A correction that almost went on is as uncertain as one with another word."""
    packed, _ = load("llama", "float32", "stock")
    whole = write_plain(packed, [5, 6, 7], stop=-1)
    at = 5
    end = whole.output[at]
    first = whole.output.index(end)
    margins = measure_margins(packed, whole)
    row = write_plain(packed, [5, 6, 7], stop=end)
    assert len(row.output) == first
    assert row.smallest_margin == min(margins[: first + 1])


@pytest.mark.parametrize("kind", KINDS, ids="-".join)
def test_cancelled_rows_leave_within_a_pass(kind: tuple[str, str, str]) -> None:
    packed, _ = load(*kind)
    for way in find_ways(*kind):
        exact._found[packed] = way
        gone = False
        row = make_row([5, 6], limit=100, stop=-1, exact=True, is_cancelled=lambda: gone)  # noqa: B023
        decoder = Decoder(packed)
        decoder.add(row)
        while len(row.output) < 2:
            decoder.step()
        gone, before = True, list(row.output)
        assert decoder.step() == []
        assert (row.output, row.stop_reason) == (before, "cancelled")


@pytest.mark.parametrize("way", get_args(Exactness)[1:])
@pytest.mark.parametrize("passes", [0, 1, 3])
def test_rows_may_be_cancelled_at_any_moment(way: Exactness, passes: int) -> None:
    """Another thread cancels between the decoder's look at a row and the row's pass."""
    packed, _ = load("llama", "float32", "stock")
    exact._found[packed] = way
    asked: list[bool] = []

    def is_cancelled() -> bool:
        asked.append(True)
        return len(asked) > looks

    looks = 10**6
    row = make_row([5, 6], limit=100, stop=-1, exact=True, is_cancelled=is_cancelled)
    other = make_row([7, 8], limit=10, stop=-1)
    decoder = Decoder(packed)
    for one in (row, other):
        decoder.add(one)
    for _ in range(passes):
        decoder.step()
    looks = len(asked) + 1
    while row.stop_reason is None or other.stop_reason is None:
        decoder.step()
    assert row.stop_reason == "cancelled"
    assert len(other.output) == 10


def test_packing_keeps_exactness_apart_for_each_model() -> None:
    one, other = (pack(make_model("llama")) for _ in range(2))
    assert one is not None
    assert other is not None
    exact._found[one] = "plain"
    assert other not in exact._found
