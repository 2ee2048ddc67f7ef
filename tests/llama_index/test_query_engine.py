from __future__ import annotations

import logging
from typing import Any

import pytest
from llama_index.core import MockEmbedding, PromptTemplate, VectorStoreIndex
from llama_index.core.base.response.schema import PydanticResponse, Response
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.query_engine import CustomQueryEngine
from llama_index.core.schema import NodeWithScore, QueryBundle, TextNode
from llama_index.core.tools import QueryEngineTool

from aligner_integrations import Aligner, GenerationOptions
from aligner_integrations.errors import (
    ConfigurationError,
    ContextOverflowError,
    InputTypeError,
    InvalidTextError,
    TruncatedCorrectionError,
)
from aligner_integrations.llama_index import AlignerQueryEngine
from tests.llama_index.clients import ASYNC, FORMS, ask, read
from tests.llama_index.conftest import MakeEngine
from tests.llama_index.leaks import find_leaks
from tests.llama_index.upstream import ANSWER, CANARY, CORRECTED, QUESTION, ScriptedLLM

BROKEN = "Boil them \ud800."  # no tokenizer can encode it, so correcting fails at once
LONG = "Boil them. " * 5000
REFUSAL = "I'm sorry, but I can't give you that answer."


@FORMS
async def test_answer_is_corrected(
    aligner: Aligner, make_engine: MakeEngine, is_async: bool, streaming: bool
) -> None:
    inner = make_engine(streaming=streaming)
    raw = await ask(inner, is_async)

    response = await ask(AlignerQueryEngine(inner, aligner), is_async)

    assert type(response) is type(raw)
    pieces = await read(response)
    assert "".join(pieces) == CORRECTED
    assert len(pieces) > 1 or not streaming
    assert [(n.node_id, n.score) for n in response.source_nodes] == [
        (n.node_id, n.score) for n in raw.source_nodes
    ]
    record = response.metadata.pop("aligner")
    assert response.metadata == raw.metadata
    assert set(response.metadata) == {"eggs", "rice"}
    assert (record["changed"], record["model"], record["policy"]) == (True, "aligner-smol", None)
    assert CANARY not in str(record)
    assert find_leaks([response, pieces]) == []


@FORMS
@pytest.mark.parametrize("answer", ["", "  \n", "Empty Response"])
async def test_empty_answers_are_not_corrected(
    aligner: Aligner, make_engine: MakeEngine, is_async: bool, streaming: bool, answer: str
) -> None:
    inner = make_engine(streaming=streaming, answer=answer)
    expected = "".join(await read(await ask(inner, is_async)))

    response = await ask(AlignerQueryEngine(inner, aligner), is_async)

    assert "".join(await read(response)) == expected
    assert "aligner" not in response.metadata


@FORMS
async def test_nothing_retrieved(aligner: Aligner, is_async: bool, streaming: bool) -> None:
    index = VectorStoreIndex([], embed_model=MockEmbedding(embed_dim=4))
    engine = AlignerQueryEngine(
        index.as_query_engine(llm=ScriptedLLM(), streaming=streaming), aligner
    )

    response = await ask(engine, is_async)

    assert await read(response) == ["Empty Response"]
    assert response.source_nodes == []


@ASYNC
async def test_structured_answers_pass_through(
    aligner: Aligner, index: VectorStoreIndex, is_async: bool
) -> None:
    class Recipe(BaseModel):
        minutes: int

    llm = ScriptedLLM(answer='{"minutes": 8}').as_structured_llm(Recipe)

    response = await ask(AlignerQueryEngine(index.as_query_engine(llm=llm), aligner), is_async)

    assert isinstance(response, PydanticResponse)
    assert response.response == Recipe(minutes=8)


@ASYNC
async def test_response_without_metadata(aligner: Aligner, is_async: bool) -> None:
    class Plain(CustomQueryEngine):
        def custom_query(self, query_str: str) -> str:
            return ANSWER

    response = await ask(AlignerQueryEngine(Plain(), aligner), is_async)

    assert response.response == CORRECTED
    assert set(response.metadata) == {"aligner"}


def test_unknown_kind_of_response_does_not_get_through(aligner: Aligner) -> None:
    class Odd(CustomQueryEngine):
        def custom_query(self, query_str: str) -> str:
            return ANSWER

        def synthesize(self, *args: Any, **kwargs: Any) -> Any:
            return ANSWER

    with pytest.raises(InputTypeError, match="answered with a str"):
        AlignerQueryEngine(Odd(), aligner).synthesize(QueryBundle(QUESTION), [])


@ASYNC
async def test_the_raw_response_is_left_as_it_was(
    aligner: Aligner, index: VectorStoreIndex, is_async: bool
) -> None:
    raw = Response(ANSWER, metadata={"eggs": {"topic": "eggs"}})

    class Remembering(CustomQueryEngine):
        def custom_query(self, query_str: str) -> Any:
            return raw

    response = await ask(AlignerQueryEngine(Remembering(), aligner), is_async)

    assert response.response == CORRECTED
    assert raw == Response(ANSWER, metadata={"eggs": {"topic": "eggs"}})


@FORMS
@pytest.mark.parametrize(
    ("answer", "policy_name", "error"),
    [(BROKEN, "on_error", InvalidTextError), (LONG, "on_overflow", ContextOverflowError)],
    ids=["on_error", "on_overflow"],
)
async def test_policies(
    aligner: Aligner,
    make_engine: MakeEngine,
    caplog: pytest.LogCaptureFixture,
    is_async: bool,
    streaming: bool,
    answer: str,
    policy_name: str,
    error: type[Exception],
) -> None:
    inner = make_engine(streaming=streaming, answer=answer, piece_length=1000)
    caplog.set_level(logging.WARNING)

    with pytest.raises(error):
        await read(await ask(AlignerQueryEngine(inner, aligner), is_async))

    for policy, expected in [("original", answer), ("refuse", REFUSAL)]:
        engine = AlignerQueryEngine(inner, aligner, **{policy_name: policy})  # type: ignore[arg-type]
        response = await ask(engine, is_async)
        assert "".join(await read(response)) == expected
        assert response.metadata["aligner"]["policy"] == policy
        assert response.metadata["aligner"]["error"].startswith(error.__name__)
        assert response.metadata["aligner"]["changed"] is (policy == "refuse")
        assert f"the caller gets '{policy}'" in caplog.text


@pytest.mark.parametrize("options", [{"max_new_tokens": 2}, GenerationOptions(max_new_tokens=2)])
def test_options_reach_the_aligner(aligner: Aligner, make_engine: MakeEngine, options: Any) -> None:
    engine = AlignerQueryEngine(make_engine(), aligner, options=options)

    with pytest.raises(TruncatedCorrectionError, match="after 2 tokens"):
        engine.query(QUESTION)


@ASYNC
async def test_retrieve_and_synthesize(
    aligner: Aligner, make_engine: MakeEngine, is_async: bool
) -> None:
    inner = make_engine()
    engine = AlignerQueryEngine(inner, aligner)
    query = QueryBundle(QUESTION)
    extra = [NodeWithScore(node=TextNode(id_="extra", text="More about eggs."))]

    if is_async:
        nodes = await engine.aretrieve(query)
        response = await engine.asynthesize(query, nodes, extra)
    else:
        nodes = engine.retrieve(query)
        response = engine.synthesize(query, nodes, extra)

    assert nodes == inner.retrieve(query)
    assert response.response == CORRECTED
    assert [n.node_id for n in response.source_nodes] == [n.node_id for n in nodes] + ["extra"]
    assert response.metadata["aligner"]["changed"] is True


def test_prompts_are_those_of_the_wrapped_engine(aligner: Aligner, make_engine: MakeEngine) -> None:
    inner = make_engine()
    engine = AlignerQueryEngine(inner, aligner)
    assert engine.get_prompts() == inner.get_prompts()

    template = PromptTemplate("{context_str} {query_str} Be brief.")
    engine.update_prompts({"response_synthesizer:text_qa_template": template})

    assert inner.get_prompts()["response_synthesizer:text_qa_template"] == template


def test_callbacks_are_those_of_the_wrapped_engine(
    aligner: Aligner, make_engine: MakeEngine
) -> None:
    inner = make_engine()
    assert AlignerQueryEngine(inner, aligner).callback_manager is inner.callback_manager


@ASYNC
async def test_as_a_tool(aligner: Aligner, make_engine: MakeEngine, is_async: bool) -> None:
    tool = QueryEngineTool.from_defaults(AlignerQueryEngine(make_engine(), aligner))

    output = await tool.acall(QUESTION) if is_async else tool.call(QUESTION)

    assert output.content == CORRECTED


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"on_error": "ignore"}, ConfigurationError, "on_error='ignore'"),
        ({"on_overflow": "cut"}, ConfigurationError, "on_overflow='cut'"),
        ({"options": {"heat": 1}}, ConfigurationError, "unknown option 'heat'"),
        ({"aligner": "aligner-smol"}, InputTypeError, "goes into model="),
    ],
)
def test_wrong_arguments(
    make_engine: MakeEngine, arguments: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        AlignerQueryEngine(make_engine(), **arguments)


def test_aligner_and_model_contradict(aligner: Aligner, make_engine: MakeEngine) -> None:
    with pytest.raises(ConfigurationError, match="pass one of them"):
        AlignerQueryEngine(make_engine(), aligner, model="aligner-smol")


def test_an_index_is_no_query_engine(index: VectorStoreIndex) -> None:
    with pytest.raises(InputTypeError, match=r"VectorStoreIndex.*as_query_engine\(\)"):
        AlignerQueryEngine(index)
