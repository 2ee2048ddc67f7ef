"""`Aligner.from_server` on a real server: llama.cpp with the bundled aligner as a GGUF file."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

from aligner_integrations import Aligner
from aligner_integrations.errors import ContextOverflowError, ServerError
from aligner_integrations.models.export import export_gguf
from tests.engines.llama_cpp import CONTEXT, KEY, run_llama_cpp
from tests.engines.served import CORRECTED, EGGS, PAIRS, ServedAligner

pytestmark = [
    pytest.mark.skipif(
        importlib.util.find_spec("xllamacpp") is None,
        reason="xllamacpp, which holds llama.cpp's server, is not installed",
    ),
    pytest.mark.timeout(900),  # on a machine that does other things too
]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return export_gguf(tmp_path_factory.mktemp("gguf") / "aligner-smol.gguf")


@pytest.fixture(scope="module")
def url(model: Path) -> Iterator[str]:
    with run_llama_cpp(model) as url:
        yield url


@pytest.fixture(scope="module")
def served(url: str) -> Iterator[Aligner]:
    aligner = Aligner.from_server(url, api_key=KEY, max_concurrency=2)
    yield aligner
    aligner.engine.close()  # type: ignore[attr-defined]


class TestLlamaCpp(ServedAligner):
    """The same on llama.cpp."""


def test_prompts_as_text(url: str) -> None:
    aligner = Aligner.from_server(url, api_key=KEY, prompt_as="text")
    assert aligner.correct(*EGGS).text == CORRECTED
    # The prompt's structure is whole: it answers, and does not go on with the user's.
    assert "3 minutes" in aligner.correct(*PAIRS[-1]).text
    aligner.engine.close()  # type: ignore[attr-defined]


def test_the_servers_own_limit(served: Aligner) -> None:
    with pytest.raises(ContextOverflowError, match=f"{CONTEXT} tokens"):
        served.correct("Eggs?", "Boil them well. " * 400)


def test_a_wrong_key(url: str) -> None:
    aligner = Aligner.from_server(url, api_key="sk-wrong")
    with pytest.raises(ServerError, match="turned the key down"):
        aligner.correct(*EGGS)
    aligner.engine.close()  # type: ignore[attr-defined]


def test_speculation_changes_no_correction(model: Path) -> None:
    with run_llama_cpp(model, "ngram_simple") as url:
        aligner = Aligner.from_server(url, api_key=KEY)
        assert aligner.correct(*EGGS).text == CORRECTED
        aligner.engine.close()  # type: ignore[attr-defined]
