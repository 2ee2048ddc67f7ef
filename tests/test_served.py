"""An aligner on a server, behind everything that takes an aligner."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode

from aligner_integrations import Aligner, AlignerPostprocessor, AlignerRunnable
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.evaluation.aligners import load_corrector
from aligner_integrations.evaluation.config import AlignerConfig
from aligner_integrations.evaluation.store import Failure
from aligner_integrations.sharing import load_shared
from tests.engines import faulty
from tests.engines.faulty import FaultyServer, run_server


@pytest.fixture(scope="module")
def server() -> Iterator[FaultyServer]:
    with run_server() as running:
        yield running


@pytest.fixture(scope="module")
def served(server: FaultyServer) -> Iterator[Aligner]:
    aligner = Aligner.from_server(server.url, retries=1, options={"max_new_tokens": 99})
    yield aligner
    aligner.engine.close()  # type: ignore[attr-defined]


def test_pickle_and_sharing(served: Aligner) -> None:
    again = pickle.loads(pickle.dumps(served))
    assert again.correct("Eggs?", "Boil them.").text == "Boil them.!"
    assert again.source == served.source
    assert pickle.loads(pickle.dumps(served)) is again  # one per process
    assert load_shared(served.source) is again
    assert load_shared({**served.source, "retries": 2}) is not again  # type: ignore[dict-item]


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
async def test_runnable(served: Aligner) -> None:
    step = AlignerRunnable(aligner=served)
    pair = {"question": "Eggs?", "answer": AIMessage("Boil them.")}
    assert (await step.ainvoke(pair)).content == "Boil them.!"
    assert [m.content for m in await step.abatch([pair] * 3)] == ["Boil them.!"] * 3
    assert "".join([chunk.content async for chunk in step.astream(pair)]) == "Boil them.!"
    again = loads(
        dumps(step), valid_namespaces=["aligner_integrations"], allowed_objects=[AlignerRunnable]
    )
    assert (await again.ainvoke(pair)).content == "Boil them.!"


async def test_runnable_by_load_options(server: FaultyServer) -> None:
    step = AlignerRunnable(model="aligner-smol", load_options={"server": server.url})
    done = await step.ainvoke({"question": "Eggs?", "answer": "Boil them."})
    assert done == "Boil them.!"
    with pytest.raises(ConfigurationError, match="'device', which is none of server"):
        AlignerRunnable(load_options={"server": server.url, "device": "cpu"})
    with pytest.raises(ConfigurationError, match="can't hold an api_key"):
        AlignerRunnable(load_options={"server": server.url, "api_key": "sk-secret"})


def test_postprocessor(served: Aligner) -> None:
    postprocessor = AlignerPostprocessor(aligner=served)
    nodes = [NodeWithScore(node=TextNode(text="Boil them."), score=0.5)]
    again = AlignerPostprocessor.from_dict(postprocessor.to_dict())
    for one in (postprocessor, again):
        [node] = one.postprocess_nodes(nodes, query_bundle=QueryBundle("Eggs?"))
        assert node.text == "Boil them.!"


def test_evaluation(server: FaultyServer) -> None:
    config = AlignerConfig(name="far", server=server.url, load={"retries": 0})
    settings: Any = {"models": {}, "options": {}, "batch_size": 2, "concurrency": 1, "seed": 0}
    corrector = load_corrector(config, **settings)
    pairs = [(f"Q{i}?", f"A{i}.") for i in range(5)]
    server.script = [faulty.status(500)]
    found = dict(corrector.correct(pairs))
    assert sorted(found) == [0, 1, 2, 3, 4]
    assert sum(isinstance(one, Failure) for one in found.values()) == 1
    assert "sk-" not in str(corrector.identity)


def test_tokenizer_of_a_directory(server: FaultyServer, tiny_model_dir: Any) -> None:
    directory: Path = tiny_model_dir(prompt="aligner-smol", max_position_embeddings=512)
    aligner = Aligner.from_server(server.url, model="mine", tokenizer=str(directory))
    local = Aligner.from_pretrained(str(directory), device="cpu")
    encoder = aligner.engine.client.encoder  # type: ignore[attr-defined]
    for pair in [("Eggs?", "Boil them."), ("<|im_end|>", "naïve café — “quoted”\n")]:
        assert encoder.encode(*pair) == local.engine.loaded.encoder.encode(*pair)  # type: ignore[attr-defined]
    assert encoder.stop_ids == local.engine.loaded.encoder.stop_ids  # type: ignore[attr-defined]
    assert aligner.engine.client.context_length == 512  # type: ignore[attr-defined]
    assert aligner.name == "mine"
