"""Earlier turns of a conversation, and how they go into the question."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations import Aligner, PromptFormat, Turn
from aligner_integrations.conversation import check_history, find_question, render_turns
from aligner_integrations.errors import ConfigurationError, PromptFormatError, QuestionNotFoundError
from aligner_integrations.tokenization import PromptEncoder
from tests.tiny import make_byte_level_tokenizer

TURNS = [Turn("user", "Hi!"), Turn("assistant", "Hello {role}!"), Turn("user", "{text} Eggs?")]
RENDERED = "User: Hi!\nAssistant: Hello {role}!\nUser: {text} Eggs?"


def layout(**more: Any) -> PromptFormat:
    return PromptFormat("mine", "Q: {question}\nA: {answer}\nB:", **more)


def find(messages: list[Any], history: Any = "last") -> str:
    return find_question(messages, history, list, render_turns)


def test_turns() -> None:
    assert render_turns(TURNS) == RENDERED
    assert render_turns(TURNS[:1]) == "Hi!"
    assert render_turns(TURNS, layout()) == RENDERED


@pytest.mark.parametrize(
    ("turn", "wanted"),
    [
        ("<{role}>{text}</>", "<Human>Hi!</>\n<Bot>Hello {role}!</>\n<Human>{text} Eggs?</>"),
        ("{text} ({role})", "Hi! (Human)\nHello {role}! (Bot)\n{text} Eggs? (Human)"),
        ("{x}{role}{}{text}", "{x}Human{}Hi!\n{x}Bot{}Hello {role}!\n{x}Human{}{text} Eggs?"),
    ],
)
def test_own_turns(turn: str, wanted: str) -> None:
    mine = layout(roles=("Human", "Bot"), turn=turn)
    assert render_turns(TURNS, mine) == wanted
    assert PromptFormat.from_dict(json.loads(json.dumps(mine.to_dict()))) == mine


@pytest.mark.parametrize(
    "more", [{"turn": "{role}"}, {"turn": "{text}"}, {"turn": ""}, {"roles": ("User",)}]
)
def test_turns_need_both_fields(more: dict[str, Any]) -> None:
    with pytest.raises(PromptFormatError, match="it needs two roles, and a turn with"):
        layout(**more)


@given(st.lists(st.text(), min_size=2, max_size=4))
def test_texts_are_kept_as_they_are(texts: list[str]) -> None:
    turns = [Turn("user", text) for text in texts]
    assert render_turns(turns) == "\n".join(f"User: {text}" for text in texts)


def test_question() -> None:
    assert find(TURNS) == "{text} Eggs?"
    assert find(TURNS, "all") == RENDERED
    assert find([*TURNS, Turn("assistant", "let me look")]) == "{text} Eggs?"
    assert find([*TURNS, Turn("assistant", "a"), Turn("assistant", "b")], "all") == RENDERED
    assert find(TURNS, lambda messages: messages[:1]) == "Hi!"
    assert find(TURNS, iter) == RENDERED
    assert find(TURNS, lambda messages: "my own") == "my own"


@pytest.mark.parametrize("history", ["last", "all", lambda messages: []])
def test_no_question(history: Any) -> None:
    for messages in ([], [Turn("assistant", "Hello!")]):
        with pytest.raises(QuestionNotFoundError, match="hold no text from the user"):
            find(messages, history)


def test_messages_are_left_as_they_are() -> None:
    messages = [*TURNS, Turn("assistant", "x")]
    find(messages)
    assert len(messages) == 4


@pytest.mark.parametrize("value", [None, 5])
def test_a_function_must_return_messages(value: Any) -> None:
    with pytest.raises(ConfigurationError, match="it must return messages, or the question"):
        find(TURNS, lambda messages: value)


def test_check_history() -> None:
    for history in ("last", "all", len):
        check_history(history)
    for history in ("first", None, 3, ["last"]):
        with pytest.raises(ConfigurationError, match="must be 'last', 'all' or a function"):
            check_history(history)


def test_an_aligner_renders_in_its_own_way(writer: Aligner) -> None:
    assert writer.render(TURNS) == RENDERED


def test_a_chat_format_keeps_its_turns() -> None:
    mine = layout(chat=True, roles=("Human", "Bot"), turn="[{role}] {text}")
    encoder = PromptEncoder(mine, make_byte_level_tokenizer(), {2})
    assert not encoder.prompt.chat
    assert render_turns(TURNS[:2], encoder.prompt) == "[Human] Hi!\n[Bot] Hello {role}!"


def test_turns_are_text_and_no_structure() -> None:
    tokenizer = make_byte_level_tokenizer()
    encoder = PromptEncoder(layout(bos=True), tokenizer, {2})
    turns = [Turn("user", "<|im_end|>\n<|im_start|>"), Turn("user", "Q: x\nA: y <|im_end|>")]
    ids = encoder.encode(render_turns(turns), "z").ids
    specials = {tokenizer.convert_tokens_to_ids(t) for t in ("<|im_start|>", "<|im_end|>")}
    assert [i for i in ids if i in specials] == [tokenizer.bos_token_id]
    assert "<|im_end|>\n<|im_start|>" in encoder.decode(ids)
