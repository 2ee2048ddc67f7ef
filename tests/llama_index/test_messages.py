from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ToolCallBlock
from llama_index.core.bridge.pydantic import BaseModel

from aligner_integrations import Turn
from aligner_integrations.llama_index.messages import (
    drop_text,
    has_tool_calls,
    keep_usage,
    read_turns,
    set_text,
)
from aligner_integrations.llama_index.react import (
    asks_for_react,
    find_answer_so_far,
    is_reasoning,
    split_scaffold,
)


class Usage(BaseModel):
    total: int = 3


class Raw(BaseModel):
    choices: tuple[str, ...] = ("idiot",)
    usage: Usage = Usage()


@pytest.mark.parametrize(
    ("raw", "kept"),
    [
        (None, None),
        ("idiot", {}),
        ({"choices": ["idiot"], "usage": {"total": 3}}, {"usage": {"total": 3}}),
        (Raw(), {"usage": {"total": 3}}),
        (SimpleNamespace(text="idiot", usage=Usage(), id="7"), {"usage": {"total": 3}, "id": "7"}),
    ],
)
def test_usage_is_kept(raw: Any, kept: Any) -> None:
    assert keep_usage(raw) == kept


def test_text_is_dropped_at_any_depth() -> None:
    values = {"a": [{"b": ("an idiot.",)}], "c": Raw(), "d": 1, "e": "kind"}
    assert drop_text(values, "idiot") == {"d": 1, "e": "kind"}
    assert drop_text(values, "") == values


@pytest.mark.parametrize(
    ("value", "stays"),
    [
        ("Boil them.  You idiot.", False),
        ("Sure!\nBoil them.\n\nYou idiot. Bye.", False),
        ("You idiot.", False),
        ([{"segments": ["Boil them.", "You idiot."]}], False),
        (["Boil", " them.", " You", " idiot."], False),
        ({"a": ["stop", "them."]}, True),
        ("end turn", True),
        ("", True),
    ],
)
def test_parts_of_a_text_are_dropped_however_they_are_joined(value: Any, stays: bool) -> None:
    assert drop_text({"a": value}, "Boil them.\nYou idiot.") == ({"a": value} if stays else {})


def test_text_goes_into_the_first_text_block() -> None:
    call = ToolCallBlock(tool_name="a")
    message = ChatMessage(role="assistant", blocks=[call, TextBlock(text="a"), TextBlock(text="b")])
    assert set_text(message, "c").blocks == [call, TextBlock(text="c")]
    assert [type(b).__name__ for b in message.blocks] == ["ToolCallBlock", "TextBlock", "TextBlock"]
    assert set_text(ChatMessage(role="assistant"), "c").content == "c"


def test_tool_calls_in_any_form() -> None:
    assert has_tool_calls(ChatMessage(blocks=[ToolCallBlock(tool_name="a")]))
    assert has_tool_calls(ChatMessage("", additional_kwargs={"tool_calls": [1]}))
    assert not has_tool_calls(ChatMessage("", additional_kwargs={"tool_calls": []}))


def test_turns() -> None:
    messages = [
        ChatMessage("Be brief.", role="system"),
        ChatMessage("Eggs?"),
        ChatMessage("Let me see.", role="assistant", additional_kwargs={"tool_calls": [1]}),
        ChatMessage("8", role="tool"),
        ChatMessage(" ", role="assistant"),
        ChatMessage("8 minutes.", role="assistant"),
    ]
    assert read_turns(messages) == [Turn("user", "Eggs?"), Turn("assistant", "8 minutes.")]


@pytest.mark.parametrize(
    ("text", "kept", "answer"),
    [
        ("Boil them.", "", "Boil them."),
        ("Thought: a\nAnswer: b\nAnswer: c", "Thought: a\nAnswer: ", "b\nAnswer: c"),
        ("Thought: a\nAction: b\nAction Input: {}", None, ""),
        ("Thought: a\nAnswer: see Action: b", "Thought: a\nAnswer: ", "see Action: b"),
        ("Thought: a\nAction: b\nAction Input: {}\nAnswer: c", None, ""),
        ("Answer: b", "", "Answer: b"),
        ("Thought: a", "", "Thought: a"),
        ("Action: be rude.", "", "Action: be rude."),
        ("Thought: a\nAction: b\nAnswer: c", "", "Thought: a\nAction: b\nAnswer: c"),
    ],
)
def test_scaffolding(text: str, kept: str | None, answer: str) -> None:
    assert split_scaffold(text) == (text if kept is None else kept, answer)
    for end in range(len(text) + 1):
        assert answer.startswith(find_answer_so_far(text[:end]))


def test_react_is_recognised_by_its_prompt() -> None:
    header = "Thought: ...\nAction: ...\nAction Input: ...\nAnswer: ..."
    assert asks_for_react([ChatMessage(header, role="system"), ChatMessage("Eggs?")])
    assert not asks_for_react([])
    for role in ("assistant", "user", "system"):  # what others say, or retrieved texts do
        assert not asks_for_react([ChatMessage("Eggs?"), ChatMessage(header, role=role)])
    assert not asks_for_react([ChatMessage(header)])
    assert is_reasoning(ChatMessage("Observation: 8"))
    assert is_reasoning(ChatMessage("Thought: 8", role="assistant"))
    assert not is_reasoning(ChatMessage("Thought: 8"))
