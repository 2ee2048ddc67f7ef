"""What a model directory may hold, checked before a library reads it.

A directory may come from anybody. Libraries follow what its files say: to weights elsewhere, to
pickles, to code on a hub, to sizes that fill the memory. Here each of these is an error instead.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from aligner_integrations.errors import (
    ConfigurationError,
    ModelIntegrityError,
    ModelNotFoundError,
)

ADAPTER_CONFIG = "adapter_config.json"
ADAPTER_WEIGHTS = "adapter_model.safetensors"
_CONFIG, _WEIGHTS = "config.json", "model.safetensors"
_INDEX = f"{_WEIGHTS}.index.json"
_SMALL, _LARGE = 32 << 20, 256 << 20  # bytes; the largest known tokenizers have 35 MB
_LARGE_FILES = ("tokenizer.json", "vocab.json", "merges.txt", "tokenizer.model", "vocab.txt")
_READ = (".json", ".safetensors", ".jinja", ".model", ".txt", ".py")
_TEMPLATES = "additional_chat_templates"
_COUNT = re.compile(r"(?:layers|n_layer|experts)$")
_LEAST_COUNT = 1000
_PER_BYTE, _LEAST_NUMBERS = 4, 50_000_000  # 4-bit weights have two numbers a byte, tied ones twice
_SHOWN_KEYS = ("megatron_config", "layer_replication")


def check_files(directory: Path) -> None:
    """Check what is read of any directory: links, sizes, and that configs are JSON objects.

    Raises:
        ModelIntegrityError: A link leads out of the directory (the model hub's own cache may link
            within itself), a file is larger than any of its kind, or a config is broken.
    """
    root = directory.resolve()
    for path in _find_read(directory):
        _check_link(path, root)
        if path.suffix == ".safetensors" or not path.is_file():
            continue
        limit = _LARGE if path.name in _LARGE_FILES else _SMALL
        if path.stat().st_size > limit:
            raise ModelIntegrityError(
                f"{path} has {path.stat().st_size:,} bytes, and no such file needs more than "
                f"{limit:,}; it is broken or made to fill the memory"
            )
    for name in (_CONFIG, "generation_config.json", "tokenizer_config.json", ADAPTER_CONFIG):
        if (directory / name).is_file():
            read_object(directory / name)


def check_safetensors(directory: Path, with_code: bool = False) -> None:
    """Check the weights that transformers would load, and that the config fits them.

    Args:
        directory: Of a whole model, no adapter.
        with_code: Whether the model may bring its own code.

    Raises:
        ModelNotFoundError: There are none, or only pickled ones.
        ModelIntegrityError: They are broken, or elsewhere, or the config makes far more of them.
        ConfigurationError: The model needs code of its own.
    """
    files = _find_weights(directory)
    if (directory / ADAPTER_CONFIG).is_file():  # which transformers would put on top
        check_adapter(directory)
    tensors = sum(len(read_shapes(path)) for path in files)
    if not (directory / _CONFIG).is_file():
        return
    config = read_object(directory / _CONFIG)
    _check_config(directory / _CONFIG, config, tensors, with_code)
    if not with_code:
        _check_size(directory, sum(path.stat().st_size for path in files))


def check_adapter(directory: Path) -> str:
    """Check a peft adapter: LoRA, in safetensors, of a size that its weights show.

    Returns:
        What it calls its base.

    Raises:
        ModelNotFoundError: It has no safetensors.
        ModelIntegrityError: Its config is broken, or does not fit the weights.
        ConfigurationError: It is of a kind that can't be merged.
    """
    path = directory / ADAPTER_CONFIG
    if not (directory / ADAPTER_WEIGHTS).is_file():
        raise ModelNotFoundError(
            f"{directory} has no {ADAPTER_WEIGHTS}; pickled weights are never loaded, because "
            "they can run code: convert them with safetensors' save_file"
        )
    config = read_object(path)
    if str(config.get("peft_type", "")).upper() != "LORA":
        raise ConfigurationError(
            f"{path}: peft_type={config.get('peft_type')!r:.80} can't be merged; only LORA can"
        )
    if used := [key for key in _SHOWN_KEYS if config.get(key)]:
        raise ConfigurationError(f"{path}: {used[0]} can't be merged; save the adapter without it")
    shapes = read_shapes(directory / ADAPTER_WEIGHTS).values()
    largest = max((size for shape in shapes for size in shape), default=0)
    ranks = config.get("rank_pattern") or {}
    for rank in (config.get("r", 0), *(ranks.values() if isinstance(ranks, dict) else ())):
        if not isinstance(rank, int) or rank > largest:
            raise ModelIntegrityError(
                f"{path} says rank {rank!r:.80}, but no side of its weights is longer than "
                f"{largest}; the two files do not belong together"
            )
    return _find_base_name(path, config)


def find_base_name(directory: Path) -> str:
    """What an adapter calls its base.

    Raises:
        ModelIntegrityError: It calls it nothing.
    """
    path = directory / ADAPTER_CONFIG
    return _find_base_name(path, read_object(path))


def read_object(path: Path) -> dict[str, Any]:
    """A JSON file that holds an object.

    Raises:
        ModelIntegrityError: It does not.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ModelIntegrityError(f"{path} is no JSON: {error!s:.200}; fetch it anew") from None
    if not isinstance(found, dict):
        raise ModelIntegrityError(f"{path} holds no JSON object; fetch it anew")
    return found


def read_shapes(path: Path) -> dict[str, list[int]]:
    """The shapes of a safetensors file's tensors, from its header alone.

    Raises:
        ModelIntegrityError: It is no such file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:  # type: ignore[no-untyped-call]
            return {name: file.get_slice(name).get_shape() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise ModelIntegrityError(
            f"{path} is no safetensors file: {error!s:.200}; fetch it anew"
        ) from None


def _find_base_name(path: Path, config: dict[str, Any]) -> str:
    name = config.get("base_model_name_or_path")
    if not isinstance(name, str) or not name.strip():
        raise ModelIntegrityError(
            f"{path} says base_model_name_or_path={name!r:.80}, which names no model; write the "
            "base's directory or hub id there, or load the base with adapter=..."
        )
    return name


def _find_read(directory: Path) -> Iterator[Path]:
    for path in directory.iterdir():
        if path.name == _TEMPLATES:
            yield path
            if path.is_dir():
                yield from path.iterdir()
        elif path.suffix in _READ:
            yield path


def _check_link(path: Path, root: Path) -> None:
    from huggingface_hub import constants

    target = path.resolve()
    cache = Path(constants.HF_HUB_CACHE).resolve()
    allowed = [root, *([cache] if root.is_relative_to(cache) else [])]
    if root.parent.name == "snapshots":  # of a hub's cache that lies elsewhere
        allowed.append(root.parent.parent / "blobs")
    if not any(target.is_relative_to(place) for place in allowed):
        raise ModelIntegrityError(
            f"{path} is a link to {target}, out of the model's directory; put the file itself "
            "there, if it belongs to the model"
        )


def _find_weights(directory: Path) -> list[Path]:
    index = directory / _INDEX
    if (directory / _WEIGHTS).is_file():
        return [directory / _WEIGHTS]
    if not index.is_file():
        others = next(directory.glob("*.safetensors"), None)
        what = "no .safetensors file" if others is None else f"neither {_WEIGHTS} nor {_INDEX}"
        raise ModelNotFoundError(
            f"{directory} holds {what}; pickled weights are never loaded, because they can run "
            "code: convert them with safetensors' save_file"
        )
    parts = read_object(index).get("weight_map")
    if not isinstance(parts, dict) or not parts:
        raise ModelIntegrityError(f"{index} has no weight_map; fetch it anew")
    for part in parts.values():
        plain = isinstance(part, str) and PurePosixPath(part).name == part and "\\" not in part
        if not plain or not part.endswith(".safetensors"):
            raise ModelIntegrityError(
                f"{index} names {part!r:.200}, which is no .safetensors file beside it; such "
                "files are never followed"
            )
        if not (directory / part).is_file():
            raise ModelNotFoundError(f"{index} names {part!r}, which is not there; fetch it")
    return sorted({directory / part for part in parts.values()})


def _check_config(path: Path, config: dict[str, Any], tensors: int, with_code: bool) -> None:
    if config.get("transformers_weights") is not None:
        raise ModelIntegrityError(
            f"{path}: transformers_weights={config['transformers_weights']!r:.200} names other "
            f"weights than {_WEIGHTS}, and is not followed; remove it"
        )
    for key, value in _walk(config):
        if key.endswith("_implementation") and isinstance(value, str) and "/" in value:
            raise ConfigurationError(
                f"{path}: {key}={value!r:.200} would fetch code from a model hub and run it; "
                "remove it from the config"
            )
        most = max(_LEAST_COUNT, tensors)
        if _COUNT.search(key) and isinstance(value, int) and value > most:
            raise ModelIntegrityError(
                f"{path}: {key}={value}, but there are only {tensors} weights; config and weights "
                "do not belong together"
            )
    if config.get("auto_map") and not with_code and not _is_known(config):
        raise ConfigurationError(
            f"{path}: model_type={config.get('model_type')!r:.80} is code that comes with the "
            "model, and is not run; if you trust it, pass trust_remote_code=True"
        )


def _is_known(config: dict[str, Any]) -> bool:
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    return config.get("model_type") in CONFIG_MAPPING


def _walk(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Each plain value with its key; of a dict in an ``..._implementation``, with that key."""
    if isinstance(value, dict):
        for inner, one in value.items():
            name = key if key.endswith("_implementation") else inner
            yield from _walk(one, name)
    elif isinstance(value, list):
        for one in value:
            yield from _walk(one, key)
    else:
        yield key, value


def _check_size(directory: Path, size: int) -> None:
    """Build the model without memory, and count."""
    import torch
    from transformers import AutoConfig, AutoModel
    from transformers.models.auto.modeling_auto import MODEL_MAPPING

    try:
        config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
        if type(config) not in MODEL_MAPPING:
            return
        with torch.device("meta"):
            model = AutoModel.from_config(config, trust_remote_code=False)
        numbers = sum(one.numel() for one in (*model.parameters(), *model.buffers()))
    except ImportError:  # a package that this model needs
        raise
    except Exception as error:  # whatever a wrong value leads to
        raise ModelIntegrityError(
            f"{directory / _CONFIG} describes no model: {type(error).__name__}: {error!s:.200}"
        ) from error
    if numbers > max(_LEAST_NUMBERS, _PER_BYTE * size):
        raise ModelIntegrityError(
            f"{directory / _CONFIG} describes a model of {numbers:,} numbers, but the weights have "
            f"{size:,} bytes; config and weights do not belong together"
        )
