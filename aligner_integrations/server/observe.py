"""ASGI middleware around all routes: ids, errors, figures, one line in the log for each request."""

from __future__ import annotations

import logging
import time

from starlette.datastructures import MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from aligner_integrations.server.disconnect import CLIENT_GONE
from aligner_integrations.server.errors import to_api_error
from aligner_integrations.server.metrics import Metrics
from aligner_integrations.server.records import ID_HEADER, Record, follow
from aligner_integrations.telemetry.watch import LISTENER

logger = logging.getLogger(__name__)


class Observe:
    """Follows each request to its end.

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
        listening = LISTENER.set(self._metrics.note)
        try:
            with follow(scope) as record:
                await self._follow(record, scope, receive, send)
        finally:
            LISTENER.reset(listening)

    async def _follow(self, record: Record, scope: Scope, receive: Receive, send: Send) -> None:
        record.status, started = CLIENT_GONE, time.perf_counter()

        async def note_status(message: Message) -> None:
            if message["type"] == "http.response.start":
                record.status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-content-type-options"] = "nosniff"  # JSON is never read as a page
                headers[ID_HEADER] = record.id
            await send(message)

        try:
            await self._app(scope, receive, note_status)
        except ClientDisconnect:
            pass  # before its request had come; the status says so already
        except Exception as error:
            told = to_api_error(error)  # which logs it without its message
            self._metrics.note_failure(told)
            if record.status == CLIENT_GONE:
                await told.response()(scope, receive, note_status)
        finally:
            path = getattr(scope.get("route"), "path", "")
            record.route = path if path in self._routes else "other"
            record.seconds = time.perf_counter() - started
            self._metrics.note_request(record)
            record.end()
            logger.info(
                "%s %s %s %.3f s %s",
                record.method,
                record.route,
                record.status,
                record.seconds,
                record.describe(),
                extra={"fields": record.fields()},
            )
