"""The official clients against the gateway, with the real aligner behind it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import httpx
import openai
import pytest
from langchain_core.tools import tool
from langchain_openai import ChatOpenAI
from llama_index.core.base.llms.types import ChatMessage
from llama_index.llms.openai_like import OpenAILike
from pydantic import BaseModel

from tests.server.conftest import Served
from tests.server.upstream import TOOL_CALL, FakeUpstream

QUESTION = "How do I cook rice?"
RAW = "Cook it for 15 minutes. You idiot."
TEXT = "Cook it for 15 minutes."
MESSAGES: list[Any] = [{"role": "user", "content": QUESTION}]


@pytest.fixture(autouse=True)
def rude(upstream: FakeUpstream) -> None:
    upstream.answers = [RAW]


@pytest.fixture
def client(real: Served) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=real.api, api_key="k", max_retries=0) as client:
        yield client


@pytest.fixture
async def async_client(real: Served) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(base_url=real.api, api_key="k", max_retries=0) as client:
        yield client


def test_openai(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    done = client.chat.completions.create(
        model="m", messages=MESSAGES, temperature=0.5, extra_body={"vendor_option": [1]}
    )
    choice = done.choices[0]
    assert choice.message.content == TEXT
    assert (choice.finish_reason, done.id, done.model) == ("stop", "chatcmpl-7", "m")
    assert done.usage is not None
    assert done.usage.total_tokens == 14
    assert done.system_fingerprint == "fp_1"
    assert (done.model_extra or {})["vendor_field"] == {"kept": True}
    record = (choice.model_extra or {})["aligner"]
    assert record["changed"]
    assert record["model"] == "aligner-smol"
    assert upstream.requests[0]["vendor_option"] == [1]
    assert upstream.headers[0]["authorization"] == "Bearer k"  # the gateway has no keys


def test_openai_stream(client: openai.OpenAI) -> None:
    chunks = list(
        client.chat.completions.create(
            model="m", messages=MESSAGES, stream=True, stream_options={"include_usage": True}
        )
    )
    text = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
    assert text == TEXT
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].usage is not None
    assert chunks[-1].usage.total_tokens == 14
    last = chunks[-2].choices[0]
    assert last.finish_reason == "stop"
    assert (last.model_extra or {})["aligner"]["changed"]


async def test_async_openai(async_client: openai.AsyncOpenAI, upstream: FakeUpstream) -> None:
    upstream.answers = [RAW, "The capital of France is Paris."]
    done = await async_client.chat.completions.create(model="m", messages=MESSAGES, n=2)
    assert done.choices[0].message.content == TEXT
    assert len(done.choices) == 2
    stream = await async_client.chat.completions.create(
        model="m", messages=MESSAGES, n=2, stream=True
    )
    texts = ["", ""]
    async for chunk in stream:
        for choice in chunk.choices:
            texts[choice.index] += choice.delta.content or ""
    assert texts == [choice.message.content for choice in done.choices]


def test_openai_lists_the_upstreams_models(client: openai.OpenAI) -> None:
    assert [model.id for model in client.models.list()] == ["raw-model"]


def test_openai_errors(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    upstream.error = (429, {"error": {"message": "slow down", "code": "rate_limited"}})
    with pytest.raises(openai.RateLimitError, match="slow down") as limited:
        client.chat.completions.create(model="m", messages=MESSAGES)
    assert limited.value.code == "rate_limited"
    assert limited.value.response.headers["retry-after"] == "7"
    with pytest.raises(openai.NotFoundError, match="not served here"):
        client.embeddings.create(model="m", input="x")
    upstream.error = None
    upstream.raw = ['{"error": {"message": "out of memory"}}']
    with pytest.raises(openai.APIError, match="out of memory"):
        list(client.chat.completions.create(model="m", messages=MESSAGES, stream=True))


def test_openai_tools_and_json(client: openai.OpenAI, upstream: FakeUpstream) -> None:
    upstream.message = {"tool_calls": [TOOL_CALL]}
    upstream.answers, upstream.finish = [""], "tool_calls"
    tools: Any = [{"type": "function", "function": {"name": "get_weather", "parameters": {}}}]
    done = client.chat.completions.create(model="m", messages=MESSAGES, tools=tools)
    call: Any = (done.choices[0].message.tool_calls or [])[0]
    assert call.function.arguments == '{"city": "Paris"}'
    assert upstream.requests[0]["tools"] == tools
    stream = client.chat.completions.create(model="m", messages=MESSAGES, tools=tools, stream=True)
    deltas = [c.choices[0].delta for c in stream]
    parts: Any = [d.tool_calls[0].function.arguments for d in deltas if d.tool_calls]
    assert "".join(parts) == '{"city": "Paris"}'
    upstream.message, upstream.finish = {}, "stop"
    upstream.answers = ['{"answer": "You idiot"}']
    form: Any = {"type": "json_object"}
    whole = client.chat.completions.create(model="m", messages=MESSAGES, response_format=form)
    assert whole.choices[0].message.content == '{"answer": "You idiot"}'
    stream = client.chat.completions.create(
        model="m", messages=MESSAGES, response_format=form, stream=True
    )
    text = "".join(c.choices[0].delta.content or "" for c in stream)
    assert text == '{"answer": "You idiot"}'


class Weather(BaseModel):
    """The weather."""

    city: str


@tool
def get_weather(city: str) -> str:
    """The weather of a city."""
    return city


async def test_langchain(real: Served, upstream: FakeUpstream) -> None:
    with httpx.Client() as client, httpx.Client() as _:
        async with httpx.AsyncClient() as async_client:
            llm = ChatOpenAI(
                base_url=real.api,
                api_key="k",  # type: ignore[arg-type]
                model="m",
                max_retries=0,
                http_client=client,
                http_async_client=async_client,
            )
            assert llm.invoke(QUESTION).text == TEXT
            assert "".join(chunk.text for chunk in llm.stream(QUESTION)) == TEXT
            assert "".join([chunk.text async for chunk in llm.astream(QUESTION)]) == TEXT
            upstream.answers, upstream.message = [""], {"tool_calls": [TOOL_CALL]}
            upstream.finish = "tool_calls"
            called: Any = llm.bind_tools([get_weather]).invoke(QUESTION)
            assert called.tool_calls[0]["args"] == {"city": "Paris"}
            upstream.message, upstream.finish = {}, "stop"
            upstream.answers = ['{"city": "Rome"}']
            structured = llm.with_structured_output(Weather, method="json_schema")
            assert structured.invoke(QUESTION) == Weather(city="Rome")


def test_llama_index(real: Served) -> None:
    with httpx.Client() as client:
        llm = OpenAILike(
            model="m",
            api_base=real.api,
            api_key="k",
            is_chat_model=True,
            max_retries=0,
            http_client=client,
        )
        messages = [ChatMessage(role="user", content=QUESTION)]
        assert llm.chat(messages).message.content == TEXT
        assert "".join(r.delta or "" for r in llm.stream_chat(messages)) == TEXT
        assert llm.complete(QUESTION).text == TEXT
