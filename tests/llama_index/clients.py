"""How clients ask engines and postprocessors, and read what comes, in all forms."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable
from typing import Any

import pytest
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.response.schema import AsyncStreamingResponse, StreamingResponse
from llama_index.core.schema import (
    BaseNode,
    NodeRelationship,
    NodeWithScore,
    RelatedNodeInfo,
    TextNode,
)

from aligner_integrations.llama_index import AlignerPostprocessor
from tests.llama_index.upstream import ANSWER, QUESTION

FORMS = pytest.mark.parametrize(
    ("is_async", "streaming"),
    [(False, False), (False, True), (True, False), (True, True)],
    ids=["sync", "sync-stream", "async", "async-stream"],
)
# llama-index-workflows reads all attributes of an agent, pydantic's deprecated ones too.
WORKFLOW_WARNINGS = pytest.mark.filterwarnings(
    "ignore::pydantic.warnings.PydanticDeprecatedSince20",
    "ignore::pydantic.warnings.PydanticDeprecatedSince211",
    "ignore:is_running called from within a step:DeprecationWarning",
    "ignore:Skipping serialization of known unserializable key",
)
ASYNC = pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])


async def ask(engine: BaseQueryEngine, is_async: bool, question: str = QUESTION) -> Any:
    return await engine.aquery(question) if is_async else engine.query(question)


async def read(response: Any) -> list[str]:
    """The pieces that a client sees, in whichever form they come."""
    if isinstance(response, AsyncStreamingResponse):
        return [piece async for piece in response.async_response_gen()]
    if isinstance(response, StreamingResponse):
        return list(response.response_gen)
    return [response.response]


async def as_async(pieces: Any) -> Any:
    if hasattr(pieces, "__aiter__"):
        async for piece in pieces:
            yield piece
    else:
        for piece in pieces:
            yield piece


async def postprocess(
    postprocessor: AlignerPostprocessor,
    nodes: list[BaseNode],
    is_async: bool = False,
    question: str | None = QUESTION,
) -> list[NodeWithScore]:
    hits = [NodeWithScore(node=node, score=0.5 - 0.1 * i) for i, node in enumerate(nodes)]
    if is_async:
        return await postprocessor.apostprocess_nodes(hits, query_str=question)
    return postprocessor.postprocess_nodes(hits, query_str=question)


def make_node(text: str = ANSWER) -> TextNode:
    return TextNode(
        id_="a",
        text=text,
        metadata={"topic": "eggs", "tags": ["food"]},
        embedding=[0.1, 0.2],
        relationships={NodeRelationship.SOURCE: RelatedNodeInfo(node_id="forum")},
        excluded_llm_metadata_keys=["tags"],
        start_char_idx=3,
        end_char_idx=90,
    )


async def count_ticks(work: Awaitable[Any]) -> tuple[int, float]:
    """How often a task of 10 ms naps woke up meanwhile, and the seconds that the work took."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticker = asyncio.create_task(tick())
    started = time.perf_counter()
    await work
    seconds = time.perf_counter() - started
    ticker.cancel()
    return ticks, seconds
