"""The server behind the gateway: requests go on as they are, failures become clear errors."""

from __future__ import annotations

import json
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any
from urllib.parse import quote

import httpx

from aligner_integrations.redaction import hide_key
from aligner_integrations.server.errors import ApiError, UpstreamStatusError
from aligner_integrations.server.records import (
    CURRENT,
    ID_HEADER,
    TRACE_HEADERS,
    UpstreamRecord,
    current_id,
    read_id,
)
from aligner_integrations.server.settings import GatewaySettings

_FORWARDED_WITH_KEY = ("authorization", "openai-organization", "openai-project")
_RETURNED = ("retry-after", "x-ratelimit-", "openai-")


class Upstream:
    """One OpenAI-compatible API.

    Args:
        settings: Its URL, key and timeout.
    """

    def __init__(self, settings: GatewaySettings) -> None:
        self._settings = settings
        self._client = httpx.AsyncClient(
            timeout=httpx.Timeout(settings.timeout, connect=min(10.0, settings.timeout)),
            cookies=_forget_cookies(),
            limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
        )

    async def send(
        self,
        method: str,
        path: str,
        headers: Mapping[str, str],
        *,
        query: str = "",
        content: bytes | None = None,
        asked: UpstreamRecord | None = None,
    ) -> httpx.Response:
        """Send a request; the response's body is still to be read, and it must be closed.

        Args:
            method: HTTP method.
            path: Path beyond the upstream's URL.
            headers: The client's headers, of which some go on.
            query: The client's query string, which goes on as well.
            content: The body.
            asked: Knows the trace that the upstream may continue.

        Raises:
            ApiError: 502 or 504 where there is no answer, else the upstream's own error.
        """
        url = f"{self._settings.upstream}{path}" + (f"?{query}" if query else "")
        sent = self._headers(headers)
        if asked is not None and self._settings.trace_upstream:
            asked.add_trace(sent)
        try:
            request = self._client.build_request(method, url, content=content, headers=sent)
            response = await self._client.send(request, stream=True)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise to_upstream_error(error) from None
        if record := CURRENT.get():
            record.upstream_id = read_id(response.headers.get(ID_HEADER))
        if response.is_success:
            return response
        raise await self._read_error(response)

    async def aclose(self) -> None:
        """Close all connections."""
        await self._client.aclose()

    def _headers(self, client: Mapping[str, str]) -> dict[str, str]:
        headers = {"content-type": "application/json", "accept": client.get("accept", "*/*")}
        if (request_id := current_id()) is not None:
            headers[ID_HEADER] = request_id
        if self._settings.trace_upstream:
            headers |= {name: client[name] for name in TRACE_HEADERS if name in client}
        if self._settings.upstream_key is not None:
            headers["authorization"] = f"Bearer {self._settings.upstream_key}"
        elif self._settings.forwards_client_key:
            headers |= {name: client[name] for name in _FORWARDED_WITH_KEY if name in client}
        return headers

    async def _read_error(self, response: httpx.Response) -> ApiError:
        status = response.status_code
        content = await read_body(response)
        if status in (401, 403) and not self._settings.forwards_client_key:
            return ApiError(
                502,
                f"the upstream turned the gateway's own key down (status {status}); the gateway's "
                "operator must set --upstream-key",
                code="upstream_key",
            )
        if status < 400:
            return ApiError(
                502,
                f"the upstream answered with status {status}, a redirect; the gateway's operator "
                "must give its final URL as --upstream",
                code="upstream_invalid",
            )
        # Surrogates stand for bytes that are no text, and become those bytes again.
        shown = hide_key(content.decode("utf-8", "surrogateescape"), response)
        content = shown.encode("utf-8", "surrogateescape")
        return UpstreamStatusError(status, content, kept_headers(response))


async def read_body(response: httpx.Response) -> bytes:
    """A response's whole body; closes the response.

    Raises:
        ApiError: The upstream broke off.
    """
    try:
        return await response.aread()
    except httpx.HTTPError as error:
        raise to_upstream_error(error) from None
    finally:
        await response.aclose()


def read_completion(content: bytes) -> dict[str, Any]:
    """A body as a chat completion.

    Raises:
        ApiError: It is none.
    """
    try:
        completion = json.loads(content)
    except (ValueError, RecursionError):
        completion = None
    choices = completion.get("choices") if isinstance(completion, dict) else None
    if (
        isinstance(completion, dict)
        and isinstance(choices, list)
        and all(isinstance(choice, dict) for choice in choices)
        and all(isinstance(choice.get("message"), dict) for choice in choices)
    ):
        return completion
    raise ApiError(
        502,
        "the upstream's answer is no chat completion: a JSON object with choices that have a "
        "message each",
        code="upstream_invalid",
    )


def _forget_cookies() -> CookieJar:
    """A jar that stays empty: one client's cookies must not go along with another's request."""
    return CookieJar(DefaultCookiePolicy(allowed_domains=[]))


def quote_path(name: str) -> str:
    """A name for use in a path, which it must not lead out of.

    Raises:
        ApiError: It would.
    """
    if {".", "..", ""} & set(name.split("/")):
        raise ApiError(404, f"{name!r:.200} is no model", code="model_not_found", param="model")
    return quote(name, safe="/:@")


def kept_headers(response: httpx.Response) -> dict[str, str]:
    """Those of the upstream's headers that a client may want."""
    kept = {
        name: value
        for name, value in response.headers.items()
        if name.startswith(_RETURNED) and name != "openai-processing-ms"
    }
    if (theirs := response.headers.get(ID_HEADER)) is not None:  # ours has another
        kept[f"x-upstream-{ID_HEADER.removeprefix('x-')}"] = theirs
    return kept


def to_upstream_error(error: Exception) -> ApiError:
    """An error of the connection, as the client gets to see it."""
    if isinstance(error, httpx.TimeoutException):
        return ApiError(
            504,
            "the upstream sent nothing for as long as --timeout allows; try again, or allow it "
            "more time",
            code="upstream_timeout",
        )
    if isinstance(error, (httpx.ConnectError, httpx.InvalidURL, httpx.UnsupportedProtocol)):
        return ApiError(
            502,
            "the upstream can't be reached; the gateway's operator must check that it runs at "
            "the URL given as --upstream",
            code="upstream_unreachable",
        )
    return ApiError(
        502,
        f"the connection to the upstream broke off ({type(error).__name__}); try again",
        code="upstream_broken",
    )
