"""One loaded aligner per model and process, however many chains use it."""

from __future__ import annotations

import inspect
import json
import threading
from collections.abc import Callable, Mapping
from typing import Any

from aligner_integrations.aligner import Aligner
from aligner_integrations.options import GenerationOptions
from aligner_integrations.prompts import PromptFormat

_lock = threading.Lock()
_loading: dict[str, threading.Lock] = {}
_loaded: dict[str, Aligner] = {}


def load_shared(source: dict[str, Any] | None = None) -> Aligner:
    """`Aligner.from_pretrained(**source)`, or `from_server`, loaded once for equal arguments.

    Adapters and unpickled aligners get theirs here, so a process holds one copy of the weights.

    Args:
        source: Arguments of `Aligner.from_pretrained`, or, with ``server`` among them, of
            `Aligner.from_server`; none for the bundled model.
    """
    arguments = source or {}
    key = _describe(arguments)
    with _lock:
        if key in _loaded:
            return _loaded[key]
        loading = _loading.setdefault(key, threading.Lock())
    with loading:
        if key not in _loaded:
            _loaded[key] = find_loader(arguments)(**arguments)
        return _loaded[key]


def find_loader(arguments: Mapping[str, Any]) -> Callable[..., Aligner]:
    """The constructor that takes these arguments."""
    return Aligner.from_server if "server" in arguments else Aligner.from_pretrained


def fill_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments with the defaults filled in: what was left out equals what was spelled out.

    Raises:
        TypeError: The constructor takes no such arguments.
    """
    bound = inspect.signature(find_loader(arguments)).bind(**arguments)
    bound.apply_defaults()
    filled = bound.arguments
    if isinstance(filled["prompt"], PromptFormat):
        filled["prompt"] = filled["prompt"].to_dict()
    return filled


def _describe(arguments: dict[str, Any]) -> str:
    filled = fill_arguments(arguments)
    filled["options"] = GenerationOptions.coerce(filled["options"]).to_dict()
    return json.dumps(filled, sort_keys=True)
