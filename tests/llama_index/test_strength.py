"""`strength` in every LlamaIndex component that corrects."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core import VectorStoreIndex
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.response_synthesizers import get_response_synthesizer
from llama_index.core.schema import NodeWithScore, TextNode

from aligner_integrations import (
    AlignedLLM,
    Aligner,
    AlignerChatEngine,
    AlignerFunctionAgent,
    AlignerPostprocessor,
    AlignerQueryEngine,
    AlignerSynthesizer,
)
from aligner_integrations.errors import ConfigurationError, SteeringError
from tests.llama_index.clients import WORKFLOW_WARNINGS, ask, read
from tests.llama_index.upstream import QUESTION, CallingLLM, ScriptedLLM
from tests.steered import EAGER, KEEPING, WRITES

pytestmark = WORKFLOW_WARNINGS
TEXTS = {-1: KEEPING, -0.25: WRITES, 0: WRITES, 1: EAGER}
Answer = tuple[str, dict[str, Any]]
"""A text, and the record that came with it."""


async def query(aligner: Aligner, index: VectorStoreIndex, **step: Any) -> Answer:
    engine = AlignerQueryEngine(index.as_query_engine(llm=ScriptedLLM()), aligner, **step)
    response = engine.query(QUESTION)
    return str(response), response.metadata["aligner"]


async def stream_query(aligner: Aligner, index: VectorStoreIndex, **step: Any) -> Answer:
    inner = index.as_query_engine(llm=ScriptedLLM(), streaming=True)
    response = await ask(AlignerQueryEngine(inner, aligner, **step), is_async=True)
    text = "".join(await read(response))
    return text, response.metadata["aligner"]


async def synthesize(aligner: Aligner, index: VectorStoreIndex, **step: Any) -> Answer:
    made = AlignerSynthesizer(get_response_synthesizer(llm=ScriptedLLM()), aligner, **step)
    response = made.synthesize(QUESTION, [NodeWithScore(node=TextNode(text="8 minutes."))])
    return str(response), response.metadata["aligner"]


async def chat(aligner: Aligner, index: VectorStoreIndex, **step: Any) -> Answer:
    memory = ChatMemoryBuffer.from_defaults()
    inner = SimpleChatEngine.from_defaults(llm=ScriptedLLM(), memory=memory)
    response = AlignerChatEngine(inner, aligner, **step).chat(QUESTION)
    return str(response), response.metadata["aligner"]


async def complete(aligner: Aligner, index: VectorStoreIndex, **step: Any) -> Answer:
    response = AlignedLLM(ScriptedLLM(), aligner, **step).complete(QUESTION)
    return response.text, response.additional_kwargs["aligner"]


async def run_agent(aligner: Aligner, index: VectorStoreIndex, **step: Any) -> Answer:
    llm = CallingLLM(steps=["Boil them for 8 minutes."])
    agent = AlignerFunctionAgent(llm=llm, aligner=aligner, **step)
    handler = agent.run(user_msg=QUESTION)
    records = [e.record async for e in handler.stream_events() if hasattr(e, "record")]
    return str(await handler), records[-1]


async def postprocess(aligner: Aligner, index: VectorStoreIndex, **step: Any) -> Answer:
    nodes = [NodeWithScore(node=TextNode(text="Boil them for 8 minutes."))]
    made = AlignerPostprocessor(aligner, **step)
    (found,) = made.postprocess_nodes(nodes, query_str=QUESTION)
    return found.node.get_content(), found.node.metadata["aligner"]


COMPONENTS = pytest.mark.parametrize(
    "component", [query, stream_query, synthesize, chat, complete, run_agent, postprocess]
)


@COMPONENTS
async def test_components_take_it(
    component: Callable[..., Any], steered: Aligner, index: VectorStoreIndex
) -> None:
    for strength, text in TEXTS.items():
        for step in ({"strength": strength}, {"options": {"strength": strength}}):
            found, record = await component(steered, index, **step)
            assert found == text
            assert record.get("strength", 0) == strength


@COMPONENTS
async def test_what_cannot_work_is_said(
    component: Callable[..., Any], steered: Aligner, writer: Aligner, index: VectorStoreIndex
) -> None:
    with pytest.raises(ConfigurationError, match=r"strength=1\.5 must be between -1"):
        await component(steered, index, strength=1.5)
    with pytest.raises(SteeringError, match=r"make them with: aligner scan .* --save"):
        await component(writer, index, strength=1, on_error="original")


async def test_components_at_the_same_time_do_not_mix(
    steered: Aligner, index: VectorStoreIndex
) -> None:
    strengths = [*TEXTS] * 4
    engines = [
        AlignerQueryEngine(index.as_query_engine(llm=ScriptedLLM()), steered, strength=strength)
        for strength in strengths
    ]
    found = await asyncio.gather(*(engine.aquery(QUESTION) for engine in engines))
    assert [str(response) for response in found] == [TEXTS[strength] for strength in strengths]


def test_it_is_a_field_that_is_written_down(steered: Aligner) -> None:
    made = AlignerPostprocessor(steered, strength=0.75)
    assert made.strength == made.to_dict()["strength"] == 0.75
    again = AlignerPostprocessor.from_dict(made.to_dict())
    assert again.to_dict() == made.to_dict()
    nodes = [NodeWithScore(node=TextNode(text="Boil them."))]
    assert again.postprocess_nodes(nodes, query_str="Q")[0].node.get_content() == EAGER
    made.strength = -1
    assert made.postprocess_nodes(nodes, query_str="Q")[0].node.get_content() == KEEPING
    llm = AlignedLLM(CallingLLM(steps=["x"]), steered, strength=-0.5)
    assert AlignedLLM.from_dict(llm.to_dict()).strength == -0.5
