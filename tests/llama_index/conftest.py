"""Real LlamaIndex objects over a few nodes."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from llama_index.core import MockEmbedding, VectorStoreIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.schema import TextNode

from aligner_integrations import Aligner
from aligner_integrations import step as step_module
from aligner_integrations.engines.base import Job
from tests.llama_index.upstream import ScriptedLLM

MakeEngine = Callable[..., BaseQueryEngine]


@pytest.fixture(scope="session")
def index() -> VectorStoreIndex:
    texts = {"eggs": "Eggs are hard after 8 minutes.", "rice": "Rice takes 15 minutes."}
    return VectorStoreIndex(
        [TextNode(id_=name, text=text, metadata={"topic": name}) for name, text in texts.items()],
        embed_model=MockEmbedding(embed_dim=4),
    )


@pytest.fixture
def make_engine(index: VectorStoreIndex) -> MakeEngine:
    """A RetrieverQueryEngine with a real synthesizer; keywords go to the ScriptedLLM."""

    def make(*, streaming: bool = False, **llm: Any) -> BaseQueryEngine:
        return index.as_query_engine(llm=ScriptedLLM(**llm), streaming=streaming)

    return make


@pytest.fixture
def jobs(aligner: Aligner, monkeypatch: pytest.MonkeyPatch) -> list[Job]:
    """The jobs that the aligner's engine was given."""
    seen: list[Job] = []
    submit = aligner.engine.submit

    def record(jobs: Sequence[Job]) -> None:
        seen.extend(jobs)
        submit(jobs)

    monkeypatch.setattr(aligner.engine, "submit", record)
    return seen


@pytest.fixture
def loads(aligner: Aligner, monkeypatch: pytest.MonkeyPatch) -> list[tuple[Any, str]]:
    """What the adapters loaded, and the thread that did; all of it is the bundled aligner."""
    seen: list[tuple[Any, str]] = []

    def load_shared(source: Any) -> Aligner:
        seen.append((source, threading.current_thread().name))
        return aligner

    monkeypatch.setattr(step_module, "load_shared", load_shared)
    return seen
