"""Making the bundled models ready: once, whole, whoever else does the same."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

from aligner_integrations.errors import ModelIntegrityError, ModelNotFoundError
from aligner_integrations.models import base_file, bundled
from aligner_integrations.prompts import PRESETS, find_prompt_format

FILES = ("config.json", "model.safetensors", "tokenizer.json")


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache, and a base that is there and needs no checking."""
    monkeypatch.setenv("ALIGNER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(base_file, "find_base", lambda: Path("base.gguf"))
    monkeypatch.setattr(base_file, "verify_base", lambda path: None)
    return tmp_path / "cache"


@pytest.fixture
def writes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Stand in for the dequantising, which takes ten seconds; records each time."""
    written: list[str] = []

    def write(model: bundled.BundledModel, base: Path, directory: Path) -> None:
        written.append(model.name)
        time.sleep(0.1)
        for file in FILES:
            (directory / file).write_text(model.name)

    monkeypatch.setattr(bundled, "_write", write)
    return written


def test_prepare_makes_a_directory_once(cache: Path, writes: list[str]) -> None:
    path = bundled.prepare("aligner-smol")
    assert path == bundled.prepared_path("aligner-smol") == bundled.prepare("aligner-smol")
    assert path.parent == cache
    assert sorted(file.name for file in path.iterdir()) == sorted(FILES)
    assert writes == ["aligner-smol"]


def test_nothing_is_left_behind_when_it_fails(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(model: object, base: Path, directory: Path) -> None:
        (directory / "model.safetensors").write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(bundled, "_write", fail)
    with pytest.raises(OSError, match="disk full"):
        bundled.prepare("aligner-smol")
    assert list(cache.iterdir()) == []


@pytest.mark.parametrize("left", [[], ["config.json"], ["config.json", "tokenizer.json"], ["x"]])
def test_a_broken_directory_is_made_anew(cache: Path, writes: list[str], left: list[str]) -> None:
    path = bundled.prepared_path("aligner-smol")
    path.mkdir(parents=True)
    for file in left:
        (path / file).write_text("old")
    assert bundled.prepare("aligner-smol") == path
    assert {file.read_text() for file in path.iterdir()} == {"aligner-smol"}
    assert writes == ["aligner-smol"]
    assert [entry.name for entry in cache.iterdir()] == [path.name]


def test_threads_may_prepare_at_once(cache: Path, writes: list[str]) -> None:
    with ThreadPoolExecutor(8) as pool:
        (path,) = set(pool.map(lambda _: bundled.prepare("aligner-smol"), range(8)))
    assert bundled.is_complete(path)
    assert [entry.name for entry in cache.iterdir()] == [path.name]


def test_processes_may_prepare_at_once(cache: Path) -> None:
    script = """
import time
from pathlib import Path
from aligner_integrations.models import base_file, bundled
base_file.find_base = lambda: Path("base.gguf")
base_file.verify_base = lambda path: None
def write(model, base, directory):
    for file in ("config.json", "model.safetensors", "tokenizer.json"):
        (directory / file).write_text("whole")
        time.sleep(0.1)
bundled._write = write
path = bundled.prepare("aligner-smol")
print({file.read_text() for file in path.iterdir()}, bundled.is_complete(path))
"""
    runs = [
        subprocess.Popen(  # noqa: S603 - our own interpreter
            [sys.executable, "-c", script], stdout=subprocess.PIPE, text=True
        )
        for _ in range(4)
    ]
    assert [run.communicate()[0] for run in runs] == ["{'whole'} True\n"] * 4
    assert len(list(cache.iterdir())) == 1


def test_a_wrong_base_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = tmp_path / "wrong.gguf"
    with wrong.open("wb") as file:
        file.truncate(base_file.FILE_BYTES)
    monkeypatch.setenv("ALIGNER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("ALIGNER_SMOL_BASE", str(wrong))
    with pytest.raises(ModelIntegrityError, match=r"wrong\.gguf has SHA-256"):
        bundled.prepare("aligner-smol")


def test_a_missing_base_says_what_to_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALIGNER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.delenv("ALIGNER_SMOL_BASE", raising=False)
    monkeypatch.setattr(base_file, "WHEEL_MODULE", "no_such_wheel")
    with pytest.raises(
        ModelNotFoundError, match="is not on this machine; run: aligner models fetc"
    ):
        bundled.prepare("aligner-smol")


def test_another_adapter_or_base_gets_another_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = {bundled.prepared_path(name).name for name in bundled.MODELS}
    changed = tmp_path / "smol"
    shutil.copytree(bundled.DATA, changed)
    with (changed / "adapter_config.json").open("a") as file:
        file.write(" ")
    monkeypatch.setattr(bundled, "DATA", changed)
    names.add(bundled.prepared_path("aligner-smol").name)
    monkeypatch.setattr(base_file, "SHA256", "0" * 64)
    names |= {bundled.prepared_path(name).name for name in bundled.MODELS}
    assert len(names) == 5


def test_what_is_made_equals_what_is_cached(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The real thing, from GGUF file to safetensors (some ten seconds)."""
    expected = bundled.prepare("aligner-smol")
    monkeypatch.setenv("ALIGNER_SMOL_BASE", str(base_file.find_base()))
    monkeypatch.setenv("ALIGNER_CACHE_DIR", str(tmp_path))
    made = bundled.prepare("aligner-smol")
    assert made != expected
    assert {p.name for p in made.iterdir()} == {p.name for p in expected.iterdir()}
    weights, known = (load_file(path / "model.safetensors") for path in (made, expected))
    assert weights.keys() == known.keys()
    assert all(torch.equal(weights[name], known[name]) for name in known)
    shutil.rmtree(tmp_path)


def test_the_aligner_is_its_base_plus_the_adapter() -> None:
    """W + alpha/r * B A, in the layer that this looks at."""
    aligner, base = (
        load_file(bundled.prepare(name) / "model.safetensors") for name in bundled.MODELS
    )
    adapter = load_file(bundled.DATA / "adapter_model.safetensors")
    config = json.loads((bundled.DATA / "adapter_config.json").read_text())
    layer = "model.layers.3.self_attn.q_proj"
    a, b = (adapter[f"base_model.model.{layer}.lora_{x}.weight"].float() for x in "AB")
    added = aligner[f"{layer}.weight"] - base[f"{layer}.weight"]
    assert torch.allclose(added, config["lora_alpha"] / config["r"] * b @ a, atol=1e-4)
    assert added.abs().max() > 1e-3
    assert torch.equal(aligner["model.norm.weight"], base["model.norm.weight"])


def test_prepared_directories_are_what_the_card_says() -> None:
    path = bundled.prepare("aligner-smol")
    assert find_prompt_format("anything", path) is PRESETS["aligner-smol"]
    assert not (bundled.prepare("smollm2-135m-instruct") / "aligner_config.json").exists()
    tokenizer = AutoTokenizer.from_pretrained(path)
    assert tokenizer.convert_tokens_to_ids(["<|im_start|>", "<|im_end|>"]) == [1, 2]
    assert tokenizer.eos_token_id == tokenizer.pad_token_id == 2
    config = json.loads((path / "config.json").read_text())
    assert (config["num_hidden_layers"], config["hidden_size"]) == (30, 576)
    assert config["max_position_embeddings"] == 8192
