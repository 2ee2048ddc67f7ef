from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentWorkflow, FunctionAgent, ReActAgent
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.llms import ChatMessage, MockLLM
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.workflow import Context

from aligner_integrations import AlignedLLM, Aligner, AlignerFunctionAgent
from aligner_integrations.engines.base import Job
from aligner_integrations.errors import ConfigurationError, InputTypeError
from aligner_integrations.llama_index import AgentCorrection
from tests.llama_index.clients import WORKFLOW_WARNINGS
from tests.llama_index.leaks import find_leaks
from tests.llama_index.upstream import (
    ANSWER,
    CORRECTED,
    QUESTION,
    RICE_ANSWER,
    RICE_CORRECTED,
    RICE_QUESTION,
    CallingLLM,
)

pytestmark = WORKFLOW_WARNINGS

CALL = ("minutes", {"dish": "eggs"})
STREAMING = pytest.mark.parametrize("streaming", [False, True], ids=["whole", "stream"])


def minutes(dish: str) -> str:
    """How long it takes."""
    return f"{dish}: 8"


def make(aligner: Aligner, steps: Any = (CALL, ANSWER), **arguments: Any) -> AlignerFunctionAgent:
    return AlignerFunctionAgent(
        llm=CallingLLM(steps=list(steps)), aligner=aligner, tools=[minutes], **arguments
    )


async def run(agent: Any, question: str = QUESTION, **arguments: Any) -> tuple[Any, list[Any]]:
    """The result, and all events that a client can see."""
    handler = agent.run(user_msg=question, **arguments)
    events = [event async for event in handler.stream_events()]
    return await handler, events


def text(events: list[Any], name: str = "") -> str:
    return "".join(
        event.delta
        for event in events
        if type(event).__name__ == "AgentStream" and name in ("", event.current_agent_name)
    )


@STREAMING
async def test_result_memory_and_events(aligner: Aligner, jobs: list[Job], streaming: bool) -> None:
    agent = make(aligner, streaming=streaming)
    memory = ChatMemoryBuffer.from_defaults()

    result, events = await run(agent, memory=memory)

    assert isinstance(agent, FunctionAgent)
    assert str(result) == CORRECTED
    assert find_leaks([result, events, memory]) == []
    assert [(m.role.value, m.content) for m in memory.get_all()] == [
        ("user", QUESTION),
        ("assistant", "Let me see."),
        ("tool", "eggs: 8"),
        ("assistant", CORRECTED),
    ]
    assert [job.question for job in jobs] == [QUESTION]
    assert [call.tool_name for call in result.tool_calls] == ["minutes"]
    assert text(events) == (f"Let me see.{CORRECTED}" if streaming else "")
    (corrected,) = [event for event in events if isinstance(event, AgentCorrection)]
    assert (corrected.record["changed"], corrected.current_agent_name) == (True, "Agent")
    assert {type(event).__name__ for event in events} >= {"AgentInput", "AgentOutput", "ToolCall"}


@STREAMING
async def test_state_and_context(aligner: Aligner, jobs: list[Job], streaming: bool) -> None:
    """The question is what the user said, without the state that the agent puts before it."""
    agent = make(aligner, initial_state={"dishes": 2}, streaming=streaming)
    ctx = Context(agent)

    await run(agent, ctx=ctx)
    await run(agent, RICE_QUESTION, ctx=ctx)

    assert [job.question for job in jobs] == [QUESTION, RICE_QUESTION]
    assert "dishes" in str(agent.llm.llm.asked[0])
    assert find_leaks(agent.llm.llm.asked) == []
    assert find_leaks(ctx.to_dict()) == []


async def test_history(aligner: Aligner, jobs: list[Job]) -> None:
    given = [ChatMessage("Hi!"), ChatMessage("Hello!", role="assistant")]
    agent = make(aligner, history="all", initial_state={"dishes": 2})
    await run(agent, chat_history=given)
    assert [job.question for job in jobs] == [f"User: Hi!\nAssistant: Hello!\nUser: {QUESTION}"]


async def test_runs_at_the_same_time_do_not_mix(aligner: Aligner) -> None:
    scripts = {QUESTION: [CALL, ANSWER], RICE_QUESTION: [RICE_ANSWER]}
    llm = CallingLLM(scripts=scripts)
    agent = AlignerFunctionAgent(llm=llm, aligner=aligner, tools=[minutes])
    asked = [QUESTION, RICE_QUESTION] * 3
    found = await asyncio.gather(*(run(agent, question) for question in asked))
    wanted = {QUESTION: CORRECTED, RICE_QUESTION: RICE_CORRECTED}
    assert [str(result) for result, _ in found] == [wanted[q] for q in asked]
    assert [text(events).removeprefix("Let me see.") for _, events in found] == [
        wanted[q] for q in asked
    ]


@STREAMING
async def test_handoffs_are_skipped(aligner: Aligner, jobs: list[Job], streaming: bool) -> None:
    handoff = ("handoff", {"to_agent": "cook", "reason": "food"})
    first = make(
        aligner,
        [handoff],
        name="clerk",
        description="Greets.",
        can_handoff_to=["cook"],
        streaming=streaming,
    )
    steps = [None, ANSWER]  # the handoff is a result that it sees
    cook = make(aligner, steps, name="cook", description="Cooks.", streaming=streaming)
    memory = ChatMemoryBuffer.from_defaults()

    workflow = AgentWorkflow(agents=[first, cook], root_agent="clerk")
    result, events = await run(workflow, memory=memory)

    assert str(result) == CORRECTED
    assert find_leaks([result, events, memory]) == []
    assert [job.question for job in jobs] == [QUESTION]
    assert text(events, "cook") == (CORRECTED if streaming else "")


async def test_structured_output(aligner: Aligner) -> None:
    class Recipe(BaseModel):
        minutes: int

    seen: list[Any] = []

    def structure(messages: list[ChatMessage]) -> dict[str, Any]:
        seen.extend(messages)
        return {"minutes": 8}

    result, _ = await run(make(aligner, structured_output_fn=structure))
    assert result.structured_response == {"minutes": 8}
    assert find_leaks(seen) == []

    class Structuring(CallingLLM):
        async def astructured_predict(self, output_cls: Any, prompt: Any, **kwargs: Any) -> Any:
            seen.extend(prompt.format_messages())
            return Recipe(minutes=9)

    agent = AlignerFunctionAgent(
        llm=Structuring(steps=[ANSWER]), aligner=aligner, output_cls=Recipe
    )
    result, events = await run(agent)
    assert str(result) == CORRECTED
    assert result.get_pydantic_model(Recipe) == Recipe(minutes=9)
    assert find_leaks([seen, events]) == []


async def test_early_stopping(aligner: Aligner) -> None:
    """The last word of an agent that ran out of steps is an answer too."""

    class Endless(CallingLLM):
        def _answer(self, messages: Any) -> Any:
            last = (messages[-1].content or "").lower()
            self.steps = [ANSWER] * 9 if "maximum" in last or "iteration" in last else [CALL] * 9
            return super()._answer(messages)

    agent = AlignerFunctionAgent(
        llm=Endless(), aligner=aligner, tools=[minutes], early_stopping_method="generate"
    )
    memory = ChatMemoryBuffer.from_defaults()
    result, events = await run(agent, memory=memory, max_iterations=2)
    assert str(result) == CORRECTED
    assert find_leaks([result, events, memory]) == []


@STREAMING
async def test_policies(
    aligner: Aligner, silence: Callable[[Aligner], None], streaming: bool
) -> None:
    silence(aligner)
    agent = make(aligner, max_latency=1e-9, on_error="refuse", streaming=streaming)
    memory = ChatMemoryBuffer.from_defaults()
    result, events = await run(agent, memory=memory)
    assert str(result).startswith("I'm sorry")
    assert find_leaks([result, events, memory]) == []


async def test_cancelled_runs(aligner: Aligner) -> None:
    agent = make(aligner)
    memory = ChatMemoryBuffer.from_defaults()
    handler = agent.run(user_msg=QUESTION, memory=memory)
    events = []
    async for event in handler.stream_events():
        events.append(event)
        if type(event).__name__ == "ToolCallResult":
            break
    await handler.cancel_run()
    assert find_leaks([events, memory]) == []


@STREAMING
async def test_react_agents_with_an_aligned_llm(
    aligner: Aligner, jobs: list[Job], streaming: bool
) -> None:
    steps = [
        'Thought: I need a tool.\nAction: minutes\nAction Input: {"dish": "eggs"}',
        f"Thought: I can answer.\nAnswer: {ANSWER}",
    ]
    llm = AlignedLLM(CallingLLM(steps=steps), aligner)
    agent = ReActAgent(llm=llm, tools=[minutes], streaming=streaming)
    memory = ChatMemoryBuffer.from_defaults()

    result, events = await run(agent, memory=memory)

    assert str(result) == CORRECTED
    assert find_leaks([result, events, memory]) == []
    assert [job.question for job in jobs] == [QUESTION]
    assert CORRECTED in memory.get_all()[-1].content


def test_arguments(aligner: Aligner) -> None:
    llm = AlignedLLM(MockLLM(), aligner, on_error="original")
    assert AlignerFunctionAgent(llm=llm).llm is llm
    with pytest.raises(ConfigurationError, match="give them to the AlignedLLM"):
        AlignerFunctionAgent(llm=llm, on_error="refuse")
    with pytest.raises(ConfigurationError, match="on_error='ignore'"):
        AlignerFunctionAgent(llm=MockLLM(), on_error="ignore")
    agent = AlignerFunctionAgent(name="cook", llm=MockLLM(), aligner=aligner, protect=["urls"])
    assert (agent.name, agent.llm.protect) == ("cook", ["urls"])
    with pytest.raises(InputTypeError, match="wrap the MockLLM"):
        agent.llm = MockLLM()
    agent.llm = llm
    assert agent.llm is llm
    assert AlignerFunctionAgent.class_name() == "AlignerFunctionAgent"
