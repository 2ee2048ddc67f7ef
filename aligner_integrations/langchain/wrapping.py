"""What an `AlignedChatModel` takes over from the model that it wraps: all but the answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from hashlib import sha256
from typing import Any

from langchain_core.language_models import BaseChatModel, LanguageModelInput
from langchain_core.language_models.base import LangSmithParams
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.runnables import Runnable, RunnableBinding
from langchain_core.runnables.config import ensure_config
from pydantic import SkipValidation

from aligner_integrations.aligner import Aligner
from aligner_integrations.errors import InputTypeError
from aligner_integrations.langchain.fields import StepFields
from aligner_integrations.langchain.identity import name_object

TAGS = "aligner_tags"
"""Carries a call's tags to where they are needed; only where a gate asks for them."""

_NAMES = ("model_name", "model", "model_id")
_PLACES = ("__", "checkpoint", "thread_id", "run_id")


class WrappingModel(StepFields, BaseChatModel):
    """Fields of an `AlignedChatModel`, and what is the wrapped model's own."""

    llm: SkipValidation[Runnable[LanguageModelInput, AIMessage]]
    stop: list[str] | None = None
    temperature: float | None = None
    max_tokens: int | None = None
    streaming: bool = False

    def bind_tools(
        self, tools: Sequence[Any], **kwargs: Any
    ) -> Runnable[LanguageModelInput, AIMessage]:
        """The same model with tools, in the wrapped model's own way."""
        bound = self._method("bind_tools")(tools, **kwargs)
        if isinstance(bound, RunnableBinding) and bound.bound is self.llm and not bound.config:
            return self.bind(**bound.kwargs)
        return self.model_copy(update={"llm": bound})

    def with_structured_output(self, schema: Any, **kwargs: Any) -> Runnable[Any, Any]:
        """The wrapped model's structured output, which is not corrected."""
        structured: Runnable[Any, Any] = self._method("with_structured_output")(schema, **kwargs)
        return structured

    def _settings(self, stop: list[str] | None, kwargs: dict[str, Any]) -> dict[str, Any]:
        """A call's arguments to the wrapped model, with our own where it names none.

        What nobody set is left out: functions and parallel runnables take no ``stop``.
        """
        own = {"temperature": self.temperature, "max_tokens": self.max_tokens}
        settings = {"stop": stop or self.stop, **own}
        return {**{key: value for key, value in settings.items() if value is not None}, **kwargs}

    def _combine_llm_outputs(self, llm_outputs: list[dict[str, Any] | None]) -> dict[str, Any]:
        """The wrapped model's."""
        if isinstance(self.llm, BaseChatModel):
            return self.llm._combine_llm_outputs(llm_outputs)
        return super()._combine_llm_outputs(llm_outputs)

    @property
    def _llm_type(self) -> str:
        return f"aligned-{getattr(self.llm, '_llm_type', type(self.llm).__name__)}"

    @property
    def _identifying_params(self) -> dict[str, Any]:
        return {
            "llm": getattr(self.llm, "_identifying_params", None) or repr(self.llm),
            "aligner": self.aligner.name if self.aligner else self.model or "aligner-smol",
        }

    @property
    def model_name(self) -> str | None:
        """The wrapped model's name, by which LangChain knows what it can do."""
        name = next(
            (name for key in _NAMES if isinstance(name := getattr(self.llm, key, None), str)), None
        )
        return name or None

    def _get_ls_params(self, stop: list[str] | None = None, **kwargs: Any) -> LangSmithParams:
        kwargs.pop(TAGS, None)
        kwargs = self._settings(stop, kwargs)
        if not isinstance(self.llm, BaseChatModel):
            params = super()._get_ls_params(**kwargs)
            params["ls_model_name"] = self.model_name or type(self.llm).__name__
            return params
        params = self.llm._get_ls_params(**kwargs)
        params.setdefault("ls_model_name", self.model_name or self.llm._llm_type)
        return params

    def _get_llm_string(self, stop: list[str] | None = None, **kwargs: Any) -> str:
        """The key of caches: the wrapped model's, with all that decides about the correction."""
        kwargs = self._settings(stop, kwargs)
        if isinstance(self.llm, BaseChatModel):
            inner = self.llm._get_llm_string(**kwargs)
        else:
            inner = f"{name_object(self.llm)} {sorted(kwargs.items())}{_configured()}"
        own = {key: self._identify(getattr(self, key)) for key in StepFields.model_fields}
        # By repr what JSON does not know, such as a torch dtype among the load options.
        return f"{inner}---{json.dumps(own, sort_keys=True, default=repr)}"

    def _identify(self, value: Any) -> Any:
        if isinstance(value, Aligner):
            return value.source or name_object(value)
        if hasattr(value, "to_dict"):
            return value.to_dict()
        return name_object(value) if callable(value) else value

    def get_token_ids(self, text: str) -> list[int]:
        """The wrapped model's."""
        return list(self._method("get_token_ids")(text))

    def get_num_tokens(self, text: str) -> int:
        """The wrapped model's."""
        return int(self._method("get_num_tokens")(text))

    def get_num_tokens_from_messages(
        self, messages: list[BaseMessage], tools: Sequence[Any] | None = None
    ) -> int:
        """The wrapped model's."""
        return int(self._method("get_num_tokens_from_messages")(messages, tools))

    def _method(self, name: str) -> Callable[..., Any]:
        method = getattr(self.llm, name, None)
        if method is None:
            raise InputTypeError(
                f"llm={self.llm!r:.80} has no {name}; do that to the chat model itself, before it "
                "is made part of a runnable: AlignedChatModel(prompt | model.bind_tools(...))"
            )
        return method  # type: ignore[no-any-return]


def _configured() -> str:
    """A key for what the call's config configures; hashed, because secrets may be among it."""
    values = ensure_config().get("configurable", {})
    chosen = [(key, values[key]) for key in sorted(values) if not key.startswith(_PLACES)]
    return f" {sha256(repr(chosen).encode()).hexdigest()}" if chosen else ""
