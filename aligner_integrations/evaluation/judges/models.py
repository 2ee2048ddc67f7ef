"""Describing chat models, so that a judgement that is cached is never another model's."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from aligner_integrations.training.data.asking import name_model

_PARAMETERS = (
    "temperature",
    "top_p",
    "top_k",
    "seed",
    "max_tokens",
    "max_completion_tokens",
    "num_predict",
    "reasoning_effort",
    "thinking",
)
_SECRET = re.compile(r"api_?key|secret|password|headers|auth", re.IGNORECASE)


def describe_model(llm: Any) -> dict[str, Any]:
    """A LangChain chat model as plain data: its name and the parameters its replies depend on."""
    bound: dict[str, Any] = {}
    inner = llm
    while hasattr(inner, "bound"):  # the outermost binding wins
        arguments = getattr(inner, "kwargs", None)
        bound = {**(arguments if isinstance(arguments, Mapping) else {}), **bound}
        inner = inner.bound
    values = {name: getattr(inner, name, None) for name in _PARAMETERS}
    values |= {key: value for key, value in bound.items() if not _SECRET.search(key)}
    return {
        "class": type(inner).__name__,
        "name": name_model(llm),
        **{key: value for key, value in values.items() if value is not None and _is_plain(value)},
    }


def _is_plain(value: Any) -> bool:
    try:
        json.dumps(value)
    except (TypeError, ValueError):
        return False
    return True
