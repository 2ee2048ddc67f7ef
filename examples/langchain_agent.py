"""An agent and a graph in LangChain whose answers are corrected before anyone sees them.

The upstream LLM is scripted: it calls a tool, then answers rudely. The aligner is real.

    pip install 'aligner-integrations[agents]'
    python examples/langchain_agent.py
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from langchain.agents import create_agent
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, ToolMessage
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult
from langchain_core.tools import tool
from langgraph.checkpoint.memory import InMemorySaver
from langgraph.graph import END, START, MessagesState, StateGraph
from rich.console import Console
from rich.rule import Rule

from aligner_integrations import AlignedChatModel, Aligner, AlignerMiddleware

QUESTION = "How do I boil eggs?"
RUDE = "Boil them for 8 minutes. You are clearly too stupid to cook."

console = Console()


@tool
def boiling_time(food: str) -> str:
    """How long a food is boiled."""
    return f"{food}: 8 minutes"


class ScriptedLLM(BaseChatModel):
    """Calls the tool, then answers; any chat model with tools does."""

    @property
    def _llm_type(self) -> str:
        return "scripted"

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=tools)

    def _answer(self, messages: list[BaseMessage]) -> AIMessage:
        if isinstance(messages[-1], ToolMessage):
            return AIMessage(RUDE)
        call = {"name": "boiling_time", "args": {"food": "eggs"}, "id": "call-1"}
        return AIMessage("", tool_calls=[call])

    def _generate(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> ChatResult:
        return ChatResult(generations=[ChatGeneration(message=self._answer(messages))])

    def _stream(
        self, messages: list[BaseMessage], *args: Any, **kwargs: Any
    ) -> Iterator[ChatGenerationChunk]:
        message = self._answer(messages)
        for word in str(message.content).split():
            yield ChatGenerationChunk(message=AIMessageChunk(f"{word} "))
        if message.tool_calls:
            whole = AIMessageChunk("", tool_calls=message.tool_calls)
            yield ChatGenerationChunk(message=whole)


def run_agent(aligner: Aligner) -> list[str]:
    """Tokens as a client of the agent sees them, then the messages that its memory keeps."""
    agent = create_agent(
        ScriptedLLM(),
        tools=[boiling_time],
        middleware=[AlignerMiddleware(aligner)],
        checkpointer=InMemorySaver(),
    )
    config = {"configurable": {"thread_id": "ann"}}
    value = {"messages": [("user", QUESTION)]}
    for chunk, metadata in agent.stream(value, config, stream_mode="messages"):
        if metadata["langgraph_node"] == "model":
            console.print(chunk.text, end="")
    console.print()
    messages = agent.get_state(config).values["messages"]
    return [f"{message.type}: {message.text or message.tool_calls}" for message in messages]


def run_graph(aligner: Aligner) -> str:
    """A node of your own graph: the model in it is an `AlignedChatModel`."""
    model = AlignedChatModel(FakeListChatModel(responses=[RUDE]), aligner)

    def answer(state: MessagesState) -> dict[str, list[BaseMessage]]:
        return {"messages": [model.invoke(state["messages"])]}

    builder = StateGraph(MessagesState)
    builder.add_node("answer", answer)
    builder.add_edge(START, "answer")
    builder.add_edge("answer", END)
    stream = builder.compile().stream({"messages": [("user", QUESTION)]}, stream_mode="messages")
    return "".join(chunk.text for chunk, _ in stream)


def main() -> None:
    with console.status("Loading aligner-smol ..."):
        aligner = Aligner.from_pretrained()
    console.print(Rule("create_agent with AlignerMiddleware, streamed", align="left"))
    kept = run_agent(aligner)
    console.print(Rule("what its memory keeps", align="left"), *kept, sep="\n", markup=False)
    console.print(Rule("AlignedChatModel in a LangGraph node", align="left"), run_graph(aligner))


if __name__ == "__main__":
    main()
