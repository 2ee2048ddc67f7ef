"""A real provider's client, over HTTP, behind an `AlignedLLM`."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from functools import partial
from typing import Any

import httpx
import pytest
from llama_index.core.agent.workflow import ReActAgent
from llama_index.core.base.llms.types import ChatMessage, ThinkingBlock
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.prompts import PromptTemplate
from llama_index.llms.openai_like import OpenAILike

from aligner_integrations import AlignedLLM, Aligner, AlignerFunctionAgent
from tests.llama_index.clients import FORMS, WORKFLOW_WARNINGS
from tests.llama_index.leaks import find_leaks
from tests.llama_index.test_llm import KINDS, TOOL, run, text
from tests.llama_index.upstream import ANSWER, CORRECTED, QUESTION
from tests.server.upstream import TOOL_CALL, FakeUpstream, serving

pytestmark = WORKFLOW_WARNINGS


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakeUpstream, str]]:
    upstream = FakeUpstream()
    with serving(upstream.app()) as url:
        yield upstream, f"{url}/v1"


@pytest.fixture
def upstream(served: tuple[FakeUpstream, str]) -> FakeUpstream:
    served[0].reset()
    served[0].answers = [ANSWER]
    return served[0]


@pytest.fixture
async def make_llm(served: tuple[FakeUpstream, str]) -> AsyncIterator[Any]:
    """Clients for one test, since their connections belong to its event loop."""
    with httpx.Client() as sync_client:
        async with httpx.AsyncClient() as client:
            chosen = {"http_client": sync_client, "async_http_client": client}
            chat: dict[str, Any] = {"is_chat_model": True, "is_function_calling_model": True}
            yield partial(
                OpenAILike, model="raw", api_base=served[1], api_key="x", **chat, **chosen
            )


def call(name: str, arguments: str) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"content": None, "tool_calls": [{**TOOL_CALL, "function": function}]}


@KINDS
@FORMS
async def test_answers(
    aligner: Aligner,
    upstream: FakeUpstream,
    make_llm: Any,
    kind: str,
    is_async: bool,
    streaming: bool,
) -> None:
    upstream.message = {"reasoning_content": "Eggs, then."}
    more = {"stream_options": {"include_usage": True}} if streaming else {}
    llm = AlignedLLM(make_llm(logprobs=True, additional_kwargs=more), aligner)

    responses = await run(llm, kind, is_async, streaming)

    assert text(responses[-1]) == CORRECTED
    assert find_leaks(responses) == []
    assert responses[-1].raw["usage"]["total_tokens"] == 14
    assert responses[-1].additional_kwargs["completion_tokens"] == 5
    assert responses[-1].logprobs is None
    if kind != "complete":
        assert isinstance(responses[-1].message.blocks[0], ThinkingBlock)


@FORMS
async def test_tool_calls(
    aligner: Aligner, upstream: FakeUpstream, make_llm: Any, is_async: bool, streaming: bool
) -> None:
    upstream.answers = [""]
    upstream.message = call("minutes", '{"dish": "eggs"}')
    llm = AlignedLLM(make_llm(), aligner)
    responses = await run(llm, "tools", is_async, streaming)
    (found,) = llm.get_tool_calls_from_response(responses[-1])
    assert (found.tool_name, found.tool_kwargs) == ("minutes", {"dish": "eggs"})
    assert str(llm.predict_and_call([TOOL], user_msg=QUESTION)) == "eggs: 8"


async def test_structured_predictions(
    aligner: Aligner, upstream: FakeUpstream, make_llm: Any
) -> None:
    class Recipe(BaseModel):
        """What to do."""

        minutes: int

    upstream.message = call("Recipe", '{"minutes": 8}')
    llm, prompt = AlignedLLM(make_llm(), aligner), PromptTemplate(QUESTION)
    assert llm.structured_predict(Recipe, prompt) == Recipe(minutes=8)
    assert await llm.astructured_predict(Recipe, prompt) == Recipe(minutes=8)
    assert list(llm.stream_structured_predict(Recipe, prompt))[-1] == Recipe(minutes=8)
    structured = llm.as_structured_llm(Recipe)
    assert structured.chat([ChatMessage(QUESTION)]).raw == Recipe(minutes=8)


@pytest.mark.parametrize("react", [False, True], ids=["function", "react"])
@pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])
async def test_agents(
    aligner: Aligner, upstream: FakeUpstream, make_llm: Any, streaming: bool, react: bool
) -> None:
    agent: Any
    if react:
        upstream.answers = [f"Thought: I can answer.\nAnswer: {ANSWER}"]
        llm = AlignedLLM(make_llm(), aligner)
        agent = ReActAgent(llm=llm, tools=[TOOL], streaming=streaming)
    else:
        agent = AlignerFunctionAgent(
            llm=make_llm(), aligner=aligner, tools=[TOOL], streaming=streaming
        )
    memory = ChatMemoryBuffer.from_defaults()

    handler = agent.run(user_msg=QUESTION, memory=memory)
    events = [event async for event in handler.stream_events()]
    result = await handler

    assert str(result) == CORRECTED
    assert find_leaks([result, events, memory, handler.ctx.to_dict()]) == []


@pytest.mark.parametrize("answers", [["Fine.", ANSWER], [ANSWER, "Idiot."]])
async def test_further_answers_do_not_stay_in_raw(
    aligner: Aligner, upstream: FakeUpstream, make_llm: Any, answers: list[str]
) -> None:
    upstream.answers = answers
    response = AlignedLLM(make_llm(), aligner).chat([ChatMessage(QUESTION)], n=2)
    assert response.message.content == answers[0].replace(ANSWER, CORRECTED)
    assert response.raw["usage"]["total_tokens"] == 14
    assert find_leaks(response) == []
