"""Work that ends when nobody waits for it any longer."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from aligner_integrations.server.errors import shutting_down

CLIENT_GONE = 499
"""The status, nginx's, under which a request whose client went away is counted."""


async def until_gone(
    request: Request, work: Coroutine[Any, Any, Response], ending: asyncio.Event
) -> Response:
    """The response that some work makes; the work is cancelled if the client goes away first.

    The request's body must have been read.

    Raises:
        ApiError: The gateway ends, and the work is cut off.
    """
    working = asyncio.create_task(work)
    gone = asyncio.create_task(_wait_until_gone(request))
    cut = asyncio.create_task(ending.wait())
    try:
        await asyncio.wait({working, gone, cut}, return_when=asyncio.FIRST_COMPLETED)
        if working.done():
            return working.result()
        if gone.done():
            return Response(status_code=CLIENT_GONE)
        raise shutting_down()
    finally:
        gone.cancel()
        cut.cancel()
        if not working.done():
            working.cancel()
            await asyncio.wait({working})


async def _wait_until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass
