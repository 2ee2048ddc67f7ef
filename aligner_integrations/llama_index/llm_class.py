"""Classes of LLMs by name: which one an `AlignedLLM` wrapped when it was written down."""

from __future__ import annotations

from typing import Any

from llama_index.core.llms.llm import LLM

from aligner_integrations.errors import ConfigurationError


def name_class(cls: type) -> str:
    """The name under which `find_class` finds a class."""
    return f"{cls.__module__}.{cls.__qualname__}"


def find_class(name: str) -> Any:
    """A class of LLMs that was imported; data must not decide what code is imported.

    Raises:
        ConfigurationError: It was not.
    """
    waiting = [LLM]
    while waiting:
        cls = waiting.pop()
        if name_class(cls) == name:
            return cls
        waiting += cls.__subclasses__()
    raise ConfigurationError(
        f"llm_class={name!r} is no LLM that has been imported; import its module before from_dict"
    )
