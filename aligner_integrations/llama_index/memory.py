"""`HeldMemory`: a chat engine's memory that keeps answers back until they are corrected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llama_index.core.base.llms.types import ChatMessage, MessageRole
from llama_index.core.memory import BaseMemory

from aligner_integrations.correction import Correction
from aligner_integrations.llama_index.messages import drop_text, has_tool_calls, set_text


class HeldMemory:
    """Reads and writes another memory, except that what an LLM said is not written at once.

    For one turn: a chat engine writes the user's message and then the answer, some of them in a
    thread or task that goes on by itself. The answer is held here, and `release` writes it
    corrected. What is not released was never in the other memory.

    Args:
        memory: The memory in which only corrected answers may stand.
    """

    def __init__(self, memory: BaseMemory) -> None:
        self._memory = memory
        self._held: list[ChatMessage] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._memory, name)

    def put(self, message: ChatMessage) -> None:
        """Write what the user says; hold what an LLM says and what comes after it."""
        if not self._hold(message):
            self._memory.put(message)

    async def aput(self, message: ChatMessage) -> None:
        """See `put`."""
        if not self._hold(message):
            await self._memory.aput(message)

    def put_messages(self, messages: Sequence[ChatMessage]) -> None:
        """See `put`."""
        for message in messages:
            self.put(message)

    async def aput_messages(self, messages: Sequence[ChatMessage]) -> None:
        """See `put`."""
        for message in messages:
            await self.aput(message)

    def release(self, correction: Correction | None) -> None:
        """Write what was held, its answer corrected; None where there was nothing to correct."""
        for message in self._correct(correction):
            self._memory.put(message)

    async def arelease(self, correction: Correction | None) -> None:
        """See `release`."""
        for message in self._correct(correction):
            await self._memory.aput(message)

    def _hold(self, message: ChatMessage) -> bool:
        if not self._held and message.role in (MessageRole.USER, MessageRole.SYSTEM):
            return False
        self._held.append(message)
        return True

    def _correct(self, correction: Correction | None) -> list[ChatMessage]:
        held, self._held = self._held, []
        if correction is None:
            return held
        answers = [i for i, message in enumerate(held) if _is_answer(message)]
        if answers:
            message = set_text(held[answers[-1]], correction.text)
            message.additional_kwargs = drop_text(
                message.additional_kwargs, correction.answer.strip()
            )
            held[answers[-1]] = message
        return held


def _is_answer(message: ChatMessage) -> bool:
    return message.role not in (MessageRole.USER, MessageRole.TOOL) and not has_tool_calls(message)
