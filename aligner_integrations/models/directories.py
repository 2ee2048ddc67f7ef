"""Where a model's files lie: bundled, in a local directory, or fetched from the model hub."""

from __future__ import annotations

from pathlib import Path

from aligner_integrations.errors import ModelNotFoundError
from aligner_integrations.models import bundled
from aligner_integrations.models.vetting import check_files

_DATA_FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.txt"]


def find_directory(name: str, revision: str | None = None, with_code: bool = False) -> Path:
    """The directory of a bundled model, of a path, or of a model fetched from the hub.

    Raises:
        ModelNotFoundError: It is none of them.
        ModelIntegrityError: Its files are broken, or lead out of it.
    """
    if name in bundled.MODELS:
        return bundled.prepare(name)
    path = Path(name).expanduser()
    if path.is_dir():
        check_files(path)
        return path
    if path.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1 or "\\" in name:
        raise ModelNotFoundError(f"{name!r} is not a directory on this machine; correct the path")
    path = fetch(
        name,
        revision,
        [*_DATA_FILES, *(["*.py"] if with_code else [])],
        f"{name!r} is neither a bundled model ({', '.join(bundled.MODELS)}), nor a directory here, "
        "nor could it be fetched from the model hub: {reason}",
    )
    check_files(path)
    return path


def fetch(name: str, revision: str | None, patterns: list[str], failure: str) -> Path:
    """Files of a model from the hub, or of its cache here.

    Raises:
        ModelNotFoundError: They can't be had; ``failure`` says so, with ``{reason}`` filled in.
    """
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, revision=revision, allow_patterns=patterns))
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelNotFoundError(failure.replace("{reason}", reason)) from error
