"""`Gateway`: what all requests share, and what each must pass before it is worked on."""

from __future__ import annotations

import asyncio
import hmac

from starlette.requests import Request

from aligner_integrations.aligner import Aligner
from aligner_integrations.server.admission import Admission
from aligner_integrations.server.errors import ApiError, shutting_down
from aligner_integrations.server.metrics import Metrics
from aligner_integrations.server.requests import read_limited
from aligner_integrations.server.settings import GatewaySettings
from aligner_integrations.server.upstream import Upstream
from aligner_integrations.step import CorrectionStep


class Gateway:
    """One upstream and one aligner.

    Args:
        settings: Where to forward to, who may ask, how much.
        step: How to correct.
    """

    def __init__(self, settings: GatewaySettings, step: CorrectionStep) -> None:
        self.settings = settings
        self.step = step
        self.upstream = Upstream(settings)
        self.admission = Admission(settings.max_concurrent, settings.max_waiting)
        self.metrics = Metrics(self.admission)
        self.ending = asyncio.Event()  # from now on what still runs is cut off
        self._loading: asyncio.Task[Aligner] | None = None

    def start_loading(self) -> asyncio.Task[Aligner]:
        """Load the aligner once, in the background."""
        if self._loading is None:
            self._loading = asyncio.create_task(self.step.aload())
        return self._loading

    @property
    def failure(self) -> BaseException | None:
        """Why the aligner could not be loaded."""
        loading = self._loading
        if loading is None or not loading.done() or loading.cancelled():
            return None
        return loading.exception()

    def check_ready(self) -> Aligner:
        """The aligner, loaded.

        Raises:
            ApiError: 503 while it loads, where it can't be, and at the end.
        """
        if self.admission.closed:
            raise shutting_down()
        loading = self.start_loading()
        if self.failure is not None:
            raise ApiError(503, "the aligner could not be loaded", code="aligner_failed")
        if not loading.done():
            raise ApiError(
                503, "the aligner is still loading; try again", code="aligner_loading", retry=True
            )
        return loading.result()

    async def aclose(self) -> None:
        """Close the connections to the upstream."""
        if self._loading is not None:
            await asyncio.wait({self._loading})
        await self.upstream.aclose()

    def check_client(self, request: Request) -> None:
        """Raise the `ApiError` for a request under another host name, or without a key of ours."""
        self._check_host(request)
        if not self.settings.api_keys:
            return
        scheme, _, key = request.headers.get("authorization", "").partition(" ")
        given = key.strip().encode("utf-8", "replace")
        # All are compared, so that the time says nothing about which one is nearly right.
        fits = [hmac.compare_digest(given, own.encode()) for own in self.settings.api_keys]
        if scheme.lower() != "bearer" or not any(fits):
            raise ApiError(
                401,
                "the API key is missing or wrong; send 'Authorization: Bearer KEY' with a key of "
                "this gateway",
                code="invalid_api_key",
            )

    def _check_host(self, request: Request) -> None:
        allowed = self.settings.allowed_hosts
        given = request.headers.get("host", "")
        name, colon, port = given.rpartition(":")
        host = name if colon and port.isdecimal() else given
        if allowed and host.strip("[]").lower() not in allowed:
            raise ApiError(
                403,
                f"the gateway is not served as {given!r:.200}; ask for it as {allowed[0]}, or "
                "start it with --allowed-host",
                code="host_not_allowed",
            )

    async def read(self, request: Request) -> bytes:
        """Everything that comes before the work: key, readiness, body.

        Raises:
            ApiError: One of them is not as it must be.
        """
        self.check_client(request)
        self.check_ready()
        return await read_limited(request, self.settings.max_body)
