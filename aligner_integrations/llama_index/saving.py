"""`SavedLLM`: an `AlignedLLM` as plain data, the LLM that it wraps included."""

from __future__ import annotations

from typing import Any

from llama_index.core.llms.llm import LLM
from typing_extensions import Self

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.llama_index.component import AligningComponent
from aligner_integrations.step import StepArguments


class SavedLLM(AligningComponent):
    """What writes an `AlignedLLM` down and makes it anew."""

    llm: LLM

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Plain data, the wrapped LLM's included; `from_dict` reads it.

        Raises:
            ConfigurationError: The aligner was not made by `Aligner.from_pretrained`, or gate,
                ``history`` or ``question`` is a function.
        """
        for name in ("history", "question"):
            if callable(value := getattr(self, name)):
                raise ConfigurationError(
                    f"{name}={value!r} is a function, so this AlignedLLM can't be written down"
                )
        data = super().to_dict(**kwargs)
        return {**data, "llm": self.llm.to_dict(), "llm_class": _name_class(type(self.llm))}

    @classmethod
    def from_dict(cls, data: dict[str, Any], **kwargs: Any) -> Self:
        """The LLM that `to_dict` wrote down.

        Raises:
            ConfigurationError: The wrapped LLM's class has not been imported.
        """
        data = {**data, **kwargs}
        llm = data["llm"]
        if not isinstance(llm, LLM):
            llm = _find_class(data["llm_class"]).from_dict(llm)
        return cls(**{**_pick_arguments(data), "llm": llm})

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**_pick_arguments(state["__dict__"]))  # type: ignore[misc]


def _pick_arguments(fields: dict[str, Any]) -> dict[str, Any]:
    names = ("llm", "history", "question", *StepArguments.__annotations__)
    return {name: fields[name] for name in names if name in fields}


def _name_class(cls: type) -> str:
    return f"{cls.__module__}.{cls.__qualname__}"


def _find_class(name: str) -> Any:
    """A class of LLMs that was imported; data must not decide what code is imported."""
    waiting = [LLM]
    while waiting:
        cls = waiting.pop()
        if _name_class(cls) == name:
            return cls
        waiting += cls.__subclasses__()
    raise ConfigurationError(
        f"llm_class={name!r} is no LLM that has been imported; import its module before from_dict"
    )
