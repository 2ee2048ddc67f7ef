"""Loading aligners: directories, adapters, hub ids, and everything that is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from aligner_integrations import Aligner, PromptFormat
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.errors import (
    ConfigurationError,
    ModelNotFoundError,
    PromptFormatError,
    TruncatedCorrectionError,
)
from aligner_integrations.models import load
from aligner_integrations.models.load import LoadedModel, find_end_tokens, load_model
from aligner_integrations.prompts import PRESETS

# peft asks transformers for a name that goes away.
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")

WRITES = "Cool water, 😀 kindly."
MakeDir = Callable[..., Path]


def load_into(directory: Path, **arguments: Any) -> LoadedModel:
    aligner = Aligner.from_pretrained(str(directory), **{"device": "cpu", **arguments})
    assert isinstance(aligner.engine, LocalEngine)
    return aligner.engine.loaded


def probe(loaded: LoadedModel) -> torch.Tensor:
    with torch.inference_mode():
        return loaded.model(torch.arange(5, 15)[None]).logits


def copy(directory: Path, target: Path) -> Path:
    return Path(shutil.copytree(directory, target))


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gemma2", "gemma3"])
def test_directories_of_any_architecture(tiny_model_dir: MakeDir, architecture: str) -> None:
    directory = tiny_model_dir(architecture, prompt="aligner-smol")
    aligner = Aligner.from_pretrained(str(directory), device="cpu")
    with pytest.raises(TruncatedCorrectionError, match="after 7 tokens"):
        aligner.correct("q", "a", options={"max_new_tokens": 7})
    loaded = load_into(directory)
    assert loaded.name == str(directory)
    assert loaded.context_length == 512
    assert loaded.encoder.prompt == PRESETS["aligner-smol"]
    assert not loaded.model.training
    expected = AutoModelForCausalLM.from_pretrained(directory)
    wanted = probe(SimpleNamespace(model=expected.eval()))  # type: ignore[arg-type]
    assert torch.allclose(probe(loaded), wanted, atol=1e-3)
    stock = load_model(str(directory), device="cpu", pack_weights=False)
    assert torch.equal(probe(stock), wanted)


def test_published_format_end_to_end(tiny_model_dir: MakeDir) -> None:
    """A Llama-2 tokenizer, the model card's prompt, and a model that writes behind it."""
    directory = tiny_model_dir(tokenizer="llama-2", writes="Water, 日 cold.", behind=":")
    aligner = Aligner.from_pretrained(str(directory), prompt="edit-pair", device="cpu")
    assert aligner.correct("How?", "ASSISTANT: </s>").text == "Water, 日 cold."
    assert "".join(aligner.stream("How?", "So.")) == "Water, 日 cold."


def test_a_directory_must_say_its_prompt(tiny_model_dir: MakeDir) -> None:
    directory = tiny_model_dir()
    with pytest.raises(PromptFormatError, match="nothing says which prompt format"):
        load_into(directory)
    with pytest.raises(PromptFormatError, match="unknown prompt format 'nope'"):
        load_into(directory, prompt="nope")
    mine = PromptFormat("mine", "{question}\n{answer}\n")
    for prompt in (mine, mine.to_dict()):
        assert load_into(directory, prompt=prompt).encoder.prompt == mine


def test_an_argument_wins_over_the_directory(tiny_model_dir: MakeDir) -> None:
    directory = tiny_model_dir(prompt="aligner-smol")
    assert load_into(directory, prompt="residual").encoder.prompt == PRESETS["residual"]


def test_home_directory_is_expanded(
    tiny_model_dir: MakeDir, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = tiny_model_dir(prompt="aligner-smol")
    monkeypatch.setenv("HOME", str(directory.parent))
    assert load_model(f"~/{directory.name}").context_length == 512


@pytest.mark.parametrize("pickled", ["pytorch_model.bin", "model.pt", "model.pkl"])
def test_pickled_weights_are_never_loaded(
    tiny_model_dir: MakeDir, tmp_path: Path, pickled: str
) -> None:
    directory = copy(tiny_model_dir(prompt="aligner-smol"), tmp_path / "m")
    weights = AutoModelForCausalLM.from_pretrained(directory).state_dict()
    (directory / "model.safetensors").unlink()
    torch.save(weights, directory / pickled)
    with pytest.raises(ModelNotFoundError, match=r"no \.safetensors file; pickled weights are nev"):
        load_into(directory)


def test_a_directory_without_tokenizer(tiny_model_dir: MakeDir, tmp_path: Path) -> None:
    directory = copy(tiny_model_dir(prompt="aligner-smol"), tmp_path / "m")
    (directory / "tokenizer.json").unlink()
    with pytest.raises(ModelNotFoundError, match=r"no tokenizer\.json or tokenizer\.model in"):
        load_into(directory)


@pytest.mark.parametrize("path", ["/no/such/place", "./nothing", "~/nothing-here", "a/b/c"])
def test_paths_that_are_no_directory(path: str) -> None:
    with pytest.raises(ModelNotFoundError, match="is not a directory on this machine; correct"):
        Aligner.from_pretrained(path)


@pytest.mark.parametrize("name", ["nobody/no-such-model", "no-such-model", "not a name!"])
def test_hub_ids_that_cannot_be_fetched(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"nor could it be fetched .* hub: \w+") as e:
        Aligner.from_pretrained(name, prompt="chat")
    assert "\n" not in str(e.value)
    assert name in str(e.value)
    assert e.value.__cause__ is not None


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[dict[str, Any]]]:
    """Let the model hub hold these directories; returns what was asked of it."""

    def serve(**models: Path) -> list[dict[str, Any]]:
        calls: list[dict[str, Any]] = []

        def download(name: str, **arguments: Any) -> str:
            calls.append({"name": name, **arguments})
            return str(models[name.rpartition("/")[2].replace("-", "_").replace(".", "_")])

        monkeypatch.setattr("huggingface_hub.snapshot_download", download)
        return calls

    return serve


def test_hub_models_are_fetched_at_their_revision(
    tiny_model_dir: MakeDir, hub: Callable[..., list[dict[str, Any]]]
) -> None:
    calls = hub(mine=tiny_model_dir(prompt="aligner-smol"))
    aligner = Aligner.from_pretrained("me/mine", revision="abc123", device="cpu")
    assert aligner.name == "me/mine"
    (call,) = calls
    assert call["name"] == "me/mine"
    assert call["revision"] == "abc123"
    assert not any(
        wanted.endswith((".bin", ".py", ".pt", "*")) for wanted in call["allow_patterns"]
    )


def test_code_is_fetched_only_where_it_is_trusted(
    tiny_model_dir: MakeDir, hub: Callable[..., list[dict[str, Any]]]
) -> None:
    calls = hub(mine=tiny_model_dir(prompt="aligner-smol"))
    Aligner.from_pretrained("me/mine", device="cpu", trust_remote_code=True)
    assert "*.py" in calls[0]["allow_patterns"]


def test_the_published_aligners_format_is_known(
    tiny_model_dir: MakeDir, hub: Callable[..., list[dict[str, Any]]]
) -> None:
    hub(aligner_7b_v1_0=tiny_model_dir(tokenizer="llama-2"))
    loaded = load_model("aligner/aligner-7b-v1.0", device="cpu")
    assert loaded.encoder.prompt == PRESETS["edit-pair"]


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}])
def test_device_maps(tiny_model_dir: MakeDir, device_map: Any) -> None:
    directory = tiny_model_dir(prompt="aligner-smol", writes=WRITES)
    aligner = Aligner.from_pretrained(str(directory), device_map=device_map)
    assert aligner.correct("q", "a").text == WRITES


def test_device_and_device_map_exclude_each_other(tiny_model_dir: MakeDir) -> None:
    with pytest.raises(ConfigurationError, match="device='cpu' and device_map='auto' exclude"):
        load_into(tiny_model_dir(prompt="aligner-smol"), device_map="auto")


def test_dtypes(tiny_model_dir: MakeDir, tmp_path: Path) -> None:
    directory = copy(tiny_model_dir(prompt="aligner-smol"), tmp_path / "m")
    AutoModelForCausalLM.from_pretrained(directory).bfloat16().save_pretrained(directory)
    found = {
        str(dtype): load_into(directory, dtype=dtype).model.dtype
        for dtype in (None, "auto", "float32", "bfloat16", "torch.float16")
    }
    assert found == {
        "None": torch.float32,
        "auto": torch.bfloat16,
        "float32": torch.float32,
        "bfloat16": torch.bfloat16,
        "torch.float16": torch.float16,
    }
    for wrong in ("float7", "nn", "int"):
        with pytest.raises(ConfigurationError, match=f"dtype='{wrong}' is no floating-point dtype"):
            load_into(directory, dtype=wrong)


def test_half_precision_writes_too(tiny_model_dir: MakeDir) -> None:
    directory = tiny_model_dir(prompt="aligner-smol", writes=WRITES)
    aligner = Aligner.from_pretrained(str(directory), dtype="bfloat16", device="cpu")
    assert aligner.correct("q", "a").text == WRITES
    options = {"temperature": 0.5, "top_p": 0.9, "seed": 0}
    assert aligner.correct("q", "a", options=options).text == WRITES


@pytest.fixture
def adapter_dir(tiny_model_dir: MakeDir, tmp_path: Path) -> tuple[Path, Path, torch.Tensor]:
    """An adapter as peft saves it, its base, and the logits of the two together."""
    base = tiny_model_dir(prompt="aligner-smol")
    model = AutoModelForCausalLM.from_pretrained(base)
    config = LoraConfig(r=4, target_modules=["q_proj", "down_proj"], task_type="CAUSAL_LM")
    tuned = get_peft_model(model, config)
    torch.manual_seed(1)
    for name, parameter in tuned.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter)
    tuned.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", base, probe(SimpleNamespace(model=tuned.eval()))  # type: ignore[arg-type]


def test_an_adapter_is_merged(adapter_dir: tuple[Path, Path, torch.Tensor]) -> None:
    adapter, base, expected = adapter_dir
    plain = probe(load_into(base))
    merged = load_into(base, adapter=str(adapter))
    assert torch.allclose(probe(merged), expected, atol=1e-3)
    assert not torch.allclose(plain, expected, atol=1e-1)
    assert type(merged.model).__name__ == "LlamaForCausalLM"
    assert merged.encoder.prompt == PRESETS["aligner-smol"]


def test_an_adapter_directory_names_its_base(
    adapter_dir: tuple[Path, Path, torch.Tensor],
) -> None:
    adapter, _, expected = adapter_dir
    (adapter / "aligner_config.json").write_text('{"prompt": "residual"}')
    loaded = load_into(adapter)
    assert torch.allclose(probe(loaded), expected, atol=1e-3)
    assert loaded.encoder.prompt == PRESETS["residual"]
    with pytest.raises(ConfigurationError, match="is itself an adapter; adapter="):
        load_into(adapter, adapter=str(adapter))


def test_an_adapters_format_wins_over_its_models(
    adapter_dir: tuple[Path, Path, torch.Tensor],
) -> None:
    adapter, base, _ = adapter_dir
    (adapter / "aligner_config.json").write_text('{"prompt": "residual"}')
    assert load_into(base, adapter=str(adapter)).encoder.prompt == PRESETS["residual"]
    (adapter / "aligner_config.json").write_text('{"prompt": "nope"}')
    with pytest.raises(PromptFormatError, match="unknown prompt format 'nope'"):
        load_into(base, adapter=str(adapter))


def test_an_adapter_whose_base_is_away(adapter_dir: tuple[Path, Path, torch.Tensor]) -> None:
    adapter, _, _ = adapter_dir
    config = json.loads((adapter / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "/no/such/base"
    (adapter / "adapter_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelNotFoundError, match="'/no/such/base' is not a directory"):
        load_into(adapter, prompt="residual")


def test_a_pickled_adapter_is_never_loaded(
    adapter_dir: tuple[Path, Path, torch.Tensor],
) -> None:
    adapter, base, _ = adapter_dir
    torch.save({}, adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises(ModelNotFoundError, match="pickled weights are never loaded"):
        load_into(base, adapter=str(adapter))


@pytest.mark.parametrize(
    ("generation", "config", "tokenizer", "expected"),
    [
        (2, 2, 2, {2}),
        ([1, 7], 2, None, {1, 2, 7}),
        (None, [3], 0, {0, 3}),
        (None, None, None, set()),
    ],
)
def test_end_tokens_come_from_all_configs(
    generation: Any, config: Any, tokenizer: Any, expected: set[int]
) -> None:
    text_config = SimpleNamespace(eos_token_id=config)
    model = SimpleNamespace(
        generation_config=SimpleNamespace(eos_token_id=generation),
        config=SimpleNamespace(get_text_config=lambda: text_config),
    )
    found = find_end_tokens(model, SimpleNamespace(eos_token_id=tokenizer))  # type: ignore[arg-type]
    assert found == expected


def test_bundled_models_load_without_a_progress_bar(capsys: pytest.CaptureFixture[str]) -> None:
    from transformers.utils import logging

    before = logging.is_progress_bar_enabled()
    load.load_model("smollm2-135m-instruct", prompt="chat")
    assert capsys.readouterr().err == ""
    assert logging.is_progress_bar_enabled() == before
