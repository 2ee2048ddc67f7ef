"""Names for objects that have none, so that a cache never takes one for another."""

from __future__ import annotations

import threading
from typing import Any
from uuid import uuid4
from weakref import WeakKeyDictionary

_lock = threading.Lock()
_names: WeakKeyDictionary[Any, str] = WeakKeyDictionary()


def name_object(value: Any) -> str:
    """A name that this object has as long as it lives, and no other object ever has."""
    with _lock:
        return _names.setdefault(value, f"{type(value).__name__}-{uuid4()}")
