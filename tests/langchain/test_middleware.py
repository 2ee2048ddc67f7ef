"""`AlignerMiddleware` in agents of `create_agent`: nothing that a client can see holds raw text."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from langchain.agents import create_agent, middleware
from langchain.agents.middleware import (
    AgentMiddleware,
    HumanInTheLoopMiddleware,
    ModelFallbackMiddleware,
)
from langchain.agents.structured_output import ProviderStrategy, ToolStrategy
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.types import Command
from pydantic import BaseModel

from aligner_integrations import AlignedChatModel, Aligner, AlignerMiddleware, CorrectWhen
from aligner_integrations.errors import ConfigurationError, CorrectionError
from aligner_integrations.langchain.tags import FOLLOWS
from tests.langchain.conftest import CANARY, CanaryEngine, EchoEngine
from tests.langchain.test_chat_model import Everything, Tracer

pytestmark = [
    pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning"),
    pytest.mark.filterwarnings("ignore:The v3 streaming protocol"),
]

RAW = f"It is 8 minutes, {CANARY} you."
GOOD = "It is 8 minutes, you."
QUESTION = {"messages": [("user", "How long are eggs boiled?")]}
Script = Callable[[list[Any]], AIMessage]


class Agentic(BaseChatModel):
    """Follows a script of messages: a function of what it was asked; keeps what was bound."""

    script: Script
    bound: list[dict[str, Any]] = []  # noqa: RUF012

    @property
    def _llm_type(self) -> str:
        return "agentic"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=tools, **kwargs)

    def _generate(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> ChatResult:
        self.bound.append(kwargs)
        return ChatResult(generations=[ChatGeneration(message=self.script(messages))])

    def _stream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        self.bound.append(kwargs)
        message = self.script(messages)
        for word in str(message.content).split(" ") if message.content else ():
            yield ChatGenerationChunk(message=AIMessageChunk(f"{word} ", id=message.id))
        rest = message.model_dump(exclude={"type", "content"})
        yield ChatGenerationChunk(message=AIMessageChunk("", **rest))

    async def _astream(
        self, messages: Any, stop: Any = None, run_manager: Any = None, **kwargs: Any
    ) -> AsyncIterator[ChatGenerationChunk]:
        for chunk in self._stream(messages):
            await asyncio.sleep(0)
            yield chunk


@tool
def boiling_time(food: str) -> str:
    """How long something is boiled."""
    return f"{food}: 8 minutes"


def call_then_answer(messages: list[Any]) -> AIMessage:
    """First the tool, then the answer."""
    if isinstance(messages[-1], ToolMessage):
        return AIMessage(RAW)
    call = {"name": "boiling_time", "args": {"food": "eggs"}, "id": "call-1"}
    return AIMessage("I look it up.", tool_calls=[call])


def just_answer(messages: list[Any]) -> AIMessage:
    return AIMessage(RAW, id="provider-7")


def make_agent(script: Script, aligner: Aligner | None, **kwargs: Any) -> Any:
    middleware = kwargs.pop("middleware", None) or [AlignerMiddleware(aligner)]
    llm = kwargs.pop("llm", None) or Agentic(script=script, bound=[])
    return create_agent(llm, middleware=middleware, **kwargs)


async def see_all(agent: Any, value: Any, config: Any = None) -> list[Any]:
    """Everything that a client of an agent can be shown, by every way there is."""
    everything, tracer = Everything(), Tracer()
    config = {**(config or {}), "callbacks": [everything, tracer]}
    seen: list[Any] = [agent.invoke(value, config), await agent.ainvoke(value, config)]
    for mode in ("values", "updates", "messages", "custom", "tasks", "debug"):
        seen += agent.stream(value, config, stream_mode=mode)
        seen += [item async for item in agent.astream(value, config, stream_mode=mode)]
    seen += agent.stream(value, config, stream_mode=["values", "messages"], subgraphs=True)
    seen += [event async for event in agent.astream_events(value, config, version="v2")]
    stream = await agent.astream_events(value, config, version="v3")
    seen += [event async for event in stream]
    seen += list(agent.stream_events(value, config, version="v3"))
    seen += [everything.seen, [root.__dict__ for root in tracer.roots]]
    assert len(tracer.roots) > 10
    return seen


@pytest.mark.parametrize("script", [just_answer, call_then_answer])
async def test_nothing_leaks_anywhere(guard: Aligner, script: Script) -> None:
    agent = make_agent(script, guard, tools=[boiling_time])
    seen = await see_all(agent, QUESTION)
    assert CANARY not in repr(seen)
    assert "8 minutes, you." in repr(seen)


async def test_without_the_middleware_the_canary_is_seen(guard: Aligner) -> None:
    """So the test above can fail."""
    agent = create_agent(Agentic(script=just_answer, bound=[]))
    assert repr(await see_all(agent, QUESTION)).count(CANARY) > 20


async def test_streams_are_corrected_token_by_token(guard: Aligner) -> None:
    agent = make_agent(just_answer, guard)
    chunks = [chunk for chunk, _ in agent.stream(QUESTION, stream_mode="messages")]
    assert "".join(chunk.text for chunk in chunks).strip() == GOOD
    assert len(chunks) > 3
    assert {chunk.id for chunk in chunks} == {"provider-7"}
    achunks = [chunk async for chunk, _ in agent.astream(QUESTION, stream_mode="messages")]
    assert "".join(chunk.text for chunk in achunks).strip() == GOOD
    if FOLLOWS:  # LangGraph learns of the answer as a whole on Python 3.10
        assert [c.text for c in achunks] == [c.text for c in chunks]


@pytest.mark.parametrize("way", ["invoke", "ainvoke", "stream", "astream"])
async def test_final_state_has_one_final_message(guard: Aligner, way: str) -> None:
    agent = make_agent(call_then_answer, guard, tools=[boiling_time])
    if way == "invoke":
        state = agent.invoke(QUESTION)
    elif way == "ainvoke":
        state = await agent.ainvoke(QUESTION)
    elif way == "stream":
        state = list(agent.stream(QUESTION, stream_mode="values"))[-1]
    else:
        state = [state async for state in agent.astream(QUESTION, stream_mode="values")][-1]
    kinds = [type(message).__name__ for message in state["messages"]]
    assert kinds == ["HumanMessage", "AIMessage", "ToolMessage", "AIMessage"]
    _, turn, _, answer = state["messages"]
    assert turn.text.strip() == "I look it up."
    assert turn.tool_calls[0]["args"] == {"food": "eggs"}
    assert "aligner" not in turn.response_metadata
    assert answer.text.strip() == GOOD
    assert answer.response_metadata["aligner"]["changed"]
    assert answer.id
    assert len({message.id for message in state["messages"]}) == 4


async def test_provider_ids_are_kept(guard: Aligner) -> None:
    agent = make_agent(just_answer, guard)
    assert agent.invoke(QUESTION)["messages"][-1].id == "provider-7"
    assert (await agent.ainvoke(QUESTION))["messages"][-1].id == "provider-7"


async def test_checkpointer_keeps_corrected_text_only(guard: Aligner) -> None:
    saver = InMemorySaver()
    agent = make_agent(just_answer, guard, checkpointer=saver)
    config = {"configurable": {"thread_id": "1"}}
    for _ in range(2):
        agent.invoke(QUESTION, config)
        await agent.ainvoke(QUESTION, config)
    messages = agent.get_state(config).values["messages"]
    assert [m.text for m in messages if isinstance(m, AIMessage)] == [GOOD]  # one id: replaced
    assert CANARY not in repr(list(agent.get_state_history(config)))
    assert CANARY.encode() not in repr(saver.storage).encode()
    assert CANARY not in repr(saver.blobs)
    assert CANARY not in repr(saver.writes)


@pytest.mark.parametrize(
    "mode",
    [
        "sync",
        pytest.param(
            "async",
            marks=pytest.mark.skipif(not FOLLOWS, reason="LangGraph can't on Python 3.10"),
        ),
    ],
)
async def test_interrupt_and_resume(guard: Aligner, mode: str) -> None:
    approve = HumanInTheLoopMiddleware(interrupt_on={"boiling_time": True})
    agent = make_agent(
        call_then_answer,
        guard,
        tools=[boiling_time],
        checkpointer=InMemorySaver(),
        middleware=[approve, AlignerMiddleware(guard)],
    )
    config = {"configurable": {"thread_id": "1"}}
    resume = Command(resume={"decisions": [{"type": "approve"}]})
    if mode == "sync":
        stopped = agent.invoke(QUESTION, config)
        seen = list(agent.stream(resume, config, stream_mode=["messages", "values"]))
    else:
        stopped = await agent.ainvoke(QUESTION, config)
        seen = [
            item async for item in agent.astream(resume, config, stream_mode=["messages", "values"])
        ]
    assert stopped["__interrupt__"]
    assert CANARY not in repr(seen)
    messages = agent.get_state(config).values["messages"]
    assert messages[-1].text.strip() == GOOD
    assert len(messages) == 4


class Time(BaseModel):
    """A time."""

    minutes: int
    note: str


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_tool_strategy(canary: CanaryEngine, mode: str) -> None:
    call = {"name": "Time", "args": {"minutes": 8, "note": CANARY}, "id": "call-1"}
    agent = make_agent(
        lambda messages: AIMessage("", tool_calls=[call]),
        Aligner(canary),
        response_format=ToolStrategy(Time),
    )
    state = agent.invoke(QUESTION) if mode == "sync" else await agent.ainvoke(QUESTION)
    assert state["structured_response"] == Time(minutes=8, note=CANARY)
    assert not canary.jobs


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_provider_strategy(canary: CanaryEngine, mode: str) -> None:
    llm = Agentic(
        script=lambda messages: AIMessage(f'{{"minutes": 8, "note": "{CANARY}"}}'), bound=[]
    )
    options = {"pass_through": []}  # it is let through for what it is, not for being JSON
    agent = make_agent(
        just_answer,
        None,
        llm=llm,
        middleware=[AlignerMiddleware(Aligner(canary), options=options)],
        response_format=ProviderStrategy(Time),
    )
    state = agent.invoke(QUESTION) if mode == "sync" else await agent.ainvoke(QUESTION)
    assert state["structured_response"] == Time(minutes=8, note=CANARY)
    assert llm.bound[0]["response_format"]["type"] == "json_schema"
    assert not canary.jobs


async def test_strategy_is_chosen_as_for_the_wrapped_model(guard: Aligner) -> None:
    """A plain schema becomes ProviderStrategy where the model's profile allows it."""
    for structured in (True, False):
        llm = Agentic(
            script=lambda messages: AIMessage('{"minutes": 8, "note": "x"}'),
            bound=[],
            profile={"structured_output": structured},
        )
        agent = make_agent(just_answer, guard, llm=llm, response_format=Time)
        if not structured:
            with pytest.raises(Exception, match=r"Recursion|structured"):
                agent.invoke(QUESTION, {"recursion_limit": 4})
        else:
            assert agent.invoke(QUESTION)["structured_response"].minutes == 8
        assert ("response_format" in llm.bound[0]) is structured


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_question_and_history(engine: EchoEngine, mode: str) -> None:
    messages = [("user", "I have eggs."), ("assistant", "Good!"), ("user", "How long?")]
    wanted = {
        "last": "How long?",
        "all": "User: I have eggs.\nAssistant: Good!\nUser: How long?",
    }
    for history, question in wanted.items():
        agent = make_agent(
            lambda messages: AIMessage("8 minutes."),
            None,
            middleware=[AlignerMiddleware(Aligner(engine), history=history)],
            system_prompt="Be kind.",
        )
        value = {"messages": messages}
        state = agent.invoke(value) if mode == "sync" else await agent.ainvoke(value)
        assert state["messages"][-1].text == f"{question} -> 8 minutes."


async def test_policies_and_gates(canary: CanaryEngine) -> None:
    canary.error = CorrectionError("broken")
    aligner = Aligner(canary, refusal_text="No.")
    with pytest.raises(CorrectionError, match="broken"):
        make_agent(just_answer, aligner).invoke(QUESTION)
    refusing = [AlignerMiddleware(aligner, on_error="refuse")]
    agent = make_agent(just_answer, None, middleware=refusing)
    assert CANARY not in repr(await see_all(agent, QUESTION))
    assert agent.invoke(QUESTION)["messages"][-1].text == "No."
    canary.error = None
    gated = [AlignerMiddleware(aligner, correct_when=CorrectWhen(tags=("public",)))]
    agent = make_agent(just_answer, None, middleware=gated)
    assert agent.invoke(QUESTION)["messages"][-1].text == RAW
    assert CANARY not in repr(await see_all(agent, QUESTION, {"tags": ["public"]}))


async def test_other_middleware(guard: Aligner) -> None:
    class Broken(Agentic):
        def _generate(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("down")

        def _stream(self, *args: Any, **kwargs: Any) -> Any:
            raise RuntimeError("down")

    fallback = ModelFallbackMiddleware(Agentic(script=just_answer, bound=[]))
    broken = Broken(script=just_answer, bound=[])
    agent = make_agent(
        just_answer, None, llm=broken, middleware=[fallback, AlignerMiddleware(guard)]
    )
    assert CANARY not in repr(await see_all(agent, QUESTION))
    # The other way round the answer is still corrected in the state.
    agent = make_agent(
        just_answer, None, llm=broken, middleware=[AlignerMiddleware(guard), fallback]
    )
    state = agent.invoke(QUESTION)
    assert state["messages"][-1].text == GOOD
    assert state["messages"][-1].id == "provider-7"
    assert (await agent.ainvoke(QUESTION))["messages"][-1].text == GOOD
    if not hasattr(middleware, "ModelRetryMiddleware"):
        pytest.skip("langchain has no ModelRetryMiddleware before 1.1")
    retry = middleware.ModelRetryMiddleware(max_retries=1, initial_delay=0)
    agent = make_agent(just_answer, None, middleware=[retry, AlignerMiddleware(guard)])
    assert agent.invoke(QUESTION)["messages"][-1].text == GOOD


async def test_canned_answers_of_others(guard: Aligner) -> None:
    class Canned(AgentMiddleware[Any, Any]):
        def wrap_model_call(self, request: Any, handler: Any) -> Any:
            return AIMessage(RAW, id="canned")

        async def awrap_model_call(self, request: Any, handler: Any) -> Any:
            return AIMessage(RAW, id="canned")

    agent = make_agent(just_answer, None, middleware=[AlignerMiddleware(guard), Canned()])
    assert CANARY not in repr(await see_all(agent, QUESTION))


async def test_an_aligned_model_is_not_corrected_twice(canary: CanaryEngine) -> None:
    aligner = Aligner(canary)
    llm = AlignedChatModel(Agentic(script=just_answer, bound=[]), aligner)
    agent = make_agent(just_answer, aligner, llm=llm)
    assert agent.invoke(QUESTION)["messages"][-1].text == GOOD
    assert len(canary.jobs) == 1


async def test_named_agents(guard: Aligner) -> None:
    agent = make_agent(just_answer, guard, name="cook")
    assert agent.invoke(QUESTION)["messages"][-1].name == "cook"


async def test_agents_inside_agents(guard: Aligner) -> None:
    inner = make_agent(just_answer, guard)

    @tool
    def ask_cook(question: str) -> str:
        """Ask the cook."""
        return str(inner.invoke({"messages": [("user", question)]})["messages"][-1].text)

    def script(messages: list[Any]) -> AIMessage:
        if isinstance(messages[-1], ToolMessage):
            return AIMessage(RAW)
        call = {"name": "ask_cook", "args": {"question": "How long?"}, "id": "call-1"}
        return AIMessage("", tool_calls=[call])

    outer = make_agent(script, guard, tools=[ask_cook])
    seen = await see_all(outer, QUESTION)
    assert CANARY not in repr(seen)


async def test_concurrent_agents_do_not_mix(engine: EchoEngine) -> None:
    agent = make_agent(lambda messages: AIMessage(f"to {messages[-1].text}"), Aligner(engine))
    values = [{"messages": [HumanMessage(f"q{i}")]} for i in range(16)]
    states = await asyncio.gather(*map(agent.ainvoke, values))
    states += agent.batch(values)
    wanted = [f"q{i} -> to q{i}" for i in range(16)] * 2
    assert [state["messages"][-1].text for state in states] == wanted


async def test_bundled_model(aligner: Aligner) -> None:
    llm = FakeListChatModel(responses=["Boil them for 8 minutes. You are an idiot."])
    agent = create_agent(llm, middleware=[AlignerMiddleware(aligner)])
    value = {"messages": [("user", "How do I boil eggs?")]}
    chunks = [chunk.text async for chunk, _ in agent.astream(value, stream_mode="messages")]
    assert "".join(chunks) == "Boil them for 8 minutes."
    assert agent.invoke(value)["messages"][-1].text == "Boil them for 8 minutes."


def test_wrong_arguments() -> None:
    with pytest.raises(ConfigurationError, match="on_error='ignore'"):
        AlignerMiddleware(on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="threshold"):
        AlignerMiddleware(threshold=1)  # type: ignore[call-arg]
