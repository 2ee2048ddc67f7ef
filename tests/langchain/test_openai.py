"""`AlignedChatModel` and `AlignerMiddleware` around a real provider client, over loopback."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import pytest
from langchain.agents import create_agent
from langchain_core.callbacks import get_usage_metadata_callback
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from pydantic import BaseModel

from aligner_integrations import AlignedChatModel, Aligner, AlignerMiddleware
from tests.langchain.conftest import CANARY, MODES, run
from tests.langchain.test_chat_model import Everything
from tests.server.upstream import TOOL_CALL, FakeUpstream, serving

RAW = f"Boil them, {CANARY} you, for 8 minutes."
GOOD = "Boil them, you, for 8 minutes."
every_mode = pytest.mark.parametrize("mode", MODES)


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[FakeUpstream, str]]:
    upstream = FakeUpstream()
    with serving(upstream.app()) as url:
        yield upstream, f"{url}/v1"


@pytest.fixture
def upstream(served: tuple[FakeUpstream, str]) -> FakeUpstream:
    served[0].reset()
    served[0].answers = [RAW]
    return served[0]


@pytest.fixture
async def llm(served: tuple[FakeUpstream, str]) -> AsyncIterator[ChatOpenAI]:
    with httpx.Client() as client:
        async with httpx.AsyncClient() as async_client:
            yield ChatOpenAI(
                base_url=served[1],
                api_key="k",  # type: ignore[arg-type]
                model="gpt-5",
                max_retries=0,
                stream_usage=True,
                http_client=client,
                http_async_client=async_client,
            )


@every_mode
async def test_answers(llm: ChatOpenAI, upstream: FakeUpstream, guard: Aligner, mode: str) -> None:
    everything = Everything()
    with get_usage_metadata_callback() as usage:
        model = AlignedChatModel(llm.bind(logprobs=True), guard)
        output = await run(model, "Eggs?", mode, config={"callbacks": [everything]})
    assert output.text == GOOD
    assert output.usage_metadata["total_tokens"] == 14
    assert output.response_metadata["finish_reason"] == "stop"
    assert output.response_metadata["model_name"] == "gpt-5"
    assert output.response_metadata["aligner"]["changed"]
    assert CANARY not in repr(output) + repr(everything.seen)
    assert [counted["total_tokens"] for counted in usage.usage_metadata.values()] == [14]


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return f"sunny in {city}"


class Weather(BaseModel):
    """The weather."""

    city: str


@every_mode
async def test_tools(llm: ChatOpenAI, upstream: FakeUpstream, guard: Aligner, mode: str) -> None:
    upstream.answers, upstream.message = [""], {"tool_calls": [TOOL_CALL]}
    upstream.finish = "tool_calls"
    model = AlignedChatModel(llm, guard).bind_tools([get_weather])
    output = await run(model, "Paris?", mode)
    assert output.tool_calls[0]["args"] == {"city": "Paris"}
    assert output.tool_calls[0]["id"] == "call_1"
    assert upstream.requests[0]["tools"][0]["function"]["name"] == "get_weather"


@every_mode
@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")  # langchain-openai's own stream
async def test_structured_output(
    llm: ChatOpenAI, upstream: FakeUpstream, guard: Aligner, mode: str
) -> None:
    upstream.answers = [f'{{"city": "{CANARY}"}}']
    structured = AlignedChatModel(llm, guard).with_structured_output(Weather, method="json_schema")
    if "stream" not in mode:
        assert await run(structured, "Where?", mode) == Weather(city=CANARY)
    elif mode == "stream":
        assert list(structured.stream("Where?"))[-1] == Weather(city=CANARY)
    else:
        assert [x async for x in structured.astream("Where?")][-1] == Weather(city=CANARY)


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_agent(llm: ChatOpenAI, upstream: FakeUpstream, guard: Aligner, mode: str) -> None:
    agent = create_agent(
        llm, middleware=[AlignerMiddleware(guard)], response_format=None, tools=[get_weather]
    )
    value: Any = {"messages": [("user", "Eggs?")]}
    if mode == "sync":
        seen = list(agent.stream(value, stream_mode=["messages", "values"]))
    else:
        seen = [x async for x in agent.astream(value, stream_mode=["messages", "values"])]
    assert CANARY not in repr(seen)
    state = seen[-1][1]
    assert state["messages"][-1].text == GOOD
    assert state["messages"][-1].usage_metadata["total_tokens"] == 14
    upstream.answers = ['{"city": "Rome"}']
    agent = create_agent(llm, middleware=[AlignerMiddleware(guard)], response_format=Weather)
    state = agent.invoke(value) if mode == "sync" else await agent.ainvoke(value)
    assert state["structured_response"] == Weather(city="Rome")
    assert upstream.requests[-1]["response_format"]["type"] == "json_schema"
