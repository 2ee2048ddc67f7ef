"""`AlignerFunctionAgent`: a function-calling agent whose answers are corrected."""

from __future__ import annotations

from collections.abc import Sequence
from contextvars import ContextVar
from typing import Any

from llama_index.core.agent.workflow import AgentOutput, FunctionAgent
from llama_index.core.agent.workflow.agent_context import AgentContext
from llama_index.core.base.llms.types import ChatMessage, ChatResponse
from llama_index.core.llms.llm import LLM
from llama_index.core.memory import BaseMemory
from llama_index.core.settings import Settings
from llama_index.core.tools import AsyncBaseTool

from aligner_integrations.aligner import Aligner
from aligner_integrations.conversation import History
from aligner_integrations.errors import ConfigurationError, InputTypeError
from aligner_integrations.llama_index.events import AgentCorrection
from aligner_integrations.llama_index.llm import AlignedLLM
from aligner_integrations.llama_index.questions import user_message
from aligner_integrations.step import RECORD_KEY, StepArguments

_records: ContextVar[list[dict[str, Any]]] = ContextVar("aligner_agent_records")


class AlignerFunctionAgent(FunctionAgent):  # type: ignore[misc]
    """A `FunctionAgent` whose final answers were read and corrected by an aligner.

    Its LLM is an `AlignedLLM`, so that the answer is corrected before anything sees it: the result,
    the memory, and every event of ``handler.stream_events()``, among which an `AgentCorrection`
    brings the record of the correction. Steps that call tools and handoffs to other agents pass
    as they are, and so does the output of a tool that returns directly: it is the tool's word.
    Structured output is made from the corrected conversation.

    It stands alone or among the agents of an `AgentWorkflow`. The question is what the user said,
    without the state that an agent adds to it.

    Args:
        llm: The LLM; by default LlamaIndex's ``Settings.llm``.
        aligner: The aligner; by default one is loaded at the first answer.
        history: Which turns of the conversation the question holds; see `AlignedLLM`.
        **arguments: Those of `CorrectionStep` and `FunctionAgent`.

    Raises:
        ConfigurationError: An argument has a value that cannot work, or ``llm`` is an `AlignedLLM`
            and there are further arguments for correcting.

    Example::

        agent = AlignerFunctionAgent(llm=llm, tools=[search], on_error="refuse")
        print(await agent.run(user_msg="How do I boil eggs?"))
    """

    def __init__(
        self,
        *,
        llm: LLM | None = None,
        aligner: Aligner | None = None,
        history: History = "last",
        **arguments: Any,
    ) -> None:
        names = StepArguments.__annotations__
        step: Any = {name: arguments.pop(name) for name in names if name in arguments}
        chosen = llm or Settings.llm
        if not isinstance(chosen, AlignedLLM):
            chosen = AlignedLLM(chosen, aligner, history=history, **step)
        elif aligner is not None or step or history != "last":
            raise ConfigurationError(
                "llm is an AlignedLLM, which corrects already, and there are further arguments for "
                "correcting; give them to the AlignedLLM, or pass its .llm"
            )
        super().__init__(llm=chosen, **arguments)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "llm" and not isinstance(value, AlignedLLM):  # its answers would be raw
            raise InputTypeError(
                f"llm must stay an AlignedLLM; wrap the {type(value).__name__} in one, or set "
                "agent.llm.llm"
            )
        super().__setattr__(name, value)

    @classmethod
    def class_name(cls) -> str:
        """The name of this kind of agent."""
        return "AlignerFunctionAgent"

    async def take_step(
        self,
        ctx: AgentContext,
        llm_input: list[ChatMessage],
        tools: Sequence[AsyncBaseTool],
        memory: BaseMemory,
    ) -> AgentOutput:
        """A tool call as it is, or an answer, corrected."""
        said = await ctx.store.get("user_msg_str", default=None)
        records: list[dict[str, Any]] = []
        # Each step is a task of its own, so what is set here doesn't mix with other runs.
        tokens = user_message.set(said), _records.set(records)
        try:
            output: AgentOutput = await super().take_step(ctx, llm_input, tools, memory)
        finally:
            user_message.reset(tokens[0])
            _records.reset(tokens[1])
        for record in records:
            ctx.write_event_to_stream(AgentCorrection(record=record, current_agent_name=self.name))
        return output

    async def _get_response(self, *args: Any, **kwargs: Any) -> ChatResponse:
        return _note(await super()._get_response(*args, **kwargs))

    async def _get_streaming_response(self, *args: Any, **kwargs: Any) -> ChatResponse:
        return _note(await super()._get_streaming_response(*args, **kwargs))


def _note(response: ChatResponse) -> ChatResponse:
    """Keep the record, for which the agent's own output has no place."""
    if record := response.additional_kwargs.get(RECORD_KEY):
        _records.get().append(record)
    return response
