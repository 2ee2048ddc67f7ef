"""Work that ends when nobody waits for it any longer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

CLIENT_GONE = 499
"""The status, nginx's, under which a request whose client went away is counted."""


async def until_gone(request: Request, work: Coroutine[Any, Any, Response]) -> Response:
    """The response that some work makes; the work is cancelled if the client goes away first.

    The request's body must have been read.
    """
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_wait_until_gone(request))
    try:
        await asyncio.wait({working, gone}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        return Response(status_code=CLIENT_GONE)
    finally:
        gone.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working})


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
