from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core import MockEmbedding, PromptTemplate, VectorStoreIndex
from llama_index.core.base.response.schema import PydanticResponse
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.callbacks import CallbackManager
from llama_index.core.chat_engine import CondenseQuestionChatEngine
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.response_synthesizers import (
    CompactAndRefine,
    ResponseMode,
    get_response_synthesizer,
)
from llama_index.core.schema import NodeWithScore, TextNode

from aligner_integrations import Aligner, AlignerSynthesizer, CorrectWhen
from aligner_integrations.engines.base import Job
from aligner_integrations.errors import ConfigurationError, CorrectionError, InputTypeError
from tests.llama_index.clients import ASYNC, FORMS, as_async, read
from tests.llama_index.leaks import find_leaks
from tests.llama_index.upstream import (
    ANSWER,
    CORRECTED,
    QUESTION,
    RICE_ANSWER,
    RICE_CORRECTED,
    RICE_QUESTION,
    CallingLLM,
    ScriptedLLM,
)

HITS = [NodeWithScore(node=TextNode(id_="eggs", text="8 minutes.", metadata={"a": 1}), score=0.5)]


def make(streaming: bool = False, mode: str = "compact", llm: Any = None, **more: Any) -> Any:
    return get_response_synthesizer(
        llm=llm or ScriptedLLM(), streaming=streaming, response_mode=ResponseMode(mode), **more
    )


async def synthesize(synthesizer: Any, is_async: bool, question: str = QUESTION) -> Any:
    if is_async:
        return await synthesizer.asynthesize(question, HITS)
    return synthesizer.synthesize(question, HITS)


@FORMS
@pytest.mark.parametrize("mode", ["compact", "refine", "tree_summarize", "simple_summarize"])
async def test_answers_are_corrected_and_nothing_leaks(
    aligner: Aligner, is_async: bool, streaming: bool, mode: str
) -> None:
    inner = make(streaming, mode)
    raw = await synthesize(inner, is_async)

    response = await synthesize(AlignerSynthesizer(inner, aligner), is_async)

    assert type(response) is type(raw)
    pieces = await read(response)
    assert "".join(pieces) == CORRECTED
    assert len(pieces) > 1 or not streaming
    assert find_leaks([response, pieces]) == []
    assert response.source_nodes == raw.source_nodes
    assert response.metadata.pop("aligner")["changed"] is True
    assert response.metadata == raw.metadata == {"eggs": {"a": 1}}


@FORMS
async def test_get_response_is_text(aligner: Aligner, is_async: bool, streaming: bool) -> None:
    synthesizer = AlignerSynthesizer(make(streaming), aligner)
    if is_async:
        found = await synthesizer.aget_response(QUESTION, ["8 minutes."])
    else:
        found = synthesizer.get_response(QUESTION, ["8 minutes."])
    text = "".join([p async for p in as_async(found)]) if streaming else found
    assert text == CORRECTED


@pytest.mark.skipif(
    "multimodal" not in inspect.signature(get_response_synthesizer).parameters,
    reason="LlamaIndex has it since 0.14.23",
)
@FORMS
async def test_multimodal(aligner: Aligner, is_async: bool, streaming: bool) -> None:
    inner = make(streaming, llm=CallingLLM(steps=[ANSWER]), multimodal=True)
    synthesizer = AlignerSynthesizer(inner, aligner)
    assert synthesizer._multimodal
    response = await synthesize(synthesizer, is_async)
    assert "".join(await read(response)) == CORRECTED
    assert response.metadata["aligner"]["changed"] is True


@FORMS
@pytest.mark.parametrize("answer", ["", " \n", "Empty Response"])
async def test_empty_answers_pass_through(
    aligner: Aligner, jobs: list[Job], is_async: bool, streaming: bool, answer: str
) -> None:
    inner = make(streaming, llm=ScriptedLLM(answer=answer))
    expected = "".join(await read(await synthesize(inner, is_async)))
    response = await synthesize(AlignerSynthesizer(inner, aligner), is_async)
    assert "".join(await read(response)) == expected
    assert jobs == []
    assert "aligner" not in response.metadata


@ASYNC
async def test_structured_answers_pass_through(
    aligner: Aligner, jobs: list[Job], is_async: bool
) -> None:
    class Recipe(BaseModel):
        minutes: int

    llm = ScriptedLLM(answer='{"minutes": 8}').as_structured_llm(Recipe)
    synthesizer = AlignerSynthesizer(make(llm=llm), aligner, options={"pass_through": []})
    response = await synthesize(synthesizer, is_async)
    assert isinstance(response, PydanticResponse)
    assert response.response == Recipe(minutes=8)
    assert jobs == []


@FORMS
async def test_in_a_query_engine(
    aligner: Aligner, index: VectorStoreIndex, is_async: bool, streaming: bool
) -> None:
    synthesizer = AlignerSynthesizer(make(streaming), aligner)
    engine = index.as_query_engine(llm=ScriptedLLM(), response_synthesizer=synthesizer)
    response = await engine.aquery(QUESTION) if is_async else engine.query(QUESTION)
    assert "".join(await read(response)) == CORRECTED
    assert response.metadata["aligner"]["changed"] is True
    assert len(response.source_nodes) == 2
    assert "response_synthesizer:text_qa_template" in engine.get_prompts()


def test_nothing_retrieved(aligner: Aligner) -> None:
    index = VectorStoreIndex([], embed_model=MockEmbedding(embed_dim=4))
    synthesizer = AlignerSynthesizer(make(), aligner)
    engine = index.as_query_engine(llm=ScriptedLLM(), response_synthesizer=synthesizer)
    assert engine.query(QUESTION).response == "Empty Response"


def test_in_a_chat_engine_that_switches_streams(aligner: Aligner, index: VectorStoreIndex) -> None:
    synthesizer = AlignerSynthesizer(make(), aligner)
    chat = CondenseQuestionChatEngine.from_defaults(
        index.as_query_engine(llm=ScriptedLLM(), response_synthesizer=synthesizer),
        llm=ScriptedLLM(),
        memory=ChatMemoryBuffer.from_defaults(),
    )
    response = chat.stream_chat(QUESTION)
    assert "".join(response.response_gen) == CORRECTED
    assert synthesizer._streaming is False


def test_prompts_and_callbacks_reach_the_wrapped_synthesizer(aligner: Aligner) -> None:
    inner = make()
    synthesizer = AlignerSynthesizer(inner, aligner)
    template = PromptTemplate("{context_str} {query_str} Be kind.")

    synthesizer.update_prompts({"text_qa_template": template})
    synthesizer.callback_manager = CallbackManager([])

    assert inner.get_prompts()["text_qa_template"].template == template.template
    assert synthesizer.get_prompts().keys() == inner.get_prompts().keys()
    assert inner.callback_manager is synthesizer.callback_manager


@FORMS
async def test_gate_and_policies(
    aligner: Aligner, silence: Callable[[Aligner], None], is_async: bool, streaming: bool
) -> None:
    closed = AlignerSynthesizer(make(streaming), aligner, correct_when=CorrectWhen(matches="rice"))
    response = await synthesize(closed, is_async)
    assert "".join(await read(response)) == ANSWER
    assert response.metadata["aligner"]["skipped"] == "correct_when"

    silence(aligner)
    late = AlignerSynthesizer(make(streaming), aligner, max_latency=1e-9, on_error="refuse")
    response = await synthesize(late, is_async)
    assert find_leaks(await read(response)) == []
    assert response.metadata["aligner"]["policy"] == "refuse"

    failing = AlignerSynthesizer(make(streaming), aligner, max_latency=1e-9)
    with pytest.raises(CorrectionError, match="max_latency"):
        await read(await synthesize(failing, is_async))


async def test_at_the_same_time(aligner: Aligner) -> None:
    llm = ScriptedLLM(answers={QUESTION: ANSWER, RICE_QUESTION: RICE_ANSWER})
    whole, streamed = (AlignerSynthesizer(make(s, llm=llm), aligner) for s in (False, True))

    async def run(question: str, synthesizer: AlignerSynthesizer) -> str:
        response = await synthesize(synthesizer, True, question)
        text = "".join(await read(response))
        assert response.metadata["aligner"]["changed"] is True
        return text

    asked = [QUESTION, RICE_QUESTION] * 2
    found = await asyncio.gather(*(run(q, s) for q in asked for s in (whole, streamed)))
    wanted = {QUESTION: CORRECTED, RICE_QUESTION: RICE_CORRECTED}
    assert found == [wanted[q] for q in asked for _ in range(2)]


def test_wrong_arguments(aligner: Aligner) -> None:
    with pytest.raises(InputTypeError, match="get_response_synthesizer"):
        AlignerSynthesizer(ScriptedLLM(), aligner)
    with pytest.raises(ConfigurationError, match="on_error='ignore'"):
        AlignerSynthesizer(make(), aligner, on_error="ignore")
    assert AlignerSynthesizer.class_name() == "AlignerSynthesizer"


@ASYNC
async def test_streams_that_are_no_generators(aligner: Aligner, is_async: bool) -> None:
    """What a synthesizer of the user's own gives may be any iterator."""

    class Own(CompactAndRefine):
        def get_response(self, *args: Any, **kwargs: Any) -> Any:
            return iter([ANSWER])

        async def aget_response(self, *args: Any, **kwargs: Any) -> Any:
            return Pieces()

    class Pieces:
        def __init__(self) -> None:
            self.left = [ANSWER]

        def __aiter__(self) -> Any:
            return self

        async def __anext__(self) -> str:
            if self.left:
                return self.left.pop()
            raise StopAsyncIteration

    synthesizer = AlignerSynthesizer(Own(llm=ScriptedLLM()), aligner)
    if is_async:
        pieces = [piece async for piece in await synthesizer.aget_response(QUESTION, ["a"])]
    else:
        pieces = list(synthesizer.get_response(QUESTION, ["a"]))
    assert "".join(pieces) == CORRECTED
