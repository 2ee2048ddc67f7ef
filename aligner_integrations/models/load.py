"""Loading an aligner's weights and tokenizer: bundled, local directory or hub id."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligner_integrations.decoding.linears import pack_linears
from aligner_integrations.decoding.steering import DETAILS_FILE, Steering
from aligner_integrations.errors import (
    ConfigurationError,
    ModelIntegrityError,
    ModelNotFoundError,
    SteeringError,
)
from aligner_integrations.models import bundled
from aligner_integrations.models.directories import find_directory
from aligner_integrations.models.vetting import (
    ADAPTER_CONFIG,
    check_adapter,
    check_safetensors,
    find_base_name,
)
from aligner_integrations.prompts import (
    CONFIG_FILE,
    PromptFormat,
    find_prompt_format,
    get_prompt_format,
)
from aligner_integrations.tokenization import PromptEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class LoadedModel:
    """A causal language model, ready to correct.

    Attributes:
        name: What the user called it.
        model: In eval mode, on its device(s).
        encoder: Its prompt format over its tokenizer.
        context_length: Most tokens that prompt and correction may have together.
        directory: Where its weights, or its adapter's, and the files for steering lie.
    """

    name: str
    model: PreTrainedModel
    encoder: PromptEncoder
    context_length: int
    directory: Path | None = None

    def load_steering(self, strength: float) -> Steering:
        """Read what this model is steered with.

        Args:
            strength: What it is wanted for; for the error.

        Raises:
            SteeringError: There are no such files, or they are broken, or another model's.
        """
        if self.directory is None or not (self.directory / DETAILS_FILE).is_file():
            raise SteeringError(
                f"strength={strength} needs steering files, and {self.name!r} has none; make them "
                f"with: aligner scan {self.name} --data TRIPLES --save, or use strength=0"
            )
        return Steering.from_directory(self.directory).fit(self.model)


def load_model(
    name: str,
    *,
    directory: Path | None = None,
    prompt: str | PromptFormat | dict[str, Any] | None = None,
    adapter: str | None = None,
    device: str | None = None,
    dtype: str | None = None,
    device_map: str | dict[str, Any] | None = None,
    revision: str | None = None,
    trust_remote_code: bool = False,
    pack_weights: bool = True,
) -> LoadedModel:
    """Load what `Aligner.from_pretrained` names; its docstring has the arguments.

    With ``directory``, what `find_directory` made of the name, the name is not looked up again.
    """
    if device and device_map:
        raise ConfigurationError(f"device={device!r} and device_map={device_map!r} exclude another")
    directory = directory or find_directory(name, revision, trust_remote_code)
    weights = directory
    if (directory / ADAPTER_CONFIG).is_file() and not (directory / "config.json").is_file():
        if adapter:
            raise ConfigurationError(
                f"{name!r} is itself an adapter; adapter={adapter!r} is one too"
            )
        adapter = str(directory)
        weights = find_directory(find_base_name(directory), None, trust_remote_code)
    adapter_directory = find_directory(adapter) if adapter else None
    if adapter_directory is not None:
        check_adapter(adapter_directory)
    trained = [d for d in (adapter_directory, directory) if d is not None]
    prompt_format = (
        get_prompt_format(prompt) if prompt is not None else _find_trained_prompt(name, trained)
    )
    model = _load_weights(
        weights, device, dtype, device_map, trust_remote_code, quiet=name in bundled.MODELS
    )
    if adapter_directory is not None:
        model = bundled.merge_adapter(model, adapter_directory)
    if pack_weights:
        pack_linears(model)
    tokenizer = load_tokenizer([*trained, weights], trust_remote_code)
    return LoadedModel(
        name,
        model.eval(),
        PromptEncoder(prompt_format, tokenizer, find_end_tokens(model, tokenizer)),
        find_context_length(model),
        _find_own_directory(name, trained),
    )


def find_context_length(model: PreTrainedModel) -> int:
    """Most positions that the model was built for."""
    config = model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", None) or 2048)


def find_end_tokens(model: PreTrainedModel, tokenizer: Any) -> set[int]:
    """End tokens by the generation config, the model config and the tokenizer."""
    configured = [
        getattr(model.generation_config, "eos_token_id", None),
        getattr(model.config.get_text_config(), "eos_token_id", None),
        tokenizer.eos_token_id,
    ]
    ids: set[int] = set()
    for value in configured:
        ids |= set(value) if isinstance(value, (list, tuple)) else {value} - {None}
    return ids


def _find_own_directory(name: str, trained: list[Path]) -> Path:
    """Of a bundled aligner the package's, since the prepared one may differ between machines."""
    is_bundled = len(trained) == 1 and name in bundled.MODELS and bundled.MODELS[name].adapter
    return bundled.DATA if is_bundled else trained[0]


def _find_trained_prompt(name: str, directories: list[Path]) -> PromptFormat:
    said = (directory for directory in directories if (directory / CONFIG_FILE).is_file())
    return find_prompt_format(name, next(said, None))


def _load_weights(
    directory: Path,
    device: str | None,
    dtype: str | None,
    device_map: str | dict[str, Any] | None,
    trust_remote_code: bool,
    *,
    quiet: bool,
) -> PreTrainedModel:
    if not quiet:  # of a bundled model we made the files ourselves
        check_safetensors(directory, trust_remote_code)
    if device_map is None and device is None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    place = {"device_map": device_map} if device_map is not None else {}
    torch_dtype = _find_dtype(dtype, device)
    try:
        with _without_progress_bar(quiet):
            model: PreTrainedModel
            model, info = AutoModelForCausalLM.from_pretrained(
                directory,
                dtype=torch_dtype,
                use_safetensors=True,
                trust_remote_code=trust_remote_code,
                output_loading_info=True,
                **place,
            )
    except torch.OutOfMemoryError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError) as error:
        raise ModelIntegrityError(
            f"{directory} can't be loaded: {type(error).__name__}: {error!s:.200}"
        ) from error
    if missing := sorted(info["missing_keys"]):
        raise ModelIntegrityError(
            f"{directory} has no weights for {', '.join(missing[:3])}, which would be random "
            "numbers; fetch it anew"
        )
    return model if device is None else model.to(device)  # type: ignore[arg-type]


def _find_dtype(dtype: str | None, device: str | None) -> torch.dtype | str:
    """fp32 on a CPU, where half precision is slow; elsewhere as the checkpoint was saved."""
    if dtype is None:
        return torch.float32 if device == "cpu" else "auto"
    if dtype == "auto":
        return dtype
    found = getattr(torch, str(dtype).removeprefix("torch."), None)
    if not isinstance(found, torch.dtype) or not found.is_floating_point:
        raise ConfigurationError(
            f"dtype={dtype!r} is no floating-point dtype of torch; use 'float32', 'bfloat16', "
            "'float16' or 'auto'"
        )
    return found


def load_tokenizer(directories: list[Path], trust_remote_code: bool) -> Any:
    """The tokenizer of the first of these directories that has one.

    Raises:
        ModelNotFoundError: None has.
        ModelIntegrityError: Its files are broken, or need code of their own.
    """
    for directory in directories:
        if not any((directory / f).is_file() for f in ("tokenizer.json", "tokenizer.model")):
            continue
        try:
            return AutoTokenizer.from_pretrained(directory, trust_remote_code=trust_remote_code)
        except ImportError:  # a package that it needs
            raise
        except Exception as error:  # tokenizers raises plain exceptions
            raise ModelIntegrityError(
                f"the tokenizer in {directory} can't be loaded: {type(error).__name__}: "
                f"{error!s:.200}"
            ) from error
    raise ModelNotFoundError(
        f"no tokenizer.json or tokenizer.model in {', '.join(map(str, directories))}; save the "
        "tokenizer beside the weights with tokenizer.save_pretrained(directory)"
    )


@contextlib.contextmanager
def _without_progress_bar(quiet: bool) -> Iterator[None]:
    from transformers.utils import logging as transformers_logging

    hide = quiet and transformers_logging.is_progress_bar_enabled()
    if hide:
        transformers_logging.disable_progress_bar()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)
            yield
    finally:
        if hide:
            transformers_logging.enable_progress_bar()
