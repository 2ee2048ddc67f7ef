"""The model that training begins with, its tokenizer and its prompt format."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from aligner_integrations.imports import require
from aligner_integrations.models.directories import find_directory
from aligner_integrations.models.load import (
    find_end_tokens,
    load_tokenizer,
)
from aligner_integrations.models.vetting import check_safetensors
from aligner_integrations.prompts import CONFIG_FILE, get_prompt_format
from aligner_integrations.tokenization import PromptEncoder
from aligner_integrations.training.arguments import make_adapter
from aligner_integrations.training.config import TrainingConfig

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(slots=True)
class TrainedModel:
    """A model in training.

    Attributes:
        model: The model, with its adapter if it gets one.
        tokenizer: A tokenizer of its own for saving; the encoder changes settings of its.
        encoder: Prompt format and tokenizer, as at inference.
    """

    model: PreTrainedModel
    tokenizer: Any
    encoder: PromptEncoder


def load_base(config: TrainingConfig, weights: Path | None = None) -> TrainedModel:
    """Load a base for training.

    Args:
        config: The run.
        weights: Where an earlier stage left its weights or its adapter; None to begin with the
            base as it is.

    Raises:
        ModelNotFoundError: It is nowhere.
        ModelIntegrityError: Its files are broken, or lead out of it.
        MissingExtraError: QLoRA without the extra ``[qlora]``.
    """
    from transformers import AutoModelForCausalLM

    directory = find_directory(config.base)
    check_safetensors(directory)
    options: dict[str, Any] = {
        "dtype": torch.float32,
        "use_safetensors": True,
        "trust_remote_code": False,
    }
    if config.method == "qlora":
        options |= _quantise(config.device)
    start = weights if weights is not None and config.method == "full" else directory
    model = AutoModelForCausalLM.from_pretrained(start, **options)
    model.config.use_cache = False
    if config.gradient_checkpointing:
        model.gradient_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    if config.method != "full":
        model = _add_adapter(model, config, weights)
    tokenizer = load_tokenizer([directory], trust_remote_code=False)
    encoder = PromptEncoder(
        get_prompt_format(config.prompt),
        load_tokenizer([directory], trust_remote_code=False),
        find_end_tokens(model, tokenizer),
    )
    return TrainedModel(model, tokenizer, encoder)


def save_aligner(trained: TrainedModel, config: TrainingConfig, directory: Path) -> None:
    """Write what `Aligner.from_pretrained` loads: weights or adapter, tokenizer, prompt format."""
    from peft import PeftModel

    directory.mkdir(parents=True, exist_ok=True)
    model = trained.model
    if isinstance(model, PeftModel):
        model.peft_config["default"].base_model_name_or_path = config.base
    with warnings.catch_warnings():  # peft asks the hub for the base's config
        warnings.simplefilter("ignore", UserWarning)
        model.save_pretrained(str(directory), safe_serialization=True)
    trained.tokenizer.save_pretrained(str(directory))
    prompt = {"prompt": get_prompt_format(config.prompt).to_dict()}
    (directory / CONFIG_FILE).write_text(json.dumps(prompt, indent=2), encoding="utf-8")


def _add_adapter(
    model: PreTrainedModel, config: TrainingConfig, weights: Path | None
) -> PreTrainedModel:
    from peft import PeftModel, get_peft_model, prepare_model_for_kbit_training

    if config.method == "qlora":
        model = prepare_model_for_kbit_training(
            model, use_gradient_checkpointing=config.gradient_checkpointing
        )
    if weights is not None:
        return PeftModel.from_pretrained(model, str(weights), is_trainable=True)  # type: ignore[no-any-return]
    return get_peft_model(model, make_adapter(config.lora))  # type: ignore[no-any-return]


def _quantise(device: str | None) -> dict[str, Any]:
    require("bitsandbytes", "qlora")
    from transformers import BitsAndBytesConfig

    quantisation = BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_compute_dtype=torch.bfloat16,
        bnb_4bit_use_double_quant=True,
    )
    # By itself transformers would put a quantised model on a GPU wherever there is one.
    place = {"device_map": {"": "cpu"}} if device == "cpu" else {}
    return {"quantization_config": quantisation, **place}
