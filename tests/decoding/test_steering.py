"""Offsets in the decoder: what a plain loop with a simple hook writes, and no bit for others."""

from __future__ import annotations

import contextlib
import copy
import random
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedModel

from aligner_integrations.decoding import exact, plain
from aligner_integrations.decoding.exact import Exactness, start_exact
from aligner_integrations.decoding.kv import RowCache
from aligner_integrations.decoding.linears import pack_linears
from aligner_integrations.decoding.offsets import Offset, add_offsets, find_places
from aligner_integrations.decoding.packed import PackedModel, Part, pack
from aligner_integrations.decoding.plain import PlainDecoder
from aligner_integrations.decoding.rows import Prefix, Row
from aligner_integrations.decoding.sampling import Sampler
from aligner_integrations.decoding.speculative import Decoder
from aligner_integrations.decoding.steering import Steering, find_layers
from aligner_integrations.errors import SteeringError
from tests.decoding.packing import needs_packed_bfloat16
from tests.decoding.test_speculative import MODELS
from tests.tiny import make_model

ARCHITECTURES = [*MODELS, "gpt2"]
SCALES = (-1.5, 0.75, 2.0)
LIMIT = 16
SAMPLING = {"temperature": 0.8, "top_p": 0.9, "seed": 7}
_loaded: dict[str, tuple[PreTrainedModel, PackedModel | None, Steering]] = {}


def load(name: str) -> tuple[PreTrainedModel, PackedModel | None, Steering]:
    """A model, packed where it can be (GPT-2 can't), and vectors that change what it writes."""
    if name not in _loaded:
        model = MODELS[name]() if name in MODELS else make_model(name)
        packed = None if name == "gpt2" else pack(copy.deepcopy(model))
        assert name == "gpt2" or packed is not None
        _loaded[name] = model, packed, plant(model)
    return _loaded[name]


def plant(model: PreTrainedModel, seed: int = 0) -> Steering:
    """Random vectors, about as long as the hidden states, for the first and the last layer."""
    config = model.config.get_text_config()
    layers = find_layers(model)
    lengths: dict[int, float] = {}
    chosen = (0, len(layers) - 1)

    def measure(index: int) -> Any:
        def note(module: Any, inputs: Any, output: Any) -> None:
            hidden = output[0] if isinstance(output, tuple) else output
            lengths[index] = float(hidden.float().norm(dim=-1).mean())

        return note

    handles = [layers[i].register_forward_hook(measure(i)) for i in chosen]
    with torch.inference_mode():
        model(input_ids=torch.tensor([[5, 9, 7]]))
    for handle in handles:
        handle.remove()
    generator = torch.Generator().manual_seed(seed)
    vectors = {
        i: torch.nn.functional.normalize(
            torch.randn(config.hidden_size, generator=generator), dim=0
        )
        * lengths[i]
        for i in chosen
    }
    return Steering(vectors, [(-1, -2), (0, 0), (1, 2)], num_layers=len(layers))


def write_simply(
    model: PreTrainedModel,
    steering: Steering | None,
    coefficient: float,
    prompt: list[int],
    sampler: Sampler | None = None,
) -> list[int]:
    """Independent of the library's decoders: no cache, all tokens anew for each new one."""
    sampler, ids = sampler or Sampler(), list(prompt)
    handles = []

    def steer(vector: torch.Tensor) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> Any:
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            hidden[:, len(prompt) - 1 :] += coefficient * vector
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        return hook

    if steering is not None:
        layers = find_layers(model)
        handles = [layers[i].register_forward_hook(steer(v)) for i, v in steering.vectors.items()]
    try:
        with torch.inference_mode():
            while len(ids) < len(prompt) + LIMIT:
                logits = model(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
                token = sampler.choose(logits)
                if token == 2:
                    break
                ids.append(token)
    finally:
        for handle in handles:
            handle.remove()
    return ids[len(prompt) :]


def make_row(
    prompt: list[int],
    steering: Steering | None,
    coefficient: float = 0.0,
    draft: list[int] | None = None,
    **more: Any,
) -> Row:
    offset = Offset(steering, coefficient, len(prompt) - 1) if steering and coefficient else None
    sampler = Sampler(**more.pop("sampling", {}))
    return Row(prompt, draft or [], frozenset({2}), LIMIT, sampler, offset=offset, **more)


def make_decoder(model: PreTrainedModel, packed: PackedModel | None) -> Decoder | PlainDecoder:
    return PlainDecoder(model) if packed is None else Decoder(packed)


def write(decoder: Decoder | PlainDecoder, *rows: Row, late: tuple[Row, ...] = ()) -> None:
    coming = list(late)
    for row in rows:
        decoder.add(row)
    while coming or any(row.stop_reason is None for row in (*rows, *late)):
        if coming:
            decoder.add(coming.pop())
        decoder.step()


def make_prompt(length: int, seed: int = 1) -> list[int]:
    rng = random.Random(seed)
    return [rng.randrange(3, 90) for _ in range(length)]


def spoil(tokens: list[int]) -> list[int]:
    return [89 if index % 7 == 6 else token for index, token in enumerate(tokens)]


@contextlib.contextmanager
def no_hooks() -> Iterator[None]:
    """Fails where anything is hooked."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.nn.Module, "register_forward_hook", _refuse)
        yield


def _refuse(*args: Any, **kwargs: Any) -> Any:
    raise AssertionError("a module was hooked")


def count_hooks(model: PreTrainedModel) -> int:
    return sum(len(module._forward_hooks) for module in model.modules())


@pytest.mark.parametrize("sampling", [{}, SAMPLING], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", ARCHITECTURES)
def test_steered_output_is_that_of_a_simple_loop(name: str, sampling: dict[str, Any]) -> None:
    model, packed, steering = load(name)
    decoders, changed = (make_decoder(model, packed), PlainDecoder(model)), 0
    for length in (1, 20):
        prompt = make_prompt(length)
        as_trained = write_simply(model, None, 0, prompt, Sampler(**sampling))
        for scale in SCALES:
            wanted = write_simply(model, steering, scale, prompt, Sampler(**sampling))
            changed += wanted != as_trained
            for draft in (wanted, spoil(as_trained)):
                for decoder in decoders:
                    row = make_row(prompt, steering, scale, draft, sampling=sampling)
                    write(decoder, row)
                    assert row.output == wanted, (length, scale)
    assert changed > 3


@pytest.mark.parametrize("name", ["llama", "gemma3 (sliding)", "gpt2"])
def test_rows_of_a_batch_do_not_mix(name: str) -> None:
    """Different strengths side by side, joining late, prompts of other lengths."""
    model, packed, steering = load(name)
    other = plant(model, seed=9)
    cases = [
        (make_prompt(4 + 9 * index, seed=index), vectors, scale)
        for index, (vectors, scale) in enumerate(
            [(None, 0.0), (steering, 2.0), (steering, -1.5), (None, 0.0), (other, 0.75)]
        )
    ]
    wanted = [write_simply(model, vectors, scale, ids) for ids, vectors, scale in cases]
    for decoder in (make_decoder(model, packed), PlainDecoder(model)):
        for drafted in (True, False):
            rows = [
                make_row(prompt, vectors, scale, spoil(text) if drafted else [])
                for (prompt, vectors, scale), text in zip(cases, wanted, strict=True)
            ]
            write(decoder, *rows[:3], late=tuple(rows[3:]))
            assert [row.output for row in rows] == wanted


@settings(max_examples=25)
@given(
    prompt=st.lists(st.integers(3, 90), min_size=1, max_size=30),
    draft=st.lists(st.integers(3, 90), max_size=30),
    scale=st.sampled_from(SCALES),
    read=st.integers(0, 40),
)
def test_any_prompt_any_draft_any_prefix(
    prompt: list[int], draft: list[int], scale: float, read: int
) -> None:
    """What was read ahead, in whatever pieces, never holds a position that is steered."""
    model, packed, steering = load("llama")
    assert packed is not None
    prefix = Prefix(RowCache(), prompt[:read])
    with torch.inference_mode():
        while prefix.unread:
            packed.forward([Part(prefix.cache, prefix.unread[:7], 0)])
    row = make_row(prompt, steering, scale, draft, prefix=prefix)
    write(Decoder(packed), row)
    assert row.output == write_simply(model, steering, scale, prompt)


@pytest.mark.parametrize("way", ["bitwise", "replay", "plain"])
@pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_packed_bfloat16)], ids=str
)
def test_exact_rows_are_plain_decoding_with_offsets(
    way: Exactness, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = make_model("llama", initializer_range=0.1).to(dtype)  # near-ties
    assert pack_linears(model)
    packed = PackedModel(model)
    order = ["bitwise", "replay", "plain"]
    if order.index(way) < order.index(exact.find_exactness(packed)):
        pytest.skip(f"passes of this machine are not {way}")
    monkeypatch.setitem(exact._found, packed, way)
    steering, ties = plant(model), 0
    for seed in range(2):
        prompt = make_prompt(6 + seed, seed)
        for sampling in ({}, SAMPLING):
            for scale in SCALES:
                wanted = make_row(prompt, steering, scale, sampling=sampling)
                for _ in plain.decode(model, [wanted]):
                    pass
                ties += wanted.near_ties
                row = make_row(
                    prompt, steering, scale, spoil(wanted.output), sampling=sampling, exact=True
                )
                company = make_row(make_prompt(9, 8), None)
                write(Decoder(packed), row, company)
                assert row.output == wanted.output
    assert ties or dtype == torch.float32


def test_without_strength_nothing_is_hooked_and_no_bit_changes() -> None:
    model, packed, _ = load("llama")
    assert packed is not None
    rows = [make_row(make_prompt(8, seed), None, draft=make_prompt(20)) for seed in range(3)]
    with no_hooks():
        write(Decoder(packed), *rows)
        write(PlainDecoder(model), make_row(make_prompt(8), None))
        for _ in range(2):
            start_exact(packed, make_row(make_prompt(8), None, exact=True))
    with pytest.raises(AssertionError, match="was hooked"), no_hooks():
        write(Decoder(packed), make_row(make_prompt(8), load("llama")[2], 1.0))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("name", ["llama", "gemma2 (soft cap, sliding)", "gpt-neox"])
def test_neighbours_keep_their_bits(name: str, dtype: torch.dtype) -> None:
    """The same pass with and without a steered row in it: the other row's logits are equal."""
    model = copy.deepcopy(load(name)[0]).to(dtype)
    packed, steering = PackedModel(model), load(name)[2]
    ids = [make_prompt(9, seed) for seed in range(3)]

    def run(offset: Offset | None) -> list[torch.Tensor]:
        caches, found = [RowCache() for _ in ids], []
        for cut in (slice(0, 6), slice(6, 9)):
            parts = [
                Part(cache, tokens[cut], 3, offset=offset if index == 1 else None)
                for index, (cache, tokens) in enumerate(zip(caches, ids, strict=True))
            ]
            found += packed.forward(parts)
        return found

    with torch.inference_mode():
        usual, steered = run(None), run(Offset(steering, 2.0, start=4))
    for index in (0, 2, 3, 5):
        assert torch.equal(usual[index], steered[index])
    assert torch.equal(usual[1][0], steered[1][0])  # before its start
    assert not torch.equal(usual[1][1], steered[1][1])
    assert not torch.equal(usual[4], steered[4])


def test_hooks_are_gone_after_every_pass_and_error(monkeypatch: pytest.MonkeyPatch) -> None:
    model, packed, steering = load("llama")
    assert packed is not None
    prompt, seen = make_prompt(8), list[int]()
    gone = make_row(prompt, steering, 1.0, is_cancelled=lambda: len(seen) > 2)
    decoder = Decoder(packed)
    decoder.add(gone)
    while gone.stop_reason is None:
        decoder.step()
        seen.append(count_hooks(packed.model))
    assert gone.stop_reason == "cancelled"
    assert set(seen) == {0}

    class BrokenError(Exception):
        pass

    def fail(*args: Any) -> None:
        assert count_hooks(packed.model) > 1
        raise BrokenError

    handle = find_layers(packed.model)[1].register_forward_pre_hook(fail)
    wrong = Steering({0: torch.ones(32), 1: torch.ones(32)}, steering.calibration, num_layers=2)
    try:
        for decode in (Decoder(packed), PlainDecoder(packed.model)):
            for vectors in (steering, wrong):
                with pytest.raises(BrokenError):
                    write(decode, make_row(prompt, vectors, 1.0))
                assert count_hooks(packed.model) == 0
    finally:
        handle.remove()
    row = make_row(prompt, None)
    write(Decoder(packed), row)
    assert row.output == write_simply(model, None, 0, prompt)


def test_a_vector_of_another_size_says_so_and_leaves_no_hook() -> None:
    model, packed, _ = load("llama")
    assert packed is not None
    wrong = Steering({1: torch.ones(31)}, [(-1, -1), (0, 0), (1, 1)], num_layers=2)
    with pytest.raises(SteeringError, match=r"shape of \(1, 8, 32\), to which a vector of 31"):
        write(Decoder(packed), make_row(make_prompt(8), wrong, 1.0))
    with pytest.raises(SteeringError, match="for 2 layers of size 31, but the model has 2 of size"):
        wrong.fit(model)
    assert count_hooks(packed.model) == 0


def test_other_threads_passes_are_left_alone() -> None:
    """Two threads on one model at the same time, one of them steered."""
    model, _, steering = load("llama")
    prompt = make_prompt(12)
    wanted = {scale: write_simply(model, steering, scale, prompt) for scale in (0.0, *SCALES)}
    assert len({tuple(text) for text in wanted.values()}) == 4
    got: list[tuple[float, list[int]]] = []
    start = threading.Barrier(4)

    def run(scale: float) -> None:
        start.wait()
        for _ in range(6):
            row = make_row(prompt, steering, scale)
            write(PlainDecoder(model), row)
            got.append((scale, row.output))

    threads = [threading.Thread(target=run, args=[scale]) for scale in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 24
    assert all(output == wanted[scale] for scale, output in got)


def test_the_context_manager_steers_any_pass() -> None:
    model, _, steering = load("qwen2")
    ids = torch.tensor([make_prompt(9)])
    offset = Offset(steering.fit(model), 1.5, start=5)
    with torch.inference_mode():
        usual = model(input_ids=ids).logits[0]
        with add_offsets(model, find_places(offset, position=0, count=9)):
            steered = model(input_ids=ids).logits[0]
        again = model(input_ids=ids).logits[0]
    assert torch.equal(usual, again)
    assert torch.equal(usual[:5], steered[:5])
    assert all(not torch.equal(usual[i], steered[i]) for i in range(5, 9))
