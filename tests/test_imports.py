"""`import aligner_integrations` costs nothing."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import aligner_integrations

HEAVY = (
    "torch",
    "transformers",
    "tokenizers",
    "langchain",
    "langchain_core",
    "llama_index",
    "opentelemetry",
)
SCRIPT = """
import json, sys, time
started = time.perf_counter()
import aligner_integrations
seconds = time.perf_counter() - started
print(json.dumps([seconds, sorted({name.partition(".")[0] for name in sys.modules})]))
"""


def run(script: str) -> str:
    return subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    ).stdout


def test_import_loads_nothing_heavy_and_is_quick() -> None:
    runs = [json.loads(run(SCRIPT)) for _ in range(7)]
    assert not set(HEAVY) & set(runs[0][1])
    assert min(seconds for seconds, _ in runs) < 0.05


def test_a_wrong_name_is_told_before_torch_is_loaded() -> None:
    script = """
import sys
from aligner_integrations import Aligner
from aligner_integrations.errors import ModelNotFoundError
try:
    Aligner.from_pretrained("/no/such/model")
except ModelNotFoundError:
    print(*sys.modules)
"""
    loaded = set(run(script).split())
    assert "aligner_integrations.aligner" in loaded
    assert not set(HEAVY) & loaded


@pytest.mark.parametrize(
    "module", ["options", "prompts", "errors", "correction", "imports", "rendering"]
)
def test_light_modules_stay_light(module: str) -> None:
    script = f"import sys, aligner_integrations.{module}\nprint(*sys.modules)"
    assert not set(HEAVY) & set(run(script).split())


def test_aligner_itself_loads_torch_late() -> None:
    script = "import sys\nfrom aligner_integrations import Aligner\nprint(*sys.modules)"
    assert not set(HEAVY) & set(run(script).split())


def test_core_works_without_the_frameworks() -> None:
    script = """
import sys
for name in ("langchain_core", "langchain", "langgraph", "llama_index"):
    sys.modules[name] = None
from aligner_integrations import Aligner, Correction, GenerationOptions, PromptFormat
import aligner_integrations.models.load, aligner_integrations.engines.local
print("fine")
"""
    assert run(script) == "fine\n"


def test_public_names() -> None:
    core = {"Aligner", "Correction", "CorrectionStats", "Edit", "GenerationOptions", "PromptFormat"}
    assert core <= set(aligner_integrations.__all__) <= set(dir(aligner_integrations))
    for name in core:
        assert getattr(aligner_integrations, name).__module__.startswith("aligner_integrations.")
    with pytest.raises(AttributeError, match="has no attribute 'Alinger'"):
        aligner_integrations.Alinger  # noqa: B018
