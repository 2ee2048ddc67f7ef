"""The bundled models, made ready once: dequantised, merged and cached as safetensors.

``aligner-smol`` is SmolLM2-135M-Instruct plus the LoRA adapter in this package; the same base
without the adapter serves as a small upstream LLM.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligner_integrations.models import base_file
from aligner_integrations.prompts import CONFIG_FILE

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

DATA = Path(__file__).parent / "smol"
_ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors")
_MODEL_FILES = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "chat_template.jinja",
)
_FORMAT = "1"  # of the cached directory; a new number makes old caches unused


@dataclass(frozen=True, slots=True)
class BundledModel:
    """A model that this package can make ready without a model hub."""

    name: str
    description: str
    adapter: bool


MODELS = {
    model.name: model
    for model in (
        BundledModel(
            "aligner-smol", "135M aligner, English, CPU: SmolLM2-135M-Instruct + LoRA", True
        ),
        BundledModel(
            "smollm2-135m-instruct", "its base, a small upstream LLM for demos and tests", False
        ),
    )
}


def prepare(name: str) -> Path:
    """A directory that transformers and `Aligner.from_pretrained` load as is.

    Made on first use (about 10 s) and found again afterwards.

    Args:
        name: A key of `MODELS`.

    Raises:
        ModelNotFoundError: The base file is not on this machine.
        ModelIntegrityError: The base file is not the right one.
    """
    target = prepared_path(name)
    if is_complete(target):
        return target
    base = base_file.find_base()
    base_file.verify_base(base)
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f"{name}-") as scratch:
        made = Path(scratch) / "model"
        made.mkdir()
        _write(MODELS[name], base, made)
        try:
            os.replace(made, target)
        except OSError:  # another process was faster, or a broken directory is in the way
            if not is_complete(target):
                shutil.rmtree(target, ignore_errors=True)
                os.replace(made, target)
    logger.info("prepared %s in %s", name, target)
    return target


def prepared_path(name: str) -> Path:
    """Where `prepare` puts the model; the name tells base, adapter and format apart."""
    digest = hashlib.sha256(f"{_FORMAT} {base_file.SHA256}".encode())
    if MODELS[name].adapter:
        for file in _ADAPTER_FILES:
            digest.update((DATA / file).read_bytes())
    return base_file.cache_dir() / f"{name}-{digest.hexdigest()[:12]}"


def is_complete(directory: Path) -> bool:
    """Whether `prepare` has nothing left to do there."""
    files = ("config.json", "model.safetensors", "tokenizer.json")
    return all((directory / file).is_file() for file in files)


def _write(model: BundledModel, base: Path, directory: Path) -> None:
    from safetensors.torch import save_file

    llama: Any = _load_base(base)
    if model.adapter:
        llama = merge_adapter(llama, DATA)
        shutil.copyfile(DATA / CONFIG_FILE, directory / CONFIG_FILE)
    weights = llama.state_dict()
    del weights["lm_head.weight"]  # tied to the embeddings
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    for file in _MODEL_FILES:
        shutil.copyfile(DATA / file, directory / file)


def _load_base(path: Path) -> PreTrainedModel:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    from aligner_integrations.models.gguf import read_llama_weights

    config = LlamaConfig.from_pretrained(DATA)
    with torch.device("meta"):
        model = LlamaForCausalLM(config)
    weights = dict(
        read_llama_weights(
            path, heads=config.num_attention_heads, kv_heads=config.num_key_value_heads
        )
    )
    weights["lm_head.weight"] = weights["model.embed_tokens.weight"]
    model.load_state_dict(weights, assign=True)
    return model


def merge_adapter(model: PreTrainedModel, directory: Path) -> PreTrainedModel:
    """Add a LoRA adapter's product to the weights, and drop the adapter."""
    from peft import PeftModel

    with warnings.catch_warnings():  # peft asks transformers for a name that goes away
        warnings.filterwarnings("ignore", ".*is_gradient_checkpointing", FutureWarning)
        adapted = PeftModel.from_pretrained(model, str(directory))
    merged: PreTrainedModel = adapted.merge_and_unload()
    return merged
