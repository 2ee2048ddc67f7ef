"""Reading the weights of a Llama-architecture GGUF file as fp32 tensors with Hugging Face names."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gguf import GGUFReader, GGUFValueType

if TYPE_CHECKING:
    import torch

_TOP = {
    "token_embd.weight": "model.embed_tokens.weight",
    "output_norm.weight": "model.norm.weight",
    "output.weight": "lm_head.weight",
}
_BLOCK = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


def read_llama_weights(
    path: Path, *, heads: int, kv_heads: int
) -> Iterator[tuple[str, torch.Tensor]]:
    """Dequantise a GGUF file tensor by tensor.

    Args:
        path: A GGUF file of a Llama architecture, in any quantisation that ``gguf`` knows.
        heads: Attention heads, to undo GGUF's row order of the query weights.
        kv_heads: Key/value heads, likewise for the key weights.

    Yields:
        ``(name, weight)`` in float32, shaped as ``LlamaForCausalLM`` has them.
    """
    import torch
    from gguf.quants import dequantize

    for tensor in _WeightReader(path).tensors:
        weight = torch.from_numpy(dequantize(tensor.data, tensor.tensor_type).copy())
        if tensor.name in _TOP:
            yield _TOP[tensor.name], weight
            continue
        _, layer, kind, _ = tensor.name.split(".")
        if kind in ("attn_q", "attn_k"):
            weight = _undo_rotary_order(weight, heads if kind == "attn_q" else kv_heads)
        yield f"model.layers.{layer}.{_BLOCK[kind]}.weight", weight


def to_gguf_name(name: str) -> str:
    """What a GGUF file calls a weight of ``LlamaForCausalLM``."""
    for gguf_name, own in _TOP.items():
        if name == own:
            return gguf_name
    _, _, layer, own = name.removesuffix(".weight").split(".", 3)
    kinds = {value: key for key, value in _BLOCK.items()}
    return f"blk.{layer}.{kinds[own]}.weight"


class _WeightReader(GGUFReader):  # type: ignore[misc, unused-ignore]
    """Steps over the vocabulary, which the reader would parse string by string (2 s)."""

    def _get_field_parts(self, orig_offs: int, raw_type: int) -> Any:
        start = int(orig_offs)
        if raw_type != GGUFValueType.ARRAY or self.byte_order == "S":
            return super()._get_field_parts(orig_offs, raw_type)
        item_type, count = struct.unpack_from("<IQ", self.data, start)
        if item_type != GGUFValueType.STRING:
            return super()._get_field_parts(orig_offs, raw_type)
        end = start + struct.calcsize("<IQ")
        for _ in range(count):
            end += 8 + struct.unpack_from("<Q", self.data, end)[0]
        return end - start, [], [], [GGUFValueType.ARRAY, GGUFValueType.STRING]


def _undo_rotary_order(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """GGUF interleaves the two halves of each rotary head; Hugging Face keeps them apart."""
    rows, columns = weight.shape
    return (
        weight.reshape(heads, rows // heads // 2, 2, columns)
        .transpose(1, 2)
        .reshape(rows, columns)
        .contiguous()
    )
