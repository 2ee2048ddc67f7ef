"""Linear layers in oneDNN's layout compute what the stock layers compute."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import PreTrainedModel

from aligner_integrations import Aligner
from aligner_integrations.decoding import linears, plain
from aligner_integrations.decoding.linears import PackedLinear, has_packed_linears, pack_linears
from aligner_integrations.decoding.rows import Row
from aligner_integrations.decoding.sampling import Sampler
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.models.load import load_model
from tests.decoding.packing import PACKS_BFLOAT16, needs_packed_bfloat16
from tests.tiny import make_model, save_model

TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 0.02}

DTYPES = pytest.mark.parametrize(
    "dtype", [torch.float32, pytest.param(torch.bfloat16, marks=needs_packed_bfloat16)], ids=str
)


def make_linear(inputs: int, outputs: int, bias: bool, dtype: torch.dtype) -> nn.Linear:
    torch.manual_seed(inputs + outputs)
    return nn.Linear(inputs, outputs, bias=bias).to(dtype)


def write(model: PreTrainedModel, prompt: list[int]) -> list[int]:
    row = Row(prompt, [], frozenset({2}), 20, Sampler())
    for _ in plain.decode(model, [row]):
        pass
    return row.output


@DTYPES
@given(
    inputs=st.integers(1, 70),
    outputs=st.integers(1, 70),
    bias=st.booleans(),
    shape=st.lists(st.integers(1, 5), max_size=3),
)
def test_same_product(
    dtype: torch.dtype, inputs: int, outputs: int, bias: bool, shape: list[int]
) -> None:
    linear = make_linear(inputs, outputs, bias, dtype)
    values = torch.randn(*shape, inputs).to(dtype)
    with torch.inference_mode():
        wanted, got = linear(values), PackedLinear(linear)(values)
    assert got.shape == wanted.shape
    assert got.dtype == dtype
    assert torch.allclose(got.float(), wanted.float(), rtol=TOLERANCE[dtype], atol=TOLERANCE[dtype])


@DTYPES
@given(company=st.integers(0, 140), at=st.integers(0, 140))
def test_a_token_gets_the_same_bits_alone_and_in_company(
    dtype: torch.dtype, company: int, at: int
) -> None:
    linear = PackedLinear(make_linear(64, 96, True, dtype))
    torch.manual_seed(company)
    values = torch.randn(1, company + 1, 64).to(dtype)
    at = min(at, company)
    with torch.inference_mode():
        together = linear(values)[:, at]
        assert torch.equal(linear(values[:, at : at + 1])[:, 0], together)
        assert torch.equal(linear(values[0, at]), together[0])


def test_products_are_made_for_few_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    """oneDNN keeps code for each, so a gateway would grow with every new length of a pass."""
    linear = PackedLinear(make_linear(8, 8, True, torch.float32))
    lengths: set[int] = set()
    multiply = PackedLinear._multiply

    def watch(self: PackedLinear, inputs: torch.Tensor) -> torch.Tensor:
        lengths.add(inputs.numel() // 8)
        return multiply(self, inputs)

    monkeypatch.setattr(PackedLinear, "_multiply", watch)
    with torch.inference_mode():
        for tokens in range(1, 1025):
            assert linear(torch.zeros(tokens, 8)).shape == (tokens, 8)
    assert min(lengths) == min({4, *linear._short})
    assert len(lengths - linear._short) <= 52
    assert all(0 <= linears.round_up(n) - n <= max(3, n // 4) for n in range(1, 9000))


@pytest.mark.parametrize("kernels", ["AVX2", "AVX512"])
def test_one_and_two_tokens_stay_alone_where_that_is_cheaper_and_changes_no_bit(
    monkeypatch: pytest.MonkeyPatch, kernels: str
) -> None:
    linear, multiply = make_linear(8, 24, True, torch.float32), PackedLinear._multiply
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: kernels)
    found = PackedLinear(linear)._short
    assert found <= ({1, 2} if kernels == "AVX2" else set())

    def differs_alone(self: PackedLinear, inputs: torch.Tensor) -> torch.Tensor:
        return multiply(self, inputs) * (1.0 if len(inputs) > 1 else 1.0001)

    monkeypatch.setattr(PackedLinear, "_multiply", differs_alone)
    assert PackedLinear(linear)._short == found - {1}


@DTYPES
@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2", "gemma3"])
def test_a_packed_model_writes_the_same(architecture: str, dtype: torch.dtype) -> None:
    model = make_model(architecture).to(dtype)
    packed = copy.deepcopy(model)
    assert not has_packed_linears(packed)
    assert pack_linears(packed)
    assert has_packed_linears(packed)
    assert not any(type(module) is nn.Linear for module in packed.modules())
    ids = torch.tensor([[5, 6, 7, 8]])
    with torch.inference_mode():
        wanted, got = (one(input_ids=ids).logits.float() for one in (model, packed))
    difference = float((wanted - got).abs().max() / wanted.std())
    assert difference < (1e-4 if dtype == torch.float32 else 0.1)
    if dtype == torch.float32:
        assert write(packed, [5, 6, 7]) == write(model, [5, 6, 7])


def test_packing_again_changes_nothing() -> None:
    model = make_model("llama")
    assert pack_linears(model)
    layers = [module for module in model.modules() if isinstance(module, PackedLinear)]
    assert not pack_linears(model)
    assert [module for module in model.modules() if isinstance(module, PackedLinear)] == layers
    assert "packed" in repr(layers[0])
    assert f"out_features={layers[0].out_features}" in repr(layers[0])


def test_tied_weights_stay_with_the_embedding() -> None:
    model = make_model("llama", tie_word_embeddings=True)
    wanted = write(model, [5, 6, 7])
    assert pack_linears(model)
    assert isinstance(model.lm_head, PackedLinear)
    assert write(model, [5, 6, 7]) == wanted


def as_half(model: PreTrainedModel) -> None:
    model.half()


def as_mixed(model: PreTrainedModel) -> None:
    model.lm_head.bfloat16()


@pytest.mark.parametrize("change", [as_half, as_mixed])
def test_other_dtypes_stay_as_they_are(change: Any) -> None:
    model = make_model("llama")
    change(model)
    assert not pack_linears(model)
    assert not has_packed_linears(model)


def test_other_layers_stay_as_they_are() -> None:
    """GPT-2's are no `torch.nn.Linear`, and a subclass may compute something else."""

    class Halved(nn.Linear):
        def forward(self, inputs: torch.Tensor) -> torch.Tensor:
            return super().forward(inputs) / 2

    assert not pack_linears(nn.Sequential(Halved(4, 4), nn.ReLU()))
    model = make_model("gpt2")
    wanted = write(model, [5, 6, 7])
    pack_linears(model)
    assert write(model, [5, 6, 7]) == wanted
    assert isinstance(model.transformer.h[0].attn.c_attn, nn.Module)


def fail(*args: Any) -> Any:
    raise RuntimeError("no such operator")


def test_without_onednn_nothing_is_packed(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(torch._C, "_has_mkldnn", False)
        assert not pack_linears(make_model("llama"))
    monkeypatch.setattr(PackedLinear, "_multiply", fail)
    with caplog.at_level("INFO"):
        assert not pack_linears(make_model("llama"))
    assert "stock linear layers, because oneDNN's packed ones failed" in caplog.text
    assert "no such operator" in caplog.text


@pytest.mark.parametrize("error", [0.01, float("nan")])
def test_layers_that_compute_something_else_are_not_used(
    monkeypatch: pytest.MonkeyPatch, error: float
) -> None:
    multiply = PackedLinear._multiply
    monkeypatch.setattr(PackedLinear, "_multiply", lambda self, x: multiply(self, x) + error)
    model = make_model("llama")
    assert not pack_linears(model)
    assert not has_packed_linears(model)


def test_loading_packs_unless_told_otherwise(tmp_path: Any) -> None:
    directory = str(save_model(tmp_path, prompt="aligner-smol"))
    assert has_packed_linears(load_model(directory, device="cpu").model)
    half = load_model(directory, device="cpu", dtype="bfloat16").model
    assert has_packed_linears(half) == PACKS_BFLOAT16  # elsewhere the stock layers stay
    assert not has_packed_linears(load_model(directory, device="cpu", pack_weights=False).model)
    assert not has_packed_linears(load_model(directory, device="cpu", dtype="float16").model)
    aligner = Aligner.from_pretrained(directory, device="cpu", pack_weights=False)
    assert isinstance(aligner.engine, LocalEngine)
    assert not has_packed_linears(aligner.engine.loaded.model)


def test_the_trial_is_made_on_the_smallest_layer(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []
    agrees = linears._agrees
    monkeypatch.setattr(
        linears, "_agrees", lambda linear: tried.append(linear.weight.numel()) or agrees(linear)
    )
    model = make_model("llama")
    smallest = min(m.weight.numel() for m in model.modules() if type(m) is nn.Linear)
    assert pack_linears(model)
    assert tried == [smallest]
