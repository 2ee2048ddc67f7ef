"""Errors in OpenAI's JSON form, and which of them the library's own become."""

from __future__ import annotations

import json
import logging
from typing import Any

from starlette.responses import Response

from aligner_integrations.errors import (
    AlignerError,
    ConfigurationError,
    ContextOverflowError,
    CorrectionError,
    InputTypeError,
    InvalidTextError,
    LatencyError,
    QuestionNotFoundError,
    QueueFullError,
)
from aligner_integrations.server.records import current_id

logger = logging.getLogger(__name__)

RETRY_AFTER = 1
"""Seconds after which a client that was turned away may try again."""

_TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error"}

# Errors whose messages hold figures and names, but no text of an answer.
_OWN: dict[type[AlignerError], tuple[int, str, str | None]] = {
    QueueFullError: (429, "queue_full", None),
    ContextOverflowError: (400, "context_length_exceeded", "messages"),
    QuestionNotFoundError: (400, "question_not_found", "messages"),
    LatencyError: (504, "correction_timeout", None),
    ConfigurationError: (500, "configuration", None),
}


class ApiError(AlignerError):
    """A request that fails, as the client gets to see it.

    Args:
        status: HTTP status.
        message: What was wrong, why, and what to do. Holds nothing of an answer.
        code: OpenAI's short name for it, or one of ours.
        param: The request's field that was wrong.
        retry: Tell the client when to try again.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        code: str | None = None,
        param: str | None = None,
        retry: bool = False,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.param = param
        self.headers = {"retry-after": str(RETRY_AFTER)} if retry else {}

    def body(self) -> dict[str, Any]:
        """The error as OpenAI writes it, and beside it the request's id."""
        kind = _TYPES.get(self.status)
        kind = kind or ("server_error" if self.status >= 500 else "invalid_request_error")
        error = {"message": str(self), "type": kind, "param": self.param, "code": self.code}
        request_id = current_id()
        return {"error": error, **({} if request_id is None else {"request_id": request_id})}

    def response(self) -> Response:
        """The whole HTTP response."""
        return json_response(self.body(), self.status, self.headers)


class UpstreamStatusError(ApiError):
    """The upstream answered with an error, which is handed on with its status and body."""

    def __init__(self, status: int, content: bytes, headers: dict[str, str]) -> None:
        super().__init__(status, f"the upstream answered with status {status}", code="upstream")
        self._content = content
        self.headers = headers

    def body(self) -> dict[str, Any]:
        """The upstream's own JSON, where it has an ``error``; else its text in one of ours."""
        try:
            body = json.loads(self._content)
        except (ValueError, RecursionError):
            body = None
        if isinstance(body, dict) and "error" in body:
            return body
        error = super().body()
        if text := self._content.decode("utf-8", "replace").strip():
            error["error"]["message"] += f": {text[:2000]}"
        return error


def shutting_down() -> ApiError:
    """The error for requests that come, or would end, too late."""
    return ApiError(
        503, "the gateway is shutting down; ask another one", code="shutting_down", retry=True
    )


def json_response(
    body: dict[str, Any], status: int = 200, headers: dict[str, str] | None = None
) -> Response:
    """JSON in ASCII, which also holds the lone surrogates on which Starlette's own fails."""
    content = json.dumps(body, separators=(",", ":"))
    return Response(content, status, headers, media_type="application/json")


def to_api_error(error: BaseException) -> ApiError:
    """What a client is told of an error. Nothing that could hold part of an answer."""
    if isinstance(error, ApiError):
        return error
    for kind, (status, code, param) in _OWN.items():
        if isinstance(error, kind):
            return ApiError(status, str(error), code=code, param=param, retry=status == 429)
    if isinstance(error, (InvalidTextError, InputTypeError)):  # their messages quote
        return ApiError(400, f"not valid text for the aligner: {type(error).__name__}")
    if not isinstance(error, CorrectionError):
        logger.error("a request failed: %s", type(error).__name__)
        logger.debug("a request failed", exc_info=error)
    return ApiError(
        500,
        f"the answer could not be corrected ({type(error).__name__}), so it is not handed out; "
        "try again, or start the gateway with --on-error original or refuse",
        code="correction_failed",
    )
