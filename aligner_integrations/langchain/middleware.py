"""`AlignerMiddleware`: an agent whose final answers have been corrected."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

from aligner_integrations.imports import require

require("langchain", "agents")

from langchain.agents.middleware import (  # noqa: E402
    AgentMiddleware,
    ModelRequest,
    ModelResponse,
)
from langchain_core.messages import AIMessage, BaseMessage, SystemMessage  # noqa: E402
from typing_extensions import Unpack  # noqa: E402

from aligner_integrations.aligner import Aligner  # noqa: E402
from aligner_integrations.conversation import History  # noqa: E402
from aligner_integrations.langchain.answers import Answer  # noqa: E402
from aligner_integrations.langchain.chat_model import AlignedChatModel  # noqa: E402
from aligner_integrations.langchain.fields import StepFields  # noqa: E402
from aligner_integrations.langchain.tags import find_tags  # noqa: E402
from aligner_integrations.step import RECORD_KEY, StepArguments  # noqa: E402


class AlignerMiddleware(AgentMiddleware[Any, Any]):
    """Corrects the final answers of an agent made by ``langchain.agents.create_agent``.

    The agent's model is wrapped in an `AlignedChatModel` for each call, so streams, events, traces
    and state hold corrected text only, under the message's own id. Turns that call tools and
    structured output (ToolStrategy and ProviderStrategy) are left alone.

    Put it last in ``middleware=[...]``. A middleware behind it that calls another model, such as
    ``ModelFallbackMiddleware``, takes the wrapped one away: its answers are still corrected before
    they reach the state, but not before they are streamed.

    Args:
        aligner: A loaded aligner; by default one is loaded on first use.
        question: The question: a str, or a function of the messages that the model was asked; by
            default as ``history`` says.
        history: Which turns the question holds: the user's ``"last"``, ``"all"``, or those that a
            function picks from the messages.
        **step: What every adapter takes; see `CorrectionStep`.

    Raises:
        ConfigurationError: An argument has a value that cannot work.

    Example:
        >>> from langchain.agents import create_agent
        >>> from langchain_core.language_models import FakeListChatModel
        >>> from aligner_integrations import AlignerMiddleware
        >>> llm = FakeListChatModel(responses=["Boil them for 8 minutes. You are an idiot."])
        >>> agent = create_agent(llm, middleware=[AlignerMiddleware()])
        >>> state = agent.invoke({"messages": [("user", "How do I boil eggs?")]})
        >>> state["messages"][-1].text
        'Boil them for 8 minutes.'
    """

    def __init__(
        self,
        aligner: Aligner | None = None,
        *,
        question: str | Callable[[list[BaseMessage]], str] | None = None,
        history: History = "last",
        **step: Unpack[StepArguments],
    ) -> None:
        super().__init__()
        self._fields = StepFields(aligner=aligner, question=question, history=history, **step)

    def wrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], ModelResponse[Any]],
    ) -> ModelResponse[Any]:
        """Let the model's answer be corrected before anyone sees it."""
        response = handler(self._wrap(request))
        for index, answer in _find_raw(response):
            question = self._fields.read_question(_messages(request))
            tags = find_tags(self._fields.correct_when, is_async=False)
            correction = self._fields.step.correct(question, answer.text, tags)
            response = _replace(response, index, answer.replace(correction))
        return response

    async def awrap_model_call(
        self,
        request: ModelRequest[Any],
        handler: Callable[[ModelRequest[Any]], Awaitable[ModelResponse[Any]]],
    ) -> ModelResponse[Any]:
        """`wrap_model_call`, without blocking the event loop."""
        response = await handler(self._wrap(request))
        for index, answer in _find_raw(response):
            await self._fields.step.aload()
            question = self._fields.read_question(_messages(request))
            tags = find_tags(self._fields.correct_when, is_async=True)
            correction = await self._fields.step.acorrect(question, answer.text, tags)
            response = _replace(response, index, answer.replace(correction))
        return response

    def _wrap(self, request: ModelRequest[Any]) -> ModelRequest[Any]:
        if isinstance(request.model, AlignedChatModel):
            return request
        fields = {key: getattr(self._fields, key) for key in StepFields.model_fields}
        return request.override(model=AlignedChatModel(request.model, **fields))


def _messages(request: ModelRequest[Any]) -> list[BaseMessage]:
    """What the model is asked, as an `AlignedChatModel` sees it."""
    system = getattr(request, "system_message", None)
    if system is None and request.system_prompt:  # LangChain 1.0 has the text alone
        system = SystemMessage(request.system_prompt)
    return [*([] if system is None else [system]), *request.messages]


def _find_raw(response: ModelResponse[Any]) -> list[tuple[int, Answer]]:
    """Answers that did not come from our model, each with its place in the response."""
    if response.structured_response is not None:
        return []
    return [
        (index, answer)
        for index, message in enumerate(response.result)
        if isinstance(message, AIMessage)
        and RECORD_KEY not in message.response_metadata
        and not (answer := Answer(message)).skipped
    ]


def _replace(response: ModelResponse[Any], index: int, message: AIMessage) -> ModelResponse[Any]:
    result = [*response.result]
    result[index] = message
    return replace(response, result=result)
