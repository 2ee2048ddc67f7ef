"""Telling the weights of models apart by their content."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from aligner_integrations.models.directories import find_directory

_FILES = ("*.json", "*.safetensors", "*.jinja", "*.model", "*.txt")


def fingerprint_model(name: str, revision: str | None = None) -> str:
    """A hash of a model's files: weights, config, tokenizer, prompt format, an adapter's base too.

    A model of the hub is fetched first. Its files in the hub's cache are named by their hashes,
    others are read.

    Args:
        name: Bundled name, directory or hub id.
        revision: Branch, tag or commit on the hub.

    Raises:
        ModelNotFoundError: There is no such model.
    """
    directory = find_directory(name, revision)
    digest = hashlib.blake2b(digest_size=16)
    for path in sorted(file for pattern in _FILES for file in directory.glob(pattern)):
        digest.update(f"{path.name} {_hash_file(path)}\n".encode())
    adapter = directory / "adapter_config.json"
    if adapter.is_file() and not (directory / "config.json").is_file():
        base = json.loads(adapter.read_text(encoding="utf-8")).get("base_model_name_or_path")
        if base:
            digest.update(fingerprint_model(str(base)).encode())
    return digest.hexdigest()


def _hash_file(path: Path) -> str:
    target = path.resolve()
    if target.parent.name == "blobs":  # huggingface_hub names them by SHA-256 or git's SHA-1
        return target.name
    digest = hashlib.blake2b(digest_size=16)
    with target.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()
