"""Loading the judges that are local models: their weights, tokenizers and limits."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from pathlib import Path
from string import Formatter
from typing import TYPE_CHECKING, Any

from aligner_integrations.errors import ConfigurationError, ModelIntegrityError

if TYPE_CHECKING:
    import torch

logger = logging.getLogger(__name__)
_SAFE_RLHF_HEAD = "score_head"


def describe_weights(name: str, revision: str | None) -> dict[str, Any]:
    """A model as plain data; that of a directory changes when one of its files does."""
    described: dict[str, Any] = {"name": name, "revision": revision}
    directory = Path(name).expanduser()
    if directory.is_dir():
        files = sorted([*directory.glob("*.json"), *directory.glob("*.safetensors")])
        described["files"] = [[f.name, f.stat().st_size, f.stat().st_mtime_ns] for f in files]
    return described


def load_classifier(
    name: str, *, revision: str | None, device: str | None, dtype: str | None
) -> tuple[Any, Any]:
    """A sequence classifier with one output, in eval mode, and its tokenizer.

    Safetensors only, and no code from the model's directory is run. Checkpoints of safe-rlhf's
    ``AutoModelForScore`` load as the sequence classifiers that they are but for their head's name.

    Raises:
        ConfigurationError: The model has more outputs than one, or normalizes its scores.
        ModelIntegrityError: The checkpoint has no weights for the head: a head of random numbers
            would give scores all the same.
        ModelNotFoundError: There is no such model, or no safetensors.
    """
    from transformers import AutoConfig, AutoModelForSequenceClassification

    from aligner_integrations.models.directories import find_directory
    from aligner_integrations.models.load import load_tokenizer
    from aligner_integrations.models.vetting import check_safetensors

    directory = find_directory(name, revision)
    check_safetensors(directory)
    config = AutoConfig.from_pretrained(directory, trust_remote_code=False)
    options: dict[str, Any] = {}
    if any(str(one).endswith("ForScore") for one in config.architectures or ()):
        if getattr(config, "do_normalize", False):
            raise ConfigurationError(
                f"{name!r} normalizes its scores (do_normalize), which only safe-rlhf's own class "
                "does; save it with do_normalize=false, or score with safe-rlhf"
            )
        config.num_labels = int(getattr(config, "score_dim", 1))
        options["key_mapping"] = {rf"^{_SAFE_RLHF_HEAD}\.": "score."}
    if config.num_labels != 1:
        raise ConfigurationError(
            f"{name!r} has {config.num_labels} outputs; a reward model has one, so this is a "
            "classifier of something else"
        )
    model, info = AutoModelForSequenceClassification.from_pretrained(
        directory,
        config=config,
        dtype=_find_dtype(dtype, device),
        use_safetensors=True,
        trust_remote_code=False,
        output_loading_info=True,
        **options,
    )
    if missing := sorted(info["missing_keys"]):
        raise ModelIntegrityError(
            f"{name!r} has no weights for {', '.join(missing[:3])}: its scores would be random "
            "numbers; name a checkpoint that was trained as a reward model"
        )
    tokenizer = load_tokenizer([directory], False)
    bias = _read_head_bias(directory)
    if bias is not None and getattr(model.score, "bias", None) is None:
        _add_bias(model.score, bias)
    return model.to(find_device(device)).eval(), tokenizer


def load_causal(
    name: str, *, revision: str | None, device: str | None, dtype: str | None
) -> tuple[Any, Any]:
    """A causal language model in eval mode, and its tokenizer; safetensors only.

    Raises:
        ModelNotFoundError: There is no such model, or no safetensors.
    """
    from transformers import AutoModelForCausalLM

    from aligner_integrations.models.directories import find_directory
    from aligner_integrations.models.load import load_tokenizer
    from aligner_integrations.models.vetting import check_safetensors

    directory = find_directory(name, revision)
    check_safetensors(directory)
    model: Any = AutoModelForCausalLM.from_pretrained(
        directory,
        dtype=_find_dtype(dtype, device),
        use_safetensors=True,
        trust_remote_code=False,
    )
    return model.to(find_device(device)).eval(), load_tokenizer([directory], False)


def find_device(device: str | None) -> str:
    """The device that was asked for, else a GPU if there is one."""
    import torch

    return device or ("cuda" if torch.cuda.is_available() else "cpu")


def find_max_length(model: Any, tokenizer: Any) -> int:
    """Most tokens that the model and its tokenizer were made for."""
    from aligner_integrations.models.load import find_context_length

    return int(min(find_context_length(model), tokenizer.model_max_length))


def check_template(template: str, *names: str, also: Sequence[str] = ()) -> None:
    """Raise `ConfigurationError` unless a template has these fields, and no others but ``also``."""
    try:
        fields = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError as error:
        raise ConfigurationError(f"{template=} is no template: {error}") from None
    if not set(names) <= fields or not fields <= {*names, *also}:
        raise ConfigurationError(
            f"{template=} must hold {' and '.join(f'{{{name}}}' for name in names)}, and no other "
            f"field{''.join(f' but {{{name}}}' for name in also)}; write other braces twice"
        )


def defuse(text: str, tokenizer: Any) -> str:
    """A text in which no special token of the tokenizer stands: it is data, and ends nothing.

    A zero-width space behind the first character of each breaks it.
    """
    special = [str(t) for t in tokenizer.all_special_tokens]
    special += [token.content for token in tokenizer.added_tokens_decoder.values() if token.special]
    pattern = "|".join(map(re.escape, sorted(set(special), key=len, reverse=True)))
    if not pattern:
        return text
    return re.sub(pattern, lambda match: f"{match[0][0]}\u200b{match[0][1:]}", text)


def pad(rows: Sequence[Sequence[int]], value: int, device: Any) -> torch.Tensor:
    """Rows padded on the right to the longest."""
    import torch

    longest = max(map(len, rows))
    return torch.tensor([[*row, *[value] * (longest - len(row))] for row in rows], device=device)


def _find_dtype(dtype: str | None, device: str | None) -> Any:
    """As the model loader does: fp32 on a CPU, elsewhere as the checkpoint was saved."""
    import torch

    if dtype is None:
        return torch.float32 if find_device(device) == "cpu" else "auto"
    found = "auto" if dtype == "auto" else getattr(torch, dtype, None)
    if found != "auto" and not (isinstance(found, torch.dtype) and found.is_floating_point):
        raise ConfigurationError(
            f"dtype={dtype!r} is no floating-point dtype of torch; use 'float32', 'bfloat16', "
            "'float16' or 'auto'"
        )
    return found


def _read_head_bias(directory: Path) -> torch.Tensor | None:
    """The bias of safe-rlhf's head, for which transformers' head has no place."""
    from safetensors import safe_open

    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, "pt") as tensors:
            if f"{_SAFE_RLHF_HEAD}.bias" in tensors.keys():  # noqa: SIM118 - it is no mapping
                found: torch.Tensor = tensors.get_tensor(f"{_SAFE_RLHF_HEAD}.bias")
                return found
    return None


def _add_bias(head: Any, bias: torch.Tensor) -> None:
    import torch

    head.bias = torch.nn.Parameter(bias.to(head.weight.dtype), requires_grad=False)
