"""`create_app`: the gateway as an ASGI application."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from typing import Any

from fastapi import FastAPI, Request
from starlette.exceptions import HTTPException
from starlette.responses import Response

from aligner_integrations import __version__
from aligner_integrations.errors import AlignerError
from aligner_integrations.server import chat, page
from aligner_integrations.server.errors import ApiError, json_response, to_api_error
from aligner_integrations.server.gateway import Gateway
from aligner_integrations.server.observe import Observe
from aligner_integrations.server.settings import GatewaySettings
from aligner_integrations.step import CorrectionStep

# Some versions of FastAPI tell OpenTelemetry of requests themselves: with their queries, and with
# the messages of errors. `Observe` tells less. Versions that don't take no notice of this.
_NO_TELEMETRY: Any = {"tracing": False, "metrics": False, "logs": False, "auto_configure": False}


def create_app(settings: GatewaySettings, step: CorrectionStep | None = None) -> FastAPI:
    """The gateway as an ASGI application, for any ASGI server, or to mount in another application.

    The aligner is loaded in the background from the start on, or from the first request on where
    the application is mounted. Until then requests get 503.

    Args:
        settings: Where to forward to, who may ask, how much.
        step: How to correct; by default with the bundled model.

    Returns:
        The application; ``app.state.gateway`` is its state.

    Example:
        >>> from aligner_integrations.server import GatewaySettings, create_app
        >>> app = create_app(GatewaySettings("http://127.0.0.1:8000/v1", model="my-llm"))
        >>> app.title
        'Aligner gateway'
    """
    gateway = Gateway(settings, step or CorrectionStep())

    @contextlib.asynccontextmanager
    async def run(app: FastAPI) -> AsyncIterator[None]:
        gateway.start_loading()
        try:
            yield
        finally:
            gateway.admission.closed = True
            await gateway.aclose()

    app = FastAPI(
        title="Aligner gateway",
        version=__version__,
        lifespan=run,
        openapi_url=None,  # and so no pages that load scripts from elsewhere
        redirect_slashes=False,
        telemetry=_NO_TELEMETRY,
    )
    app.state.gateway = gateway
    _add_api(app, gateway)
    if settings.page:
        _add_page(app, gateway)
    _add_errors(app, gateway)
    routes = frozenset(path for route in app.routes if (path := getattr(route, "path", "")))
    app.add_middleware(Observe, metrics=gateway.metrics, routes=routes)
    return app


def _add_api(app: FastAPI, gateway: Gateway) -> None:
    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        return await chat.complete(gateway, request)

    @app.get("/v1/models")
    async def list_models(request: Request) -> Response:
        return await chat.list_models(gateway, request)

    @app.get("/v1/models/{name:path}")
    async def show_model(request: Request, name: str) -> Response:
        return await chat.show_model(gateway, request, name)

    @app.get("/health")
    async def show_health() -> Response:
        status = {"status": "ready", "model": gateway.settings.model}
        try:
            aligner = gateway.check_ready()
        except ApiError as error:
            return json_response({**status, "status": error.code}, 503, error.headers)
        return json_response({**status, "aligner": aligner.name})

    @app.get("/metrics")
    async def show_metrics() -> Response:
        kind = "text/plain; version=0.0.4; charset=utf-8"
        return Response(gateway.metrics.render(), media_type=kind)


def _add_page(app: FastAPI, gateway: Gateway) -> None:
    @app.get("/")
    async def show_page() -> Response:
        return page.show_page(gateway)

    @app.get("/aligner/page.css")
    async def show_style() -> Response:
        return page.show_file("page.css")

    @app.get("/aligner/page.js")
    async def show_script() -> Response:
        return page.show_file("page.js")

    @app.get("/aligner/icon.svg")
    async def show_icon() -> Response:
        return page.show_file("icon.svg")

    @app.post("/aligner/stream")
    async def stream_correction(request: Request) -> Response:
        return await page.stream_correction(gateway, request)


def _add_errors(app: FastAPI, gateway: Gateway) -> None:
    async def tell(request: Request, error: Exception) -> Response:
        told = to_api_error(error)
        gateway.metrics.note_failure(told)
        return told.response()

    async def tell_http(request: Request, error: Any) -> Response:
        if error.status_code == 404:
            path = request.scope["path"]
            return ApiError(
                404,
                f"{request.method} {path:.200} is not served here; the gateway serves "
                "/v1/chat/completions, /v1/models, /health and /metrics, and forwards nothing "
                "that it does not correct",
                code="unknown_url",
            ).response()
        told = ApiError(error.status_code, str(error.detail), code="http")
        told.headers = dict(error.headers or {})
        return told.response()

    app.add_exception_handler(HTTPException, tell_http)
    app.add_exception_handler(AlignerError, tell)
