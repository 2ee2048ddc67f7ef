"""A model's tokenizer, prompt format and ends, without its weights."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from aligner_integrations.errors import ModelIntegrityError, ModelNotFoundError, PromptFormatError
from aligner_integrations.models.bundled import DATA
from aligner_integrations.models.client import load_client


def copy(directory: Path, *names: str) -> Path:
    for name in names:
        shutil.copyfile(DATA / name, directory / name)
    return directory


def test_bundled_needs_no_base(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ALIGNER_CACHE_DIR", str(tmp_path))
    client = load_client("aligner-smol")
    assert client.encoder.prompt.name == "aligner-smol"
    assert client.encoder.stop_ids == {2}
    assert client.context_length == 8192
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(PromptFormatError, match="nothing says"):
        load_client("smollm2-135m-instruct")  # the base was not trained to correct


def test_chat_format_is_rendered_by_the_template() -> None:
    client = load_client("smollm2-135m-instruct", "chat")
    assert client.encoder.prompt.template.startswith("<|im_start|>system\n")


def test_adapter_directory_takes_the_rest_from_its_base(tmp_path: Path) -> None:
    copy(tmp_path, "adapter_config.json", "adapter_model.safetensors", "aligner_config.json")
    config = json.loads((tmp_path / "adapter_config.json").read_text())
    config["base_model_name_or_path"] = "smollm2-135m-instruct"
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    client = load_client(str(tmp_path))
    assert (client.encoder.prompt.name, client.context_length) == ("aligner-smol", 8192)


def test_ends_of_the_generation_config(tmp_path: Path) -> None:
    copy(tmp_path, "tokenizer.json", "tokenizer_config.json", "aligner_config.json")
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [0, 2]}')
    client = load_client(str(tmp_path))
    assert client.encoder.stop_ids == {0, 2}
    assert client.context_length is None


@pytest.mark.parametrize("name", ["aligner-7b", "./missing", "a/b/c"])
def test_no_such_tokenizer(name: str) -> None:
    with pytest.raises(ModelNotFoundError, match=r"pass tokenizer=\.\.\."):
        load_client(name, "edit-pair")


def test_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    copy(tmp_path, "tokenizer.json", "tokenizer_config.json")
    asked: list[dict[str, Any]] = []

    def download(name: str, **arguments: Any) -> str:
        asked.append({"name": name, **arguments})
        return str(tmp_path)

    monkeypatch.setattr("huggingface_hub.snapshot_download", download)
    client = load_client("some/aligner", "aligner-smol", "main")
    assert client.encoder.prompt.name == "aligner-smol"
    [request] = asked
    assert (request["name"], request["revision"]) == ("some/aligner", "main")
    assert not any("safetensors" in pattern for pattern in request["allow_patterns"])


def test_broken_files(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFoundError, match=r"no tokenizer\.json"):
        load_client(str(tmp_path), "aligner-smol")
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(ModelIntegrityError, match="can't be loaded"):
        load_client(str(tmp_path), "aligner-smol")
