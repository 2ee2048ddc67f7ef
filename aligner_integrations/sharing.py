"""One loaded aligner per model and process, however many chains use it."""

from __future__ import annotations

import json
import threading
from typing import Any

from aligner_integrations.aligner import DEFAULT_MODEL, Aligner

_lock = threading.Lock()
_loading: dict[str, threading.Lock] = {}
_loaded: dict[str, Aligner] = {}


def load_shared(source: dict[str, Any] | None = None) -> Aligner:
    """`Aligner.from_pretrained(**source)`, loaded once for equal arguments.

    Adapters and unpickled aligners get theirs here, so a process holds one copy of the weights.

    Args:
        source: Arguments of `Aligner.from_pretrained`; none for the bundled model.
    """
    arguments = {"model": DEFAULT_MODEL, **(source or {})}
    key = json.dumps(arguments, sort_keys=True)
    with _lock:
        if key in _loaded:
            return _loaded[key]
        loading = _loading.setdefault(key, threading.Lock())
    with loading:
        if key not in _loaded:
            _loaded[key] = Aligner.from_pretrained(**arguments)
        return _loaded[key]
