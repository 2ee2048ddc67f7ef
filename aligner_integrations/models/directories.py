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
    from huggingface_hub import snapshot_download

    try:
        wanted = [*_DATA_FILES, *(["*.py"] if with_code else [])]
        path = Path(snapshot_download(name, revision=revision, allow_patterns=wanted))
    except (OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelNotFoundError(
            f"{name!r} is neither a bundled model ({', '.join(bundled.MODELS)}), nor a directory "
            f"here, nor could it be fetched from the model hub: {reason}"
        ) from error
    check_files(path)
    return path
