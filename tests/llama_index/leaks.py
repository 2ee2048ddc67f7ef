"""Looks for what a client must not see, in everything that hangs on an object."""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import BaseModel, Field
from llama_index.core.instrumentation.event_handlers import BaseEventHandler
from llama_index.core.instrumentation.events import BaseEvent


def find_leaks(value: Any, canaries: tuple[str, ...] = ("stupid", "idiot")) -> list[str]:
    """Paths at which a canary stands, below dicts, sequences, attributes and queues."""
    leaks: list[str] = []
    seen: set[int] = set()

    def walk(item: Any, path: str) -> None:
        if isinstance(item, bytes):
            item = item.decode("utf-8", "replace")
        if isinstance(item, str):
            leaks.extend(f"{path}: {item!r}" for canary in canaries if canary in item.lower())
            return
        if id(item) in seen or isinstance(item, type | int | float | bool | None.__class__):
            return
        seen.add(id(item))
        if isinstance(item, dict):
            for key, inner in item.items():
                walk(key, f"{path}.key")
                walk(inner, f"{path}[{key!r:.30}]")
        elif isinstance(item, list | tuple | set | frozenset) or hasattr(item, "popleft"):
            for number, inner in enumerate(item):
                walk(inner, f"{path}[{number}]")
        else:
            for name, inner in vars(item).items() if hasattr(item, "__dict__") else ():
                walk(inner, f"{path}.{name}")
            if isinstance(item, BaseModel):
                walk(item.__pydantic_private__, f"{path}.private")
            if not isinstance(item, BaseModel) and hasattr(item, "queue"):
                walk(item.queue, f"{path}.queue")

    walk(value, type(value).__name__)
    return leaks


class EventLog(BaseEventHandler):
    """All events of LlamaIndex's instrumentation."""

    events: list[Any] = Field(default_factory=list)

    @classmethod
    def class_name(cls) -> str:
        return "EventLog"

    def handle(self, event: BaseEvent, **kwargs: Any) -> None:
        self.events.append(event)

    def of_corrections(self) -> list[Any]:
        return [event for event in self.events if event.class_name().startswith("Correction")]
