"""ASGI middleware around all routes: errors, figures, one line in the log for each request."""

from __future__ import annotations

import logging
import time

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aligner_integrations.server.disconnect import CLIENT_GONE
from aligner_integrations.server.errors import to_api_error
from aligner_integrations.server.metrics import Metrics

logger = logging.getLogger(__name__)
_NO_SNIFFING = (b"x-content-type-options", b"nosniff")  # JSON is never read as a page


class Observe:
    """Counts requests by route and status.

    Paths are logged and counted by their route and without their query, which might hold a secret.

    Args:
        app: The application.
        metrics: Where to count.
        routes: The paths that are counted by name; others are "other".
    """

    def __init__(self, app: ASGIApp, metrics: Metrics, routes: frozenset[str]) -> None:
        self._app = app
        self._metrics = metrics
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        status, started = CLIENT_GONE, time.perf_counter()

        async def note_status(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], _NO_SNIFFING]
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        except Exception as error:
            told = to_api_error(error)  # which logs it without its message
            self._metrics.note_failure(told)
            if status == CLIENT_GONE:
                await told.response()(scope, receive, note_status)
        finally:
            path = getattr(scope.get("route"), "path", "")
            route = path if path in self._routes else "other"
            seconds = time.perf_counter() - started
            self._metrics.requests.labels(route, str(status)).inc()
            self._metrics.request_seconds.labels(route).observe(seconds)
            logger.info("%s %s %s %.3f s", scope["method"], route, status, seconds)
