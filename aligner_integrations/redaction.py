"""Some servers repeat the key that they turn down; nobody else is to read it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import httpx


def hide_key(text: str, response: httpx.Response) -> str:
    """What a server says, without the key that it was asked with.

    Args:
        text: The whole of it, plain or JSON. Once it is cut, a part of a key may be left that can't
            be told any more.
        response: The response that says it.
    """
    _, _, key = response.request.headers.get("authorization", "").partition(" ")
    if not key:
        return text
    quoted = json.dumps(key)[1:-1]
    for spelling in (key, quoted, quoted.replace("/", "\\/")):
        text = text.replace(spelling, "***")
    return text
