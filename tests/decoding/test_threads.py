"""Work in a thread of its own: it ends, and what it does comes back."""

from __future__ import annotations

import threading
from contextvars import ContextVar
from pathlib import Path

import pytest
import torch

from aligner_integrations import Aligner
from aligner_integrations.decoding.threads import run_apart
from aligner_integrations.models import load
from tests.tiny import save_model

HERE = ContextVar("HERE", default="nothing")


def test_it_runs_apart_and_ends() -> None:
    HERE.set("context")
    thread, seen = run_apart(lambda: (threading.current_thread(), HERE.get()))
    assert thread is not threading.current_thread()
    assert not thread.is_alive()
    assert seen == "context"


def test_errors_come_back() -> None:
    def fail() -> None:
        raise ValueError("as it was")

    with pytest.raises(ValueError, match="as it was"):
        run_apart(fail)


def test_with_a_gpu_it_stays_for_each_thread_has_a_current_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert run_apart(threading.current_thread) is threading.current_thread()


def test_a_model_is_loaded_and_measured_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALIGNER_CACHE_DIR", str(tmp_path / "cache"))
    threads: list[threading.Thread] = []
    pack_linears = load.pack_linears

    def watch(model: torch.nn.Module) -> bool:
        threads.append(threading.current_thread())
        return pack_linears(model)

    monkeypatch.setattr(load, "pack_linears", watch)
    aligner = Aligner.from_pretrained(
        str(save_model(tmp_path, prompt="aligner-smol")), device="cpu"
    )
    aligner.calibrate()
    assert len(threads) == 1
    assert threads[0] is not threading.main_thread()
    assert not threads[0].is_alive()
    assert aligner.correct("Q?", "A.", on_error="original").text
