"""What LlamaIndex's instrumentation is told about corrections."""

from __future__ import annotations

from typing import Any

from llama_index.core.instrumentation.events import BaseEvent


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
