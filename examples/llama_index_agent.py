"""An agent and a chat engine of LlamaIndex, whose users see corrected answers only.

The aligner is the bundled one, real and offline on a CPU. The upstream LLM is a script, because a
model that calls tools is too large for an example: it looks a dish up and is rude about it.

    pip install 'aligner-integrations[demo]'
    python examples/llama_index_agent.py
"""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from typing import Any

from llama_index.core.agent.workflow import AgentStream, ToolCallResult
from llama_index.core.base.llms.types import ChatMessage, TextBlock, ToolCallBlock
from llama_index.core.bridge.pydantic import Field
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.memory import ChatMemoryBuffer
from rich.console import Console
from rich.rule import Rule

from aligner_integrations import Aligner, AlignerChatEngine, AlignerFunctionAgent
from aligner_integrations.llama_index import CorrectionEndEvent

QUESTION = "How do I cook rice?"
RAW = "Cook it for 15 minutes. You are an idiot. Then let it rest."

console = Console()


def find_minutes(dish: str) -> str:
    """How long a dish takes."""
    return f"{dish}: 15 minutes"


def answer(messages: Sequence[ChatMessage], **kwargs: Any) -> ChatMessage:
    """What the upstream LLM says: first a tool call, if it has tools, then its answer."""
    if kwargs.get("tools") and messages[-1].role != "tool":
        call = ToolCallBlock(
            tool_call_id="1", tool_name="find_minutes", tool_kwargs={"dish": "rice"}
        )
        return ChatMessage(role="assistant", blocks=[call])
    return ChatMessage(role="assistant", blocks=[TextBlock(text=RAW)])


class Corrections(BaseEventHandler):
    """What an operator may log: every correction, without the text of an answer."""

    lines: list[str] = Field(default_factory=list)

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        if isinstance(event, CorrectionEndEvent):
            self.lines.append(
                f"{event.component} · {event.question} · similarity "
                f"{event.record['similarity']:.2f} · {event.record['seconds']:.1f} s"
            )


async def run_agent(llm: MockFunctionCallingLLM, aligner: Aligner) -> None:
    memory = ChatMemoryBuffer.from_defaults()
    agent = AlignerFunctionAgent(llm=llm, aligner=aligner, tools=[find_minutes])
    handler = agent.run(user_msg=QUESTION, memory=memory)
    async for event in handler.stream_events():
        if isinstance(event, ToolCallResult):
            console.print(f"[dim]{event.tool_name}({event.tool_kwargs}) = {event.tool_output}")
        if isinstance(event, AgentStream):
            console.print(event.delta, end="", markup=False, highlight=False)
    await handler
    console.print("\n[bold]the agent's memory")
    for message in memory.get_all():
        if message.content:
            console.print(f"{message.role.value}: {message.content}", markup=False)


def run_chat(llm: MockFunctionCallingLLM, aligner: Aligner) -> None:
    memory = ChatMemoryBuffer.from_defaults()
    engine = SimpleChatEngine.from_defaults(llm=llm, memory=memory)
    chat = AlignerChatEngine(engine, aligner, history="all", protect=["numbers"])
    for piece in chat.stream_chat(QUESTION).response_gen:
        console.print(piece, end="", markup=False, highlight=False)
    console.print("\n[bold]the chat history")
    for message in chat.chat_history:
        console.print(f"{message.role.value}: {message.content}", markup=False)


def main() -> None:
    warnings.filterwarnings("ignore")
    llm = MockFunctionCallingLLM(response_generator=answer, is_chat_model=True)
    with console.status("Loading the aligner ..."):
        aligner = Aligner.from_pretrained()
    log = Corrections()
    get_dispatcher().add_event_handler(log)

    console.print(f"[bold]{QUESTION}")
    console.print(f"What the LLM says: {RAW}", markup=False)
    console.print(Rule("AlignerFunctionAgent, as it streams", style="dim"))
    asyncio.run(run_agent(llm, aligner))
    console.print(Rule("AlignerChatEngine, as it streams", style="dim"))
    run_chat(llm, aligner)
    console.print(Rule("The operator's log", style="dim"))
    for line in log.lines:
        console.print(f"[dim]{line}")


if __name__ == "__main__":
    main()
