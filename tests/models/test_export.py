"""The bundled aligner as a GGUF file."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from gguf import GGUFReader
from safetensors.torch import load_file
from typer.testing import CliRunner

from aligner_integrations.cli.app import app
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.models.bundled import prepare
from aligner_integrations.models.export import export_gguf
from aligner_integrations.models.gguf import read_llama_weights


def test_the_file_holds_the_merged_weights(tmp_path: Path) -> None:
    path = tmp_path / "new" / "smol.gguf"
    result = CliRunner().invoke(app, ["models", "gguf", str(path)])
    assert result.exit_code == 0, result.output
    assert result.output == f"{path}\n"
    assert [one.name for one in path.parent.iterdir()] == ["smol.gguf"]
    wanted = load_file(prepare("aligner-smol") / "model.safetensors")
    found = dict(read_llama_weights(path, heads=9, kv_heads=3))
    assert set(found) == set(wanted)
    for name, weight in wanted.items():
        half = weight.half().float() if weight.ndim > 1 else weight
        assert torch.equal(found[name], half), name
    reader = GGUFReader(path)
    assert reader.get_field("general.architecture").contents() == "llama"
    assert reader.get_field("tokenizer.ggml.eos_token_id").contents() == 2
    assert len(reader.get_field("tokenizer.ggml.tokens").data) == 49152


def test_another_dtype(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="dtype='q4' must be one of f16, f32"):
        export_gguf(tmp_path / "x.gguf", "q4")  # type: ignore[arg-type]
