"""What LlamaIndex's instrumentation, and the clients of an agent, are told about corrections."""

from __future__ import annotations

from typing import Any

from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.workflow import Event


class CorrectionStartEvent(BaseEvent):  # type: ignore[misc]
    """An answer is about to be corrected.

    Attributes:
        question: What was asked.
        component: The adapter's class name.
    """

    question: str
    component: str

    @classmethod
    def class_name(cls) -> str:
        """The event's name."""
        return "CorrectionStartEvent"


class CorrectionEndEvent(BaseEvent):  # type: ignore[misc]
    """An answer was corrected, skipped or replaced by a policy.

    It holds no text of the answer, so it may be shown to anybody who may see the question.

    Attributes:
        question: What was asked.
        component: The adapter's class name.
        record: What stands in metadata under ``"aligner"``; see `Correction.record`.
    """

    question: str
    component: str
    record: dict[str, Any]

    @classmethod
    def class_name(cls) -> str:
        """The event's name."""
        return "CorrectionEndEvent"


class AgentCorrection(Event):  # type: ignore[misc]
    """Among the events of an agent's run: its answer was corrected, skipped or replaced.

    Attributes:
        record: What stands in metadata under ``"aligner"``; see `Correction.record`.
        current_agent_name: The agent that answered.
    """

    record: dict[str, Any]
    current_agent_name: str
