"""Names for objects that have none, so that a cache never takes one for another."""

from __future__ import annotations

import threading
import weakref
from typing import Any
from uuid import uuid4

_lock = threading.RLock()  # the garbage collector may call `_forget` while it is held
_names: dict[int, str] = {}
_kept: list[Any] = []


def name_object(value: Any) -> str:
    """A name that this object has as long as it lives, and no other object ever has.

    By identity: LangChain's runnables can't be hashed.
    """
    with _lock:
        if id(value) not in _names:
            _names[id(value)] = f"{type(value).__name__}-{uuid4()}"
            try:
                weakref.finalize(value, _forget, id(value)).atexit = False
            except TypeError:  # it can't be watched, so it must not go: its id could come again
                _kept.append(value)
        return _names[id(value)]


def _forget(key: int) -> None:
    with _lock:
        _names.pop(key, None)
