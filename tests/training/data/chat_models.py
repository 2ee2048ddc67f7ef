"""Scripted chat models: the only fakes."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from pydantic import PrivateAttr


class Scripted(BaseChatModel):
    """Answers by a function of the last message; raises what it returns if that is an error."""

    says: Callable[[str], Any]
    model_name: str = "scripted"
    metadata_: dict[str, Any] = {}  # noqa: RUF012 - pydantic copies it
    seconds: float = 0.0
    _asked: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _running: int = PrivateAttr(default=0)
    _most: int = PrivateAttr(default=0)
    _lock: Any = PrivateAttr(default_factory=threading.Lock)

    @property
    def asked(self) -> list[list[BaseMessage]]:
        return self._asked

    @property
    def most_at_once(self) -> int:
        return self._most

    def _generate(self, messages: list[BaseMessage], *_: Any, **__: Any) -> ChatResult:
        with self._lock:
            self._asked.append(messages)
            self._running += 1
            self._most = max(self._most, self._running)
        time.sleep(self.seconds)
        with self._lock:
            self._running -= 1
        said = self.says(str(messages[-1].text))
        if isinstance(said, Exception):
            raise said
        message = AIMessage(said, response_metadata=dict(self.metadata_))
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def _llm_type(self) -> str:
        return "scripted"
