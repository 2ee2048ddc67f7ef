"""Running the gateway with uvicorn, and ending it without cutting anybody off."""

from __future__ import annotations

import logging
import socket
import time
from types import FrameType

import uvicorn
from fastapi import FastAPI

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.server.gateway import Gateway

logger = logging.getLogger(__name__)


class GracefulServer(uvicorn.Server):
    """A server that, told to stop, ends its requests first and meanwhile turns new ones down.

    On the first SIGTERM or SIGINT it goes on listening, so that ``/health`` and new requests get
    503 and a load balancer can turn to others, until nothing is worked on or the grace time is
    over; a second signal ends that at once. What still runs then ends in the error
    ``shutting_down``.

    Args:
        app: What `create_app` made.
        host: Address to listen on.
        port: Port; 0 for any free one.
        grace: Seconds that running requests have to end.
    """

    def __init__(self, app: FastAPI, host: str, port: int, grace: float) -> None:
        # The access log would hold query strings; the gateway logs requests itself.
        super().__init__(
            uvicorn.Config(
                app,
                host=host,
                port=port,
                access_log=False,
                log_config=None,
                timeout_graceful_shutdown=1,
            )
        )
        self._gateway: Gateway = app.state.gateway
        self._grace = grace
        self._stop_at: float | None = None

    def run(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve until a signal.

        Raises:
            ConfigurationError: The address can't be listened on.
            AlignerError: The aligner can't be loaded.
        """
        if sockets is None:
            sockets = [_listen(self.config.host, self.config.port)]
        host, port = sockets[0].getsockname()[:2]
        logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
        super().run(sockets)
        if self._gateway.failure is not None:
            raise self._gateway.failure

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """A signal has come."""
        if self._stop_at is not None:
            self.force_exit = self.should_exit
            self.should_exit = True
            return
        self._stop_at = time.monotonic() + self._grace
        self._gateway.admission.closed = True

    async def on_tick(self, counter: int) -> bool:
        """Ten times a second: whether it is time to stop."""
        drained = self._stop_at is not None and (
            self._gateway.admission.idle or time.monotonic() > self._stop_at
        )
        if drained or self._gateway.failure is not None:
            self.should_exit = True
        if self.should_exit:
            self._gateway.ending.set()
        return await super().on_tick(counter)


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise ConfigurationError(
            f"--host {host} --port {port} can't be listened on: {error}; choose another"
        ) from None
    return listener
