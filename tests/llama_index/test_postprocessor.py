from __future__ import annotations

import asyncio
import copy
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.schema import (
    Document,
    ImageDocument,
    ImageNode,
    IndexNode,
    MediaResource,
    MetadataMode,
    Node,
    NodeWithScore,
    QueryBundle,
    TextNode,
)

from aligner_integrations import Aligner
from aligner_integrations.errors import (
    ContextOverflowError,
    InvalidTextError,
    QuestionNotFoundError,
)
from aligner_integrations.llama_index import AlignerPostprocessor
from tests.llama_index.clients import ASYNC, count_ticks, make_node, postprocess
from tests.llama_index.upstream import (
    ANSWER,
    CORRECTED,
    QUESTION,
    RICE_ANSWER,
    RICE_CORRECTED,
    RICE_QUESTION,
    ScriptedLLM,
)

CLEAN = "Boil them for 8 minutes."


@ASYNC
async def test_text_is_corrected_in_a_copy(aligner: Aligner, is_async: bool) -> None:
    node = make_node()
    before = copy.deepcopy(node)

    hits = await postprocess(AlignerPostprocessor(aligner), [node], is_async)

    after = hits[0].node
    assert (after.text, hits[0].score, after.node_id) == (CORRECTED, 0.5, "a")
    assert after.relationships == node.relationships
    assert (after.start_char_idx, after.end_char_idx) == (3, 90)
    assert after.embedding is None
    record = after.metadata.pop("aligner")
    assert (record["changed"], record["model"]) == (True, "aligner-smol")
    assert after.metadata == before.metadata
    assert node == before


async def test_record_is_hidden_from_models(aligner: Aligner) -> None:
    hits = await postprocess(AlignerPostprocessor(aligner), [make_node()])

    for mode in (MetadataMode.LLM, MetadataMode.EMBED):
        assert "aligner" not in hits[0].get_content(mode)
        assert "topic: eggs" in hits[0].get_content(mode)
    assert "tags" not in hits[0].get_content(MetadataMode.LLM)

    again = await postprocess(AlignerPostprocessor(aligner), [hits[0].node])
    assert again[0].node.excluded_llm_metadata_keys == ["tags", "aligner"]
    assert again[0].metadata["aligner"]["changed"] is False


async def test_unchanged_text_keeps_its_embedding(aligner: Aligner) -> None:
    hits = await postprocess(AlignerPostprocessor(aligner), [make_node(CLEAN)])

    assert hits[0].text == CLEAN
    assert hits[0].embedding == [0.1, 0.2]
    assert hits[0].metadata["aligner"]["changed"] is False


@ASYNC
async def test_kinds_of_nodes(aligner: Aligner, is_async: bool) -> None:
    nodes = [
        ImageNode(text=ANSWER, image="aGk="),
        TextNode(text=ANSWER),
        ImageDocument(text=ANSWER, image=b"hi"),
        Document(text=ANSWER, embedding=[0.1]),
        TextNode(text=" \n"),
        IndexNode(text=ANSWER, index_id="other", obj=(target := object())),
        Node(image_resource=MediaResource(data=b"hi")),
    ]
    before = [node.model_copy() for node in nodes]

    hits = await postprocess(AlignerPostprocessor(aligner), nodes, is_async)

    assert [hit.score for hit in hits] == [0.5 - 0.1 * i for i in range(len(nodes))]
    for place in (0, 2, 4, 6):
        assert hits[place].node is nodes[place]
    for place in (1, 3, 5):
        assert hits[place].node.get_content() == CORRECTED
        assert type(hits[place].node) is type(nodes[place])
        assert hits[place].node_id == nodes[place].node_id
    assert hits[5].node.obj is target
    assert nodes == before


async def test_document_keeps_what_else_it_holds(aligner: Aligner) -> None:
    resource = MediaResource(text=ANSWER, mimetype="text/markdown", embeddings={"dense": [0.1]})

    hits = await postprocess(AlignerPostprocessor(aligner), [Document(text_resource=resource)])

    corrected = hits[0].node.text_resource
    assert (corrected.text, corrected.mimetype) == (CORRECTED, "text/markdown")
    assert corrected.embeddings is None
    assert (resource.text, resource.embeddings) == (ANSWER, {"dense": [0.1]})


@ASYNC
async def test_all_texts_go_in_one_batch(
    aligner: Aligner, monkeypatch: pytest.MonkeyPatch, is_async: bool
) -> None:
    batches = []
    submit = aligner.engine.submit

    def record(jobs: Any) -> None:
        batches.append([job.answer for job in jobs])
        submit(jobs)

    monkeypatch.setattr(aligner.engine, "submit", record)
    texts = [CLEAN, ANSWER, "Then cool them in cold water."]

    hits = await postprocess(
        AlignerPostprocessor(aligner), [TextNode(text=t) for t in texts], is_async
    )

    assert batches == [texts]
    assert [hit.text for hit in hits] == [CLEAN, CORRECTED, "Then cool them in cold water."]


@ASYNC
async def test_without_a_question(aligner: Aligner, is_async: bool) -> None:
    postprocessor = AlignerPostprocessor(aligner)

    with pytest.raises(QuestionNotFoundError, match="query_str="):
        await postprocess(postprocessor, [make_node()], is_async, question=None)

    images = [ImageNode(image="aGk=")]
    assert (await postprocess(postprocessor, images, is_async, question=None))[0].node is images[0]
    assert await postprocess(postprocessor, [], is_async, question=None) == []


@ASYNC
@pytest.mark.parametrize(
    ("text", "policy_name", "error"),
    [
        ("Boil them \ud800.", "on_error", InvalidTextError),
        ("Boil them. " * 5000, "on_overflow", ContextOverflowError),
    ],
    ids=["on_error", "on_overflow"],
)
async def test_policies_hold_for_each_text_by_itself(
    aligner: Aligner, is_async: bool, text: str, policy_name: str, error: type[Exception]
) -> None:
    nodes = [TextNode(text=text), TextNode(text=CLEAN)]

    with pytest.raises(error):
        await postprocess(AlignerPostprocessor(aligner), nodes, is_async)

    for policy, expected in [("original", text), ("refuse", aligner.refusal_text)]:
        postprocessor = AlignerPostprocessor(aligner, **{policy_name: policy})  # type: ignore[arg-type]
        hits = await postprocess(postprocessor, nodes, is_async)
        assert [hit.text for hit in hits] == [expected, CLEAN]
        assert hits[0].metadata["aligner"]["policy"] == policy
        assert hits[1].metadata["aligner"]["policy"] is None


@ASYNC
async def test_in_a_query_engine(aligner: Aligner, index: VectorStoreIndex, is_async: bool) -> None:
    stored = index.docstore.get_node("eggs")
    engine = index.as_query_engine(
        llm=ScriptedLLM(answer="Eight minutes."),
        node_postprocessors=[AlignerPostprocessor(aligner)],
    )

    response = await engine.aquery(QUESTION) if is_async else engine.query(QUESTION)

    assert {node.node_id for node in response.source_nodes} == {"eggs", "rice"}
    assert all(
        node.metadata["aligner"]["model"] == "aligner-smol" for node in response.source_nodes
    )
    assert stored.metadata == {"topic": "eggs"}
    assert index.docstore.get_node("eggs").metadata == {"topic": "eggs"}


async def test_two_queries_at_once_do_not_mix(aligner: Aligner) -> None:
    postprocessor = AlignerPostprocessor(aligner)

    eggs, rice = await asyncio.gather(
        postprocess(postprocessor, [TextNode(text=ANSWER)], is_async=True),
        postprocess(
            postprocessor, [TextNode(text=RICE_ANSWER)], is_async=True, question=RICE_QUESTION
        ),
    )

    assert (eggs[0].text, rice[0].text) == (CORRECTED, RICE_CORRECTED)


async def test_event_loop_keeps_running(aligner: Aligner) -> None:
    ticks, seconds = await count_ticks(
        postprocess(AlignerPostprocessor(aligner), [make_node(), make_node()], is_async=True)
    )

    assert ticks > 20 * seconds  # of 100 a second, were the machine idle


def test_both_ways_to_name_the_query(aligner: Aligner) -> None:
    hits = [NodeWithScore(node=make_node(CLEAN))]

    by_bundle = AlignerPostprocessor(aligner).postprocess_nodes(hits, QueryBundle(QUESTION))
    by_text = AlignerPostprocessor(aligner).postprocess_nodes(hits, query_str=QUESTION)

    assert by_bundle[0].text == by_text[0].text == CLEAN
