"""`AlignedChatModel` around OpenAI's Responses API, with all that it writes beside the text."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from langchain_openai import ChatOpenAI

from aligner_integrations import AlignedChatModel, Aligner
from tests.langchain.conftest import CANARY, MODES, run

RAW = f"Boil {CANARY} them."
PROBABILITIES = [{"token": CANARY, "logprob": -0.1, "bytes": [1], "top_logprobs": []}]
CITATION = {
    "type": "url_citation",
    "start_index": 0,
    "end_index": 4,
    "title": "Eggs",
    "url": "https://example.org",
}
REASONING = {"type": "reasoning", "id": "rs_1", "summary": []}
SEARCH = {
    "type": "web_search_call",
    "id": "ws_1",
    "status": "completed",
    "action": {"type": "search", "query": "eggs"},
}
PART = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
MESSAGE = {
    "type": "message",
    "id": "msg_1",
    "status": "completed",
    "role": "assistant",
    "content": [{**PART, "text": RAW, "annotations": [CITATION], "logprobs": PROBABILITIES}],
}
ITEMS = [REASONING, SEARCH, MESSAGE]
USAGE = {
    "input_tokens": 5,
    "input_tokens_details": {"cached_tokens": 2},
    "output_tokens": 4,
    "output_tokens_details": {"reasoning_tokens": 1},
    "total_tokens": 9,
}


def response(status: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": "resp_1",
        "object": "response",
        "created_at": 1,
        "status": status,
        "model": "gpt-5",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
        "metadata": {},
        **fields,
    }


def events() -> list[dict[str, Any]]:
    completed = response("completed", output=ITEMS, usage=USAGE)
    place = {"item_id": "msg_1", "output_index": 2, "content_index": 0}
    found: list[dict[str, Any]] = [
        {"type": "response.created", "response": response("in_progress")}
    ]
    for index, item in enumerate(ITEMS[:2]):
        found += [
            {"type": "response.output_item.added", "output_index": index, "item": item},
            {"type": "response.output_item.done", "output_index": index, "item": item},
        ]
    begun = {**MESSAGE, "content": [], "status": "in_progress"}
    found += [
        {"type": "response.output_item.added", "output_index": 2, "item": begun},
        {"type": "response.content_part.added", **place, "part": PART},
    ]
    for word in RAW.split(" "):
        delta = {"delta": f"{word} ", "logprobs": PROBABILITIES}
        found.append({"type": "response.output_text.delta", **place, **delta})
    note = {"annotation_index": 0, "annotation": CITATION}
    return [
        *found,
        {"type": "response.output_text.annotation.added", **place, **note},
        {"type": "response.output_item.done", "output_index": 2, "item": MESSAGE},
        {"type": "response.completed", "response": completed},
    ]


def answer(request: httpx.Request) -> httpx.Response:
    if not json.loads(request.content).get("stream"):
        return httpx.Response(200, json=response("completed", output=ITEMS, usage=USAGE))
    rows = [{**event, "sequence_number": index} for index, event in enumerate(events())]
    text = "".join(f"event: {row['type']}\ndata: {json.dumps(row)}\n\n" for row in rows)
    return httpx.Response(200, headers={"content-type": "text/event-stream"}, text=text)


def connect(version: str) -> ChatOpenAI:
    transport = httpx.MockTransport(answer)
    return ChatOpenAI(
        model="gpt-5",
        api_key="k",  # type: ignore[arg-type]
        base_url="http://upstream/v1",
        use_responses_api=True,
        output_version=version,
        http_client=httpx.Client(transport=transport),
        http_async_client=httpx.AsyncClient(transport=transport),
    )


def shown(blocks: Any) -> Any:
    """Content blocks that can be compared: without the text, and in any order of keys."""
    return [{key: block[key] for key in sorted(block) if key != "text"} for block in blocks]


versions = pytest.mark.parametrize("version", ["v0", "responses/v1", "v1"])


@versions
@pytest.mark.parametrize("mode", MODES)
async def test_all_but_the_text_is_kept(guard: Aligner, version: str, mode: str) -> None:
    llm = connect(version)
    raw = await run(llm, "Eggs?", mode)
    message = await run(AlignedChatModel(llm, guard), "Eggs?", mode)
    assert CANARY not in repr(message)
    assert message.text.strip() == "Boil them."
    assert shown(message.content_blocks) == shown(raw.content_blocks)
    assert message.id == raw.id
    assert message.usage_metadata == raw.usage_metadata
    assert message.additional_kwargs == raw.additional_kwargs
    metadata = {k: v for k, v in message.response_metadata.items() if k != "aligner"}
    assert metadata.keys() == raw.response_metadata.keys()


@versions
@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_typed_events(guard: Aligner, version: str) -> None:
    """Each chunk says whose blocks it has, or LangChain reads the text as two blocks."""
    if not hasattr(AlignedChatModel, "stream_events"):
        pytest.skip("this langchain-core has no typed events")
    stream: Any = AlignedChatModel(connect(version), guard).stream_events("Eggs?", version="v3")
    assert CANARY not in repr(list(stream))
    text = [block for block in stream.output.content if block["type"] == "text"]
    assert [block["text"].strip() for block in text] == ["Boil them."]
    assert text[0]["annotations"][0]["url"] == "https://example.org"
    kinds = {block["type"] for block in stream.output.content}
    assert kinds == {"reasoning", "server_tool_call", "server_tool_result", "text"}
