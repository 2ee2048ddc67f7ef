"""Hostile clients of the gateway, and what it must never let out."""

from __future__ import annotations

import json
import logging
import re
import socket
from collections.abc import Callable
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.server import GatewaySettings
from tests.server.conftest import Served, ask, serve, upstream, upstream_server
from tests.server.starting import run_serve
from tests.server.upstream import FakeUpstream, wait_for

__all__ = ["serve", "upstream", "upstream_server"]  # fixtures

JSON = {"content-type": "application/json"}
Serve = Callable[..., Served]


def talk(served: Served, request: bytes) -> bytes:
    """What a server says to bytes, until it closes or falls silent."""
    parts = urlsplit(served.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(request)
        said = b""
        connection.settimeout(1.5)
        try:
            while part := connection.recv(65536):
                said += part
        except (TimeoutError, ConnectionResetError):
            pass
        return said


def make_request(body: bytes, *headers: str, host: str = "127.0.0.1") -> bytes:
    lines = ["POST /v1/chat/completions HTTP/1.1", f"Host: {host}", *headers]
    return "\r\n".join([*lines, "Content-Type: application/json", "", ""]).encode() + body


BODY = json.dumps(ask("Eggs?")).encode()
LENGTH = f"Content-Length: {len(BODY)}"
CHUNKED = f"{len(BODY):x}\r\n".encode() + BODY + b"\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("headers", "body", "most"),
    [
        ([LENGTH, "Transfer-Encoding: chunked"], CHUNKED, 1),
        (["Content-Length: 0", "Transfer-Encoding: chunked"], CHUNKED, 1),
        ([LENGTH, f"Content-Length: {len(BODY) + 9}"], BODY, 0),
        (["Content-Length: +5"], BODY, 0),
        (["Content-Length: 5, 6"], BODY, 0),
        (["Content-Length: -1"], BODY, 0),
        (["Transfer-Encoding: xchunked"], CHUNKED, 0),
        (["Transfer-Encoding : chunked"], CHUNKED, 0),
        (["Transfer-Encoding: chunked, identity"], CHUNKED, 0),
        ([LENGTH, "X-Request-Id: a\r\n Authorization: Bearer x"], BODY, 1),
        ([LENGTH, "X-Request-Id: a\x00b"], BODY, 0),
        ([LENGTH, "Host: other"], BODY, 0),
    ],
)
def test_requests_that_parsers_read_differently(
    serve: Serve, upstream: FakeUpstream, headers: list[str], body: bytes, most: int
) -> None:
    """The upstream gets a request that the gateway wrote, with one length and one host."""
    served = serve(upstream_key="up-key")
    smuggled = b"GET /v1/models HTTP/1.1\r\nHost: x\r\n\r\n"
    said = talk(served, make_request(body, *headers) + (smuggled if most else b""))
    assert len(upstream.requests) <= most
    if not most:
        assert b" 200 OK" not in said
    for sent in upstream.headers:
        assert sent["authorization"] == "Bearer up-key"
        assert "transfer-encoding" not in sent
        assert sent["content-length"] == str(len(BODY))
        assert sent["host"].startswith("127.0.0.1:")


def test_headers_that_go_on(serve: Serve, upstream: FakeUpstream) -> None:
    """Those that are listed, and whose account pays only with the client's own key."""
    hostile = {
        "host": "internal",
        "x-forwarded-host": "internal",
        "x-forwarded-for": "10.0.0.1",
        "x-upstream": "http://10.0.0.1",
        "cookie": "session=1",
        "proxy-authorization": "Basic x",
        "api-key": "x",
        "x-api-key": "x",
        "openai-organization": "org-other",
        "authorization": "Bearer mine",
        "x-request-id": "r1",
    }
    assert serve(upstream_key="up-key").post(headers=hostile).status_code == 200
    assert serve().post(headers=hostile).status_code == 200
    ours, theirs = upstream.headers
    known = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-length"}
    assert set(ours) <= known | {"content-type", "authorization", "x-request-id"}
    assert ours["authorization"] == "Bearer up-key"
    assert theirs["authorization"] == "Bearer mine"
    assert theirs["openai-organization"] == "org-other"
    assert ours["host"].startswith("127.0.0.1:")


def test_cookies_of_the_upstream_stay_with_nobody(serve: Serve, upstream: FakeUpstream) -> None:
    """One client's cookie in another's request would make them one session."""
    served = serve()
    upstream.error = (500, {"error": {"message": "no"}})  # sets a cookie
    assert "set-cookie" not in served.post().headers
    upstream.error = None
    assert served.post().status_code == 200
    assert "cookie" not in upstream.headers[1]


@pytest.mark.parametrize(
    "more",
    [
        {"upstream": "http://127.0.0.1:1/v1"},
        {"base_url": "http://127.0.0.1:1/v1", "api_base": "http://127.0.0.1:1"},
        {"metadata": {"upstream": "http://127.0.0.1:1"}, "model": "http://127.0.0.1:1/v1"},
    ],
)
def test_no_request_chooses_where_it_goes(
    serve: Serve, upstream: FakeUpstream, more: dict[str, Any]
) -> None:
    served = serve()
    for query in ("", "?upstream=http://127.0.0.1:1", "?@127.0.0.1:1/", "?x#@127.0.0.1:1/"):
        url = f"{served.api}/chat/completions{query}"
        assert httpx.post(url, json=ask(**{"model": "m", **more})).status_code == 200
    assert len(upstream.requests) == 4


@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.1:1/v1/models", "//127.0.0.1:1/v1/models", "/v1/models/..;/x", "/v1/../x"],
)
def test_targets_that_name_another_host(serve: Serve, upstream: FakeUpstream, target: str) -> None:
    served = serve(model="m")
    said = talk(served, f"GET {target} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".encode())
    assert re.match(rb"HTTP/1.1 (404|400|200)", said)
    if b" 200 " in said[:20]:
        assert b'"id":"m"' in said  # our own list
    assert not upstream.requests


def test_the_upstreams_redirects_are_not_followed(serve: Serve, upstream: FakeUpstream) -> None:
    upstream.error = (307, "")
    assert serve().post().json()["error"]["code"] == "upstream_invalid"
    assert len(upstream.requests) == 1


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (
            b'{"model": "big", "model": "m", "messages": [{"role": "user", "content": "q"}]}',
            "twice",
        ),
        (
            b'{"model": "m", "messages": [{"content": "a", "role": "user", "content": "b"}]}',
            "twice",
        ),
        (b'{"Model": "big", "model": "m", "messages": [{"role": "user", "content": "q"}]}', "must"),
        (b'{"\xc5\xbftream": true, "messages": [{"role": "user", "content": "q"}]}', "must"),
        (json.dumps(ask()).encode("utf-16"), "not valid JSON"),
        (b"\xef\xbb\xbf" + json.dumps(ask()).encode(), "not valid JSON"),
        (b'{"messages": [{"role": "user", "content": "\xed\xa0\x80"}]}', "not valid JSON"),
        (b'{"n": ' + b"1" * 5000 + b"}", "not valid JSON"),
        (b'{"a": ' + b"[" * 100_000, "not valid JSON"),
    ],
)
def test_bodies_that_parsers_read_differently(
    serve: Serve, upstream: FakeUpstream, body: bytes, message: str
) -> None:
    """The client's bytes go on, so the upstream must not find in them what we did not."""
    response = serve(model="m").post(body, headers=JSON)
    assert response.status_code == 400
    assert message in response.json()["error"]["message"]
    assert not upstream.requests


@pytest.mark.parametrize("depth", [100, 900, 960, 980, 3000])
def test_nesting(serve: Serve, upstream: FakeUpstream, depth: int) -> None:
    """Whatever depth: an answer or a 400, also where the body is written anew."""
    for model in ('"model": "m",', ""):
        nested = f'{{{model} "messages": [{{"role": "user", "content": "q"}}], "x": %s}}'
        body = (nested % ("[" * depth + "]" * depth)).encode()
        assert serve(model="m").post(body, headers=JSON).status_code in (200, 400)


@pytest.mark.parametrize("host", ["[", "a b", "evil/?x=1#", "\xff", ""])
def test_hosts_that_are_none(serve: Serve, upstream: FakeUpstream, host: str) -> None:
    served = serve()
    request = make_request(BODY, LENGTH, "Connection: close", host=host)
    assert re.match(rb"HTTP/1.1 (200|400)", talk(served, request))
    unknown = f"GET /no HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode("latin-1")
    assert re.match(rb"HTTP/1.1 (404|400)", talk(served, unknown))


def test_only_allowed_hosts(serve: Serve, upstream: FakeUpstream) -> None:
    """DNS rebinding: a web page gives its own name our address, and is then of our origin."""
    served = serve(allowed_hosts=("localhost", "127.0.0.1", "[::1]"))
    for host in ("LOCALHOST:99", "127.0.0.1", "[::1]:8088"):
        assert served.post(headers={"host": host}).status_code == 200, host
    for host in ("evil.example:8088", "localhost.evil.example", "127.0.0.1.a"):
        for path in ("/v1/chat/completions", "/aligner/stream"):
            refused = httpx.post(served.url + path, json=ask(), headers={"host": host})
            assert refused.json()["error"]["code"] == "host_not_allowed", host
        assert httpx.get(f"{served.api}/models", headers={"host": host}).status_code == 403
    assert len(upstream.requests) == 3
    with pytest.raises(ConfigurationError, match="list of names"):
        GatewaySettings("http://127.0.0.1:1/v1", allowed_hosts="localhost")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "hosts"),
    [
        ("", ("127.0.0.1", "::1", "localhost")),
        ("--host ::1 --allowed-host gate.example", ("gate.example",)),
        ("--api-key k", ()),
        ("--host 0.0.0.0", ()),
    ],
)
def test_the_command_allows_its_own_names_only(
    monkeypatch: pytest.MonkeyPatch, options: str, hosts: tuple[str, ...]
) -> None:
    line = f"--upstream http://127.0.0.1:1/v1 {options}".split()
    result, app = run_serve(monkeypatch, line)
    assert result.exit_code == 0
    assert app.state.gateway.settings.allowed_hosts == hosts


def test_no_other_origin_may_read(serve: Serve, upstream: FakeUpstream) -> None:
    """No CORS headers at all, so a browser keeps answers from pages of others."""
    served = serve()
    origin = {"origin": "https://evil.example", "access-control-request-method": "POST"}
    preflight = httpx.options(f"{served.api}/chat/completions", headers=origin)
    assert preflight.status_code == 405
    answers = [preflight, served.post(headers=origin), httpx.get(served.url, headers=origin)]
    for answer in answers:
        assert not [name for name in answer.headers if name.startswith("access-control")]
        assert answer.headers["x-content-type-options"] == "nosniff"


def test_an_upstreams_page_is_no_page_of_ours(serve: Serve) -> None:
    served = serve()

    class Html(httpx.AsyncBaseTransport):
        async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
            html = {"content-type": "text/html", "set-cookie": "a=b", "x-frame-options": "x"}
            return httpx.Response(200, headers=html, content=b"<script>alert(1)</script>")

    served.gateway.upstream._client._transport = Html()
    answer = httpx.get(f"{served.api}/models")
    assert answer.headers["content-type"] == "application/json"
    assert not {"set-cookie", "x-frame-options"} & set(answer.headers)


def test_keys_are_compared_whole(serve: Serve, upstream: FakeUpstream) -> None:
    served = serve(api_keys=("key-one",))
    for key in ("key", "key-on", "key-one1", "KEY-ONE", "key-one,key-two", "\xff"):
        headers = {"authorization": f"Bearer {key}".encode("latin-1")}
        assert served.post(headers=headers).status_code == 401, key
    for other in ({"api-key": "key-one"}, {"x-api-key": "key-one"}, {"cookie": "key-one"}):
        assert served.post(headers=other).status_code == 401
    for path in ("/v1/models", "/v1/models/m"):
        assert httpx.get(served.url + path).status_code == 401
    huge = served.post({"padding": "x" * 100_000}, headers={"authorization": "Bearer no"})
    assert huge.status_code == 401  # before the body is read
    assert not upstream.requests


SECRETS = ("gate-key-4711", "up-key-4711", "client-key-4711", "query-4711", "text-4711")


@pytest.mark.parametrize("stream", [False, True])
def test_secrets_are_neither_logged_nor_shown(
    serve: Serve, upstream: FakeUpstream, caplog: pytest.LogCaptureFixture, stream: bool
) -> None:
    """Keys, query strings and texts: in no line of our log, no figure, no repr, no error."""
    caplog.set_level(logging.DEBUG)
    served = serve(api_keys=("gate-key-4711",), upstream_key="up-key-4711")
    headers = {"authorization": "Bearer gate-key-4711", "x-api-key": "client-key-4711"}
    body = {**ask("text-4711"), "stream": stream}
    url = f"{served.api}/chat/completions?key=query-4711"
    shown = ""
    quoting = {"error": {"message": "bad key up-key-4711", "type": "t"}}
    for error in (None, (500, quoting), (400, "no: Bearer up-key-4711"), (401, quoting)):
        upstream.error = error
        shown += httpx.post(url, json=body, headers=headers).text
    upstream.error = None
    upstream.raw = [json.dumps({"error": {"message": "broken: up-key-4711"}})]
    shown += httpx.post(url, json={**body, "stream": True}, headers=headers).text
    upstream.raw = None
    served.engine.error = RuntimeError("text-4711 up-key-4711")
    shown += httpx.post(url, json=body, headers=headers).text
    served.engine.error = None
    shown += httpx.post(url, json=body, headers={"authorization": "Bearer client-key-4711"}).text
    shown += httpx.get(f"{served.api}/models?key=query-4711").text
    for path in ("/metrics", "/health", "/"):
        shown += httpx.get(served.url + path).text
    for key in SECRETS[:4]:
        assert key not in shown
    ours = [r for r in caplog.records if r.name.startswith(("aligner", "uvicorn"))]
    lines = "\n".join(record.getMessage() for record in ours)
    assert "/v1/chat/completions" in lines
    state = repr(served.gateway.settings) + repr(vars(served.gateway)) + str(served.gateway)
    state += repr(vars(served.gateway.upstream))
    for secret in SECRETS:
        assert secret not in lines
        assert secret not in state


def test_routes_and_methods_do_not_fill_the_figures(serve: Serve) -> None:
    served = serve()
    with httpx.Client() as client:
        for number in range(5):
            client.get(f"{served.url}/secret-{number}")
            client.request(f"METHOD{number}", f"{served.url}/v1/models")
    figures = httpx.get(f"{served.url}/metrics").text
    assert "secret-" not in figures
    assert "METHOD" not in figures
    routes = set(re.findall(r'aligner_requests_total\{route="([^"]*)"', figures))
    assert routes <= {"other", "/v1/models", "/health", "/metrics"}


def test_headers_are_limited(serve: Serve, upstream: FakeUpstream) -> None:
    served = serve()
    said = talk(served, make_request(BODY, LENGTH, "X-Large: " + "x" * 200_000))
    assert not said or said.startswith(b"HTTP/1.1 4")  # or cut off while it is still sent
    assert not upstream.requests


def test_a_length_that_lies_frees_its_place(serve: Serve, upstream: FakeUpstream) -> None:
    """A client that promises more than it sends takes no place among the requests."""
    served = serve(max_concurrent=1, max_waiting=0)
    parts = urlsplit(served.url)
    with socket.create_connection((parts.hostname, parts.port), timeout=10) as connection:
        connection.sendall(make_request(BODY, "Content-Length: 100000"))
        assert served.post().status_code == 200
    wait_for(lambda: served.gateway.admission.idle)
    assert len(upstream.requests) == 1
