"""What a client of an aligner's server needs of the model: its tokenizer, and no weights."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from aligner_integrations.errors import ModelIntegrityError, ModelNotFoundError
from aligner_integrations.models import bundled
from aligner_integrations.models.directories import fetch
from aligner_integrations.models.vetting import (
    ADAPTER_CONFIG,
    check_files,
    find_base_name,
    read_object,
)
from aligner_integrations.prompts import (
    CONFIG_FILE,
    PromptFormat,
    find_prompt_format,
    get_prompt_format,
)
from aligner_integrations.tokenization import PromptEncoder

_PATTERNS = ["*config.json", "tokenizer*", "*.jinja", "special_tokens_map.json"]
_LENGTHS = ("max_position_embeddings", "n_positions", "max_seq_len")


@dataclass(frozen=True, slots=True)
class ClientModel:
    """A model that runs elsewhere.

    Attributes:
        encoder: Its prompt format over its tokenizer.
        tokenizer: A second copy of the tokenizer, which reads special tokens in a text as a
            server does.
        context_length: Most positions that it was built for; None where nothing says so.
    """

    encoder: PromptEncoder
    tokenizer: Tokenizer
    context_length: int | None


@dataclass(slots=True)
class _PlainTokenizer:
    """What `PromptEncoder` needs of a tokenizer, without transformers and thus without torch."""

    backend_tokenizer: Tokenizer
    bos_token_id: int | None
    eos_token_id: int | None


def load_client(
    model: str,
    prompt: str | PromptFormat | dict[str, Any] | None = None,
    revision: str | None = None,
) -> ClientModel:
    """Load tokenizer, prompt format and end tokens of a model.

    Args:
        model: A bundled model's name, a directory or a hub id, of which no weights are fetched.
        prompt: Prompt format; by default the one that the model's directory or hub id says.
        revision: Branch, tag or commit on the hub.

    Raises:
        ModelNotFoundError: There is no such model, or no tokenizer with it.
        ModelIntegrityError: A file is broken.
        PromptFormatError: Nothing says the prompt format, or the tokenizer does not fit it.
    """
    directory = _find_directory(model, revision)
    places = [directory]
    if (directory / ADAPTER_CONFIG).is_file() and not (directory / "config.json").is_file():
        places.append(_find_directory(find_base_name(directory), None))
    configured = directory if (directory / CONFIG_FILE).is_file() else None
    format_ = get_prompt_format(prompt) if prompt is not None else None
    if format_ is None:
        own = configured if not _is_upstream(model) else None
        format_ = find_prompt_format(model, own)
    tokenizer = _load_tokenizer(places, chat=format_.chat)
    second = Tokenizer.from_str(tokenizer.backend_tokenizer.to_str())
    second.no_padding()
    second.no_truncation()
    configs = list(_read_configs(places))
    ends = set(_find_ids(config.get("eos_token_id") for config in configs))
    ends |= {tokenizer.eos_token_id} - {None}
    encoder = PromptEncoder(format_, tokenizer, ends)
    return ClientModel(encoder, second, _find_context_length(configs))


def _is_upstream(model: str) -> bool:
    """Whether this is the bundled base, whose files lie beside the aligner's own."""
    return model in bundled.MODELS and not bundled.MODELS[model].adapter


def _find_directory(name: str, revision: str | None) -> Path:
    if name in bundled.MODELS:
        return bundled.DATA  # tokenizer and configs; the base is not needed for them
    path = Path(name).expanduser()
    if not path.is_dir():
        path = _fetch(name, revision)
    check_files(path)
    return path


def _fetch(name: str, revision: str | None) -> Path:
    remedy = (
        "pass tokenizer=..., a directory or hub id with the tokenizer of the model that the "
        "server runs"
    )
    if name.count("/") != 1 or name.startswith((".", "/", "~")) or "\\" in name:
        raise ModelNotFoundError(
            f"{name!r} is neither a bundled model, nor a directory, nor a hub id; {remedy}"
        )
    failure = f"the tokenizer of {name!r} could not be fetched from the model hub ({{reason}}); "
    return fetch(name, revision, _PATTERNS, failure + remedy)


def _load_tokenizer(directories: list[Path], *, chat: bool) -> Any:
    for directory in directories:
        if (directory / "tokenizer.json").is_file() and not chat:
            return _read_tokenizer(directory)
        if any((directory / name).is_file() for name in ("tokenizer.json", "tokenizer.model")):
            # Chat templates and sentencepiece models are transformers' own business.
            from aligner_integrations.models.load import load_tokenizer

            return load_tokenizer([directory], False)
    raise ModelNotFoundError(
        f"no tokenizer.json or tokenizer.model in {', '.join(map(str, directories))}; pass "
        "tokenizer=..., a directory or hub id that has one"
    )


def _read_tokenizer(directory: Path) -> _PlainTokenizer:
    path = directory / "tokenizer.json"
    try:
        backend = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises plain exceptions
        raise ModelIntegrityError(
            f"{path} can't be loaded: {error!s:.200}; fetch it anew"
        ) from error
    settings: dict[str, Any] = {}
    for name in ("special_tokens_map.json", "tokenizer_config.json"):
        if (directory / name).is_file():
            settings |= read_object(directory / name)
    return _PlainTokenizer(
        backend, _find_token(backend, settings, "bos"), _find_token(backend, settings, "eos")
    )


def _find_token(backend: Tokenizer, settings: dict[str, Any], kind: str) -> int | None:
    token = settings.get(f"{kind}_token")
    if isinstance(token, dict):
        token = token.get("content")
    return backend.token_to_id(token) if isinstance(token, str) else None


def _read_configs(directories: list[Path]) -> Iterator[dict[str, Any]]:
    for directory in directories:
        for name in ("config.json", "generation_config.json"):
            if (directory / name).is_file():
                config = read_object(directory / name)
                yield config
                if isinstance(text := config.get("text_config"), dict):
                    yield text


def _find_ids(values: Iterator[Any]) -> Iterator[int]:
    for value in values:
        ids = value if isinstance(value, list) else [value]
        yield from (i for i in ids if isinstance(i, int) and not isinstance(i, bool))


def _find_context_length(configs: list[dict[str, Any]]) -> int | None:
    said = (config.get(name) for config in configs for name in _LENGTHS)
    return next((value for value in said if isinstance(value, int) and value > 0), None)
