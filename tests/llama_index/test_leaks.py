"""The search for leaks finds what it is to find."""

from __future__ import annotations

from dataclasses import dataclass, field
from queue import Queue
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.memory import ChatMemoryBuffer

from tests.llama_index.clients import ASYNC
from tests.llama_index.leaks import find_leaks
from tests.llama_index.test_llm import run
from tests.llama_index.upstream import ANSWER, QUESTION, CallingLLM, ScriptedLLM


@dataclass
class Holder:
    inner: Any = None
    queue: Queue[Any] = field(default_factory=Queue)


@pytest.mark.parametrize(
    "value",
    [
        "You idiot.",
        b"idiot",
        {"a": [("idiot",)]},
        {"idiot": 1},
        Holder({"a": ChatMessage("idiot")}),
    ],
)
def test_what_holds_a_canary(value: Any) -> None:
    assert len(find_leaks(value)) == 1


def test_queues_are_searched() -> None:
    holder = Holder()
    assert find_leaks(holder) == []
    holder.queue.put("idiot")
    assert find_leaks(holder)


@ASYNC
async def test_raw_responses_leak_in_every_place(is_async: bool) -> None:
    leaks = "\n".join(find_leaks(await run(CallingLLM(steps=[ANSWER]), "chat", is_async, False)))
    for place in (".raw[", "logprobs", ".additional_kwargs['echo']", "message.blocks"):
        assert place in leaks


def test_raw_history_leaks() -> None:
    chat = SimpleChatEngine.from_defaults(
        llm=ScriptedLLM(), memory=ChatMemoryBuffer.from_defaults()
    )
    response = chat.stream_chat(QUESTION)
    list(response.response_gen)
    assert find_leaks(response)
    assert find_leaks(chat._memory)
