"""Fixtures that all tests share. No test reaches a model hub."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
# Threads that wait in a loop take the processor from others: ten times slower on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# With several workers each has a core to itself, and so have the processes that it starts.
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import json
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch
from hypothesis import settings

from aligner_integrations import Aligner
from aligner_integrations.engines.base import Job
from tests.chromium import CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Browser

torch.set_num_threads(1 if "PYTEST_XDIST_WORKER" in os.environ else 2)
# ALIGNER_ALL_PAIRS also has decoding/test_exactness_bundled.py leave nothing out.
thorough = bool(os.environ.get("ALIGNER_ALL_PAIRS"))
settings.register_profile("default", deadline=None, max_examples=100 if thorough else 30)
settings.load_profile("default")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files that take minutes first, so that no worker is left alone with one at the end."""
    long = ["decoding/test_exactness_bundled.py", "training/test_run.py", "docs/test_docs.py"]
    places = {Path(__file__).parent / name: place for place, name in enumerate(long)}
    items.sort(key=lambda item: places.get(item.path, len(long)))


@pytest.fixture(scope="session")
def aligner() -> Aligner:
    """The bundled aligner, real weights; one copy for the whole run."""
    from aligner_integrations.sharing import load_shared

    return load_shared()


@pytest.fixture
def silence(monkeypatch: pytest.MonkeyPatch) -> Callable[[Aligner], None]:
    """``silence(aligner)``: its engine works on, but nobody hears of it, so deadlines do pass.

    Without it a machine may be so busy that a model is done before the reader looks at a clock.
    """

    def submit(take: Callable[[Sequence[Job]], None], jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.emit = lambda event: None
        take(jobs)

    def silence(aligner: Aligner) -> None:
        monkeypatch.setattr(aligner.engine, "submit", partial(submit, aligner.engine.submit))

    return silence


@pytest.fixture(scope="session")
def tiny_model_dir(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Directories of random-weight models that `Aligner.from_pretrained` loads.

    ``tiny_model_dir("llama", tokenizer="byte-level", prompt="aligner-smol", seed=0, **config)``;
    architectures are llama, qwen2, gemma2, gemma3 and gpt2, tokenizers byte-level and llama-2. With
    ``writes="text"`` the model writes that text and ends, whatever it is asked (no token may come
    twice in it). Equal arguments give the same directory, so do not write into it.
    """
    from tests.tiny import save_model

    made: dict[str, Path] = {}

    def make(architecture: str = "llama", **arguments: Any) -> Path:
        key = json.dumps([architecture, arguments], sort_keys=True)
        if key not in made:
            made[key] = save_model(tmp_path_factory.mktemp("tiny"), architecture, **arguments)
        return made[key]

    return make


@pytest.fixture(scope="session")
def writer(tiny_model_dir: Callable[..., Path]) -> Aligner:
    """A tiny model that always writes "Cool water, 😀 kindly." and ends."""
    directory = tiny_model_dir(prompt="aligner-smol", writes="Cool water, 😀 kindly.")
    return Aligner.from_pretrained(str(directory), device="cpu")


@pytest.fixture(scope="session")
def tiny_aligner(tiny_model_dir: Callable[..., Path]) -> Aligner:
    """A random-weight Llama with the bundled model's prompt format: fast, and writes nonsense."""
    return Aligner.from_pretrained(str(tiny_model_dir(prompt="aligner-smol")), device="cpu")


@pytest.fixture(scope="session")
def steered(tmp_path_factory: pytest.TempPathFactory) -> Aligner:
    """A tiny model with a planted direction; `tests.steered` says what it writes."""
    from tests.steered import save_steered

    directory = save_steered(tmp_path_factory.mktemp("steered"))
    return Aligner.from_pretrained(str(directory), device="cpu")


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
