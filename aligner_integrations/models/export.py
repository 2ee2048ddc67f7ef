"""The bundled aligner as one GGUF file, for llama.cpp and what is built on it."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.models import base_file, bundled

if TYPE_CHECKING:
    import numpy as np

WeightType = Literal["f16", "f32"]
"""How the file holds its matrices; vectors are always float32."""


def export_gguf(path: Path, dtype: WeightType = "f16") -> Path:
    """Write aligner-smol, adapter merged, as a GGUF file.

    The vocabulary and the settings are those of the base file, the weights those that
    `Aligner.from_pretrained` loads. Any other aligner has a directory that llama.cpp's own
    ``convert_hf_to_gguf.py`` reads.

    Args:
        path: Where to; a file that is there is replaced once the new one is whole.
        dtype: ``"f16"`` (270 MB) or ``"f32"`` (540 MB, the weights to the bit).

    Raises:
        ConfigurationError: ``dtype`` is neither.
        ModelNotFoundError: The base file is not on this machine.
    """
    if dtype not in get_args(WeightType):
        raise ConfigurationError(
            f"dtype={dtype!r} must be one of {', '.join(get_args(WeightType))}"
        )
    from gguf import GGUFReader, GGUFWriter, LlamaFileType

    directory = bundled.prepare("aligner-smol")
    base = GGUFReader(base_file.find_base())
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
        made = Path(scratch) / path.name
        writer = GGUFWriter(made, base.get_field("general.architecture").contents())
        for name, field in base.fields.items():
            if name.startswith(("GGUF.", "general.")) or name == "tokenizer.chat_template":
                continue
            kind = field.types[0]
            inner = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(name, field.contents(), kind, inner)
        writer.add_name("aligner-smol")
        writer.add_license("apache-2.0")
        kinds = {"f16": LlamaFileType.MOSTLY_F16, "f32": LlamaFileType.ALL_F32}
        writer.add_file_type(kinds[dtype])
        for name, weight in _read_weights(directory, dtype):
            writer.add_tensor(name, weight)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(made, path)
    return path


def _read_weights(directory: Path, dtype: WeightType) -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    """The merged weights with GGUF's names, in GGUF's order of rows."""
    from safetensors.numpy import load_file

    from aligner_integrations.models.gguf import to_gguf_name

    config = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for name, weight in load_file(directory / "model.safetensors").items():
        renamed = to_gguf_name(name)
        count = heads.get(renamed.split(".")[-2])
        ordered = weight if count is None else _apply_rotary_order(weight, count)
        yield (
            renamed,
            ordered.astype("float16" if dtype == "f16" and weight.ndim > 1 else "float32"),
        )


def _apply_rotary_order(weight: np.ndarray[Any, Any], heads: int) -> np.ndarray[Any, Any]:
    """The reverse of what reading a GGUF file undoes: the halves of each head interleaved."""
    rows, columns = weight.shape
    halves = weight.reshape(heads, 2, rows // heads // 2, columns)
    ordered: np.ndarray[Any, Any] = halves.swapaxes(1, 2).reshape(rows, columns)
    return ordered
