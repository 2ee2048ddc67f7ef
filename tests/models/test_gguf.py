"""Our quick GGUF reader against the `gguf` package's own."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from gguf import GGMLQuantizationType, GGUFReader, GGUFWriter
from gguf.quants import dequantize, quantize

from aligner_integrations.models import base_file
from aligner_integrations.models.gguf import read_llama_weights
from tests.tiny import make_model

HEADS, KV_HEADS = 4, 2
GGUF_NAMES = {
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}
TOP_NAMES = {
    "model.embed_tokens.weight": "token_embd.weight",
    "model.norm.weight": "output_norm.weight",
    "lm_head.weight": "output.weight",
}


def permute(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """The order of query and key rows in GGUF, as llama.cpp's converter writes it."""
    return (
        weight.reshape(heads, 2, weight.shape[0] // heads // 2, *weight.shape[1:])
        .swapaxes(1, 2)
        .reshape(weight.shape)
    )


def name_in_gguf(name: str) -> str:
    if name in TOP_NAMES:
        return TOP_NAMES[name]
    _, _, layer, *rest, _ = name.split(".")
    return f"blk.{layer}.{GGUF_NAMES['.'.join(rest)]}.weight"


def write(path: Path, weights: dict[str, torch.Tensor], kind: GGMLQuantizationType) -> None:
    writer = GGUFWriter(str(path), "llama")
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token {n} 😀" for n in range(448)])  # what our reader steps over
    writer.add_token_merges(["a b", "c d"])
    writer.add_token_types([1] * 448)
    writer.add_context_length(512)
    for name, weight in weights.items():
        for kind_of_head, heads in (("q_proj", HEADS), ("k_proj", KV_HEADS)):
            if kind_of_head in name:
                weight = permute(weight, heads)  # noqa: PLW2901
        data = weight.numpy().astype(np.float32)
        if weight.dim() == 1:
            writer.add_tensor(name_in_gguf(name), data)
        else:
            writer.add_tensor(name_in_gguf(name), quantize(data, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.mark.parametrize(
    ("kind", "tolerance"),
    [
        (GGMLQuantizationType.F32, 0),
        (GGMLQuantizationType.F16, 1e-3),
        (GGMLQuantizationType.Q8_0, 0.02),
        (GGMLQuantizationType.Q4_1, 0.3),
    ],
)
def test_a_model_written_to_gguf_is_read_back(
    tmp_path: Path, kind: GGMLQuantizationType, tolerance: float
) -> None:
    model = make_model("llama")
    weights = {name: weight.detach() for name, weight in model.state_dict().items()}
    write(tmp_path / "tiny.gguf", weights, kind)
    found = dict(read_llama_weights(tmp_path / "tiny.gguf", heads=HEADS, kv_heads=KV_HEADS))
    assert found.keys() == weights.keys()
    for name, weight in found.items():
        assert weight.dtype == torch.float32
        assert torch.allclose(weight, weights[name], atol=tolerance, rtol=tolerance), name


def test_the_base_is_read_as_the_gguf_package_reads_it() -> None:
    path = base_file.find_base()
    ours = dict(islice(read_llama_weights(path, heads=9, kv_heads=3), 14))
    theirs = {tensor.name: tensor for tensor in GGUFReader(str(path)).tensors}
    assert {"model.layers.0.self_attn.q_proj.weight", "model.layers.0.self_attn.k_proj.weight"} < (
        ours.keys()
    )
    for name, weight in ours.items():
        tensor = theirs[name_in_gguf(name)]
        expected = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        for kind, heads in (("q_proj", 9), ("k_proj", 3)):
            if kind in name:
                weight = permute(weight, heads)  # noqa: PLW2901
        assert torch.equal(weight, expected), name
