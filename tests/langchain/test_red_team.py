"""What attackers and demanding users do: leaks through side doors, and odd things wrapped."""

from __future__ import annotations

import copy
import json
import sys
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import dispatch_custom_event
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import (
    AIMessage,
    AIMessageChunk,
    BaseMessage,
    ChatMessage,
    HumanMessage,
)
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.runnables import (
    ConfigurableField,
    Runnable,
    RunnableConfig,
    RunnableLambda,
    RunnableParallel,
)

from aligner_integrations import AlignedChatModel, Aligner, AlignerMiddleware, AlignerRunnable
from aligner_integrations.errors import InputTypeError
from aligner_integrations.langchain.identity import name_object
from tests.langchain.conftest import CANARY, MODES, CanaryEngine, Upstream, run, text_of

RAW = f"Boil them, {CANARY} you, for 8 minutes."
GOOD = "Boil them, you, for 8 minutes."
every_mode = pytest.mark.parametrize("mode", MODES)
pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]


def answering(answer: Any, **kwargs: Any) -> Upstream:
    return Upstream(answer=lambda messages: answer, **kwargs)


class Router(BaseChatModel):
    """A chat model that asks another, and hands no config on."""

    inner: BaseChatModel

    @property
    def _llm_type(self) -> str:
        return "router"

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return _result(self.inner.invoke(messages))

    async def _agenerate(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> ChatResult:
        return _result(await self.inner.ainvoke(messages))

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Any:
        for chunk in self.inner.stream(messages):
            yield ChatGenerationChunk(message=chunk)


def _result(message: AIMessage) -> ChatResult:
    return ChatResult(generations=[ChatGeneration(message=message)])


def _agent() -> Runnable[Any, AIMessage]:
    from langchain.agents import create_agent

    agent = create_agent(answering(RAW))

    def ask(messages: list[BaseMessage]) -> AIMessage:
        return agent.invoke({"messages": messages})["messages"][-1]

    async def aask(messages: list[BaseMessage]) -> AIMessage:
        return (await agent.ainvoke({"messages": messages}))["messages"][-1]

    return RunnableLambda(ask, aask)


WRAPPED: dict[str, Callable[[], Any]] = {
    "router": lambda: Router(inner=answering(RAW)),
    "function": lambda: RunnableLambda(lambda messages: answering(RAW).invoke(messages)),
    "agent": _agent,
    "parallel": lambda: RunnableParallel(a=answering(RAW)) | (lambda answers: answers["a"]),
}


@pytest.mark.parametrize("wrapped", WRAPPED)
async def test_models_within_the_wrapped_one_are_unheard(guard: Aligner, wrapped: str) -> None:
    from langgraph.checkpoint.memory import InMemorySaver
    from langgraph.graph import START, MessagesState, StateGraph

    model = AlignedChatModel(WRAPPED[wrapped](), guard)

    def answer(state: MessagesState) -> Any:
        return {"messages": [model.invoke(state["messages"])]}

    async def aanswer(state: MessagesState, config: RunnableConfig) -> Any:
        return {"messages": [await model.ainvoke(state["messages"], config)]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", RunnableLambda(answer, aanswer))
    builder.add_edge(START, "answer")
    saver = InMemorySaver()
    graph = builder.compile(checkpointer=saver)
    question: Any = {"messages": [("user", "Eggs?")]}
    config: Any = {"configurable": {"thread_id": "1"}}
    seen: list[Any] = []
    for stream_mode in ("messages", "updates", "values", "debug", "tasks", "checkpoints"):
        options: Any = {"stream_mode": stream_mode, "subgraphs": True}
        seen += graph.stream(question, config, **options)
        seen += [chunk async for chunk in graph.astream(question, config, **options)]
    for version in ("v1", "v2"):
        events: Any = graph.astream_events(question, config, version=version)
        seen += [event async for event in events]
    seen += saver.list(None)
    assert "Boil them" in repr(seen)
    assert CANARY not in repr(seen)


@every_mode
async def test_custom_events_within_do_not_fail(guard: Aligner, mode: str) -> None:
    if mode.startswith("a") and sys.version_info < (3, 11):
        pytest.skip("LangChain's context does not follow async calls on Python 3.10")

    def ask(messages: list[BaseMessage]) -> AIMessage:
        dispatch_custom_event("raw", {"text": RAW})
        return AIMessage(RAW)

    model = AlignedChatModel(RunnableLambda(ask), guard)
    assert text_of(await run(RunnableLambda(lambda value: value) | model, "Eggs?", mode)) == GOOD


SPELLED = {
    "additional_kwargs": {"audio": {"id": "a", "transcript": RAW}, "reasoning_content": RAW},
    "response_metadata": {
        "finish_reason": "stop",
        "logprobs_result": {"chosen_candidates": [{"token": CANARY}]},
        "avg_logprobs": -0.1,
        "details": {"tokens": [{"text": CANARY}], "prompt_tokens": [1], "generated_tokens": 9},
        "grounding_metadata": {
            "grounding_supports": [{"segment": {"text": f"{CANARY} you", "end_index": 9}}],
            "quotes": [RAW, "Eggs take 8 minutes, says a book."],
        },
        "raw": f'{{"content": "{RAW}"}}',
    },
}
KEPT = {
    "additional_kwargs": {"audio": {"id": "a"}, "reasoning_content": RAW},
    "response_metadata": {
        "finish_reason": "stop",
        "avg_logprobs": -0.1,
        "details": {"prompt_tokens": [1], "generated_tokens": 9},
        "grounding_metadata": {
            "grounding_supports": [{"segment": {"end_index": 9}}],
            "quotes": ["Eggs take 8 minutes, says a book."],
        },
    },
}


@every_mode
async def test_metadata_does_not_spell_the_raw_answer(guard: Aligner, mode: str) -> None:
    upstream = answering(AIMessage(RAW, id="p", **SPELLED))
    for chain in (AlignedChatModel(upstream, guard), upstream | AlignerRunnable(guard)):
        message = await run(chain, "Eggs?", mode)
        assert message.additional_kwargs == KEPT["additional_kwargs"]
        metadata = message.response_metadata
        assert {key: metadata[key] for key in KEPT["response_metadata"]} == KEPT[
            "response_metadata"
        ]
        assert CANARY not in repr(metadata)


@every_mode
async def test_metadata_of_unchanged_answers_is_kept(guard: Aligner, mode: str) -> None:
    metadata = {"quotes": [GOOD, "for 8 minutes"], "logprobs": {"content": [{"token": "Boil"}]}}
    upstream = answering(AIMessage(GOOD, id="p", response_metadata=metadata))
    message = await run(AlignedChatModel(upstream, guard), "Eggs?", mode)
    if not mode.endswith("stream"):  # the fake's stream ends with a space more
        assert message.response_metadata["quotes"] == metadata["quotes"]
    assert message.response_metadata["logprobs"] == metadata["logprobs"]


@every_mode
async def test_text_blocks_do_not_spell_the_raw_answer(guard: Aligner, mode: str) -> None:
    source = {"type": "citation", "url": "https://example.org", "cited_text": RAW}
    block = {"type": "text", "text": RAW, "id": "b", "annotations": [source], "logprobs": [RAW]}
    model = AlignedChatModel(answering(AIMessage([block, {"type": "image", "url": "x"}])), guard)
    message = await run(model, "Eggs?", mode)
    text, image = message.content
    assert text.pop("index", 0) == 0
    assert text == {
        "type": "text",
        "text": GOOD,
        "id": "b",
        "annotations": [{"type": "citation", "url": "https://example.org"}],
    }
    assert image == {"type": "image", "url": "x"}


@every_mode
async def test_a_response_format_of_plain_text_is_corrected(guard: Aligner, mode: str) -> None:
    model = AlignedChatModel(answering(RAW), guard).bind(response_format={"type": "text"})
    assert text_of(await run(model, "Eggs?", mode)) == GOOD


async def test_plain_answers_beside_a_tool_strategy(guard: Aligner) -> None:
    from langchain.agents import create_agent
    from langchain.agents.middleware import ModelFallbackMiddleware
    from langchain.agents.structured_output import ToolStrategy

    class WithTools(Upstream):
        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self

    call = {"name": "Recipe", "args": {"minutes": 8}, "id": "1"}
    answers = iter([AIMessage(RAW), AIMessage("", tool_calls=[call])])
    agent = create_agent(
        WithTools(failures=9),
        middleware=[
            AlignerMiddleware(guard),
            ModelFallbackMiddleware(WithTools(answer=lambda messages: next(answers))),
        ],
        response_format=ToolStrategy({"title": "Recipe", "type": "object", "properties": {}}),
    )
    state = agent.invoke({"messages": [("user", "Eggs?")]})
    assert GOOD in [message.text for message in state["messages"]]
    assert CANARY not in repr(state)


async def test_questions_see_the_same_messages_behind_a_fallback(guard: Aligner) -> None:
    from langchain.agents import create_agent
    from langchain.agents.middleware import ModelFallbackMiddleware

    seen: list[list[str]] = []

    def read(messages: list[BaseMessage]) -> str:
        seen.append([message.type for message in messages])
        return "Eggs?"

    aligner, question = AlignerMiddleware(guard, question=read), {"messages": [("user", "Eggs?")]}
    behind = ModelFallbackMiddleware(answering(RAW))
    for middleware, failures in (([aligner], 0), ([aligner, behind], 9)):
        llm = answering(RAW, failures=failures)
        agent = create_agent(llm, middleware=middleware, system_prompt="Be kind.")
        assert agent.invoke(question)["messages"][-1].text == GOOD
    assert seen == [["system", "human"]] * 2


def _choice() -> Runnable[Any, Any]:
    field = ConfigurableField(id="which")
    return answering(f"A {CANARY} a").configurable_alternatives(field, b=answering("B b"))


@every_mode
async def test_what_the_wrapped_model_lets_configure(guard: Aligner, mode: str) -> None:
    model = AlignedChatModel(_choice(), guard, cache=InMemoryCache())
    for around in (model, RunnableLambda(lambda value: value) | model):
        for which, wanted in (("default", "A a"), ("b", "B b"), ("default", "A a")):
            config: RunnableConfig = {"configurable": {"which": which}}
            assert text_of(await run(around, "Eggs?", mode, config=config)) == wanted
    assert text_of(await run(model, "Eggs?", mode)) == "A a"  # nothing stays


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
@pytest.mark.parametrize("wrap", ["fallbacks", "binding"])
async def test_cache_around_runnables(canary: CanaryEngine, wrap: str, mode: str) -> None:
    upstream = answering(RAW)
    llm: Any = upstream.with_fallbacks([upstream]) if wrap == "fallbacks" else upstream.bind(a=1)
    model = AlignedChatModel(llm, Aligner(canary), cache=InMemoryCache())
    for _ in range(2):
        assert text_of(await run(model, "Eggs?", mode)) == GOOD
    assert len(canary.jobs) == 1


def test_cache_keys_know_what_is_set(guard: Aligner) -> None:
    llm = answering("x")
    models = [
        AlignedChatModel(llm, guard),
        AlignedChatModel(llm, guard, stop=["a"]),
        AlignedChatModel(llm, guard, temperature=0.5),
        AlignedChatModel(llm, guard, max_tokens=5),
        AlignedChatModel(llm, load_options={"dtype": json}),  # nothing that JSON can hold
    ]
    keys = [model._get_llm_string() for model in models]
    assert len(set(keys)) == len(models)
    assert models[0]._get_llm_string(stop=["a"]) == keys[1]


def test_names_of_objects() -> None:
    class Slots:
        __slots__ = ()

    objects = [_choice(), _choice(), Slots(), Slots(), lambda: 1]
    names = [name_object(value) for value in objects]
    assert len(set(names)) == len(names)
    assert names == [name_object(value) for value in objects]


def test_llm_output_is_kept(guard: Aligner) -> None:
    class Counting(Upstream):
        def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
            result = super()._generate(*args, **kwargs)
            return ChatResult(generations=result.generations, llm_output={"calls": 1, "raw": RAW})

        def _combine_llm_outputs(self, llm_outputs: list[Any]) -> dict[str, Any]:
            return {**llm_outputs[0], "calls": sum(output["calls"] for output in llm_outputs)}

    model = AlignedChatModel(Counting(answer=lambda messages: RAW), guard)
    result = model.generate([[HumanMessage("Eggs?")], [HumanMessage("Rice?")]])
    assert result.llm_output == {"calls": 2}
    assert "raw" not in model.invoke("Eggs?").response_metadata


@every_mode
async def test_functions_take_no_stop(guard: Aligner, mode: str) -> None:
    model = AlignedChatModel(RunnableLambda(lambda messages: AIMessage(RAW)), guard)
    assert text_of(await run(model, "Eggs?", mode)) == GOOD


@pytest.mark.parametrize(
    "ask",
    [
        lambda model: model.bind_tools([]),
        lambda model: model.with_structured_output({}),
        lambda model: model.get_num_tokens("x"),
        lambda model: model.get_token_ids("x"),
        lambda model: model.get_num_tokens_from_messages([]),
    ],
)
def test_what_a_function_cannot_do(guard: Aligner, ask: Any) -> None:
    model = AlignedChatModel(RunnableLambda(lambda messages: AIMessage(RAW)), guard)
    with pytest.raises(InputTypeError, match=r"has no .*; do that to the chat model itself"):
        ask(model)


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_streams_that_are_no_generators(guard: Aligner, mode: str) -> None:
    class Chunks:
        def __init__(self) -> None:
            self.left = [AIMessageChunk(content=f"{word} ") for word in RAW.split(" ")]

        def __aiter__(self) -> Chunks:
            return self

        async def __anext__(self) -> AIMessageChunk:
            if not self.left:
                raise StopAsyncIteration
            return self.left.pop(0)

    class Own(Upstream):
        def stream(self, *args: Any, **kwargs: Any) -> Iterator[AIMessageChunk]:
            return iter(Chunks().left)

        def astream(self, *args: Any, **kwargs: Any) -> Any:
            return Chunks()

    assert text_of(await run(AlignedChatModel(Own(), guard), "Eggs?", mode)) == GOOD


@every_mode
async def test_a_question_that_nobody_needs_may_fail(guard: Aligner, mode: str) -> None:
    """Text comes before a tool call: streams begin to read, where others never ask."""

    def fail(messages: list[BaseMessage]) -> str:
        raise KeyError("no question")

    class TextFirst(Upstream):
        def _stream(self, *args: Any, **kwargs: Any) -> Iterator[ChatGenerationChunk]:
            call = {"name": "x", "args": "{}", "id": "1", "index": 0}
            for chunk in (
                AIMessageChunk(content="Let me see."),
                AIMessageChunk(content="", tool_call_chunks=[call]),
            ):
                yield ChatGenerationChunk(message=chunk)

    calls = [{"name": "x", "args": {}, "id": "1"}]
    upstream = TextFirst(answer=lambda messages: AIMessage("Let me see.", tool_calls=calls))
    for chain in (
        AlignedChatModel(upstream, guard, question=fail),
        upstream | AlignerRunnable(guard, question=fail),
    ):
        message = await run(chain, "Eggs?", mode)
        assert message.text == "Let me see."
        assert message.tool_calls[0]["name"] == "x"


@every_mode
async def test_messages_that_name_their_role(echo: Aligner, mode: str) -> None:
    said = [ChatMessage("Eggs?", role="user"), ChatMessage("Be kind.", role="system")]
    for history in ("last", "all"):
        model = AlignedChatModel(answering("8 minutes."), echo, history=history)
        assert text_of(await run(model, said, mode)) == "Eggs? -> 8 minutes."


def test_deep_copies_share_the_model(guard: Aligner) -> None:
    pair = {"question": "Eggs?", "answer": RAW}
    assert copy.deepcopy(AlignerRunnable(guard)).invoke(pair) == GOOD
    model = AlignedChatModel(answering(RAW), guard)
    again = model.model_copy(deep=True)
    assert again.aligner is guard
    assert again.invoke("Eggs?").text == GOOD


def test_updates_of_a_graph(guard: Aligner) -> None:
    from langchain.agents import create_agent

    chain = create_agent(answering(RAW)) | AlignerRunnable(guard)
    with pytest.raises(InputTypeError, match=r"\['model'\], like the updates .*AlignerMiddleware"):
        list(chain.stream({"messages": [("user", "Eggs?")]}))
