"""Every failure as a client sees it: status, and OpenAI's error JSON."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Iterator
from typing import Any

import httpx
import pytest

from aligner_integrations.errors import (
    ConfigurationError,
    ContextOverflowError,
    CorrectionError,
    LatencyError,
    ModelNotFoundError,
    QueueFullError,
)
from aligner_integrations.server import GatewaySettings
from tests.server.conftest import Served, ask
from tests.server.upstream import FakeUpstream

JSON = {"content-type": "application/json"}


def check(response: httpx.Response, status: int, code: str | None = None) -> str:
    assert response.status_code == status, response.text
    error = response.json()["error"]
    assert response.json().get("request_id") in (response.headers["x-request-id"], None)
    assert set(error) == {"message", "type", "param", "code"}
    assert code is None or error["code"] == code
    return str(error["message"])


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        (b"{", 400, "not valid JSON"),
        (b"[1]", 400, "must be a JSON object"),
        (b"[" * 100_000, 400, "not valid JSON"),
        (b"\xff", 400, "not valid JSON"),
        (b"{}", 400, "messages must be a list"),
        (b'{"messages": []}', 400, "at least one"),
        (b'{"messages": ["hi"]}', 400, "must be an object"),
        (b'{"messages": [{}], "stream": "yes"}', 400, "stream has the wrong type"),
        (b'{"model": "m", "messages": [{"role": "user", "content": ""}]}', 400, "no text"),
        (b'{"model": "m", "messages": [{"role": "user", "content": "\\ud800"}]}', 200, ""),
    ],
)
def test_invalid_requests(
    serve: Callable[..., Served], upstream: FakeUpstream, body: bytes, status: int, message: str
) -> None:
    response = serve().post(body, headers=JSON)
    if status == 200:
        assert response.status_code == 200
    else:
        assert message in check(response, status)


def test_content_type(serve: Callable[..., Served]) -> None:
    """A form or plain text can be sent by any web page; JSON can't."""
    served = serve()
    for headers in ({"content-type": "text/plain"}, {}):
        check(served.post(json.dumps(ask()).encode(), headers=headers), 415, "not_json")


def test_routes_and_models(serve: Callable[..., Served], upstream: FakeUpstream) -> None:
    served = serve(model="m")
    for path in ("/v1/embeddings", "/v1/completions", "/v2", "/docs", "/openapi.json"):
        assert "forwards nothing" in check(httpx.get(served.url + path), 404, "unknown_url")
    check(httpx.get(f"{served.api}/chat/completions"), 405)
    check(served.post({"model": "other"}), 404, "model_not_found")
    check(httpx.get(f"{served.api}/models/other"), 404, "model_not_found")
    assert httpx.get(f"{served.api}/models/m").json()["id"] == "m"
    assert [m["id"] for m in httpx.get(f"{served.api}/models").json()["data"]] == ["m"]
    assert served.post({"model": None}).status_code == 200
    assert upstream.requests[0]["model"] == "m"


def test_model_names_lead_nowhere_else(serve: Callable[..., Served]) -> None:
    """The gateway asks with its own key, so a name must not become another path."""
    served = serve(upstream_key="k")
    for name in ("..%2F..%2Fsecret", "..", "a%2F..%2F..%2Fb", "%2e%2e%2fmodels"):
        with httpx.Client() as client:
            url = httpx.URL(f"{served.api}/models/x").copy_with(
                raw_path=f"/v1/models/{name}".encode()
            )
            assert client.get(url).status_code == 404
    assert check(httpx.get(f"{served.api}/models/org%2Fmodel%3Fx=1"), 404)


def test_body_size(serve: Callable[..., Served], upstream: FakeUpstream) -> None:
    served = serve(max_body=1000)
    check(served.post({"padding": "x" * 1000}), 413, "request_too_large")

    def chunks() -> Iterator[bytes]:
        for _ in range(20):
            yield b" " * 100

    response = httpx.post(f"{served.api}/chat/completions", content=chunks(), headers=JSON)
    check(response, 413, "request_too_large")
    assert not upstream.requests
    assert served.post().status_code == 200


def test_keys(
    serve: Callable[..., Served], upstream: FakeUpstream, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    served = serve(api_keys=("key-one", "key-two"), upstream_key="up-key")
    for authorization in (None, "Bearer wrong", "Basic key-one", "Bearer", "key-one"):
        headers = {} if authorization is None else {"authorization": authorization}
        check(served.post(headers=headers), 401, "invalid_api_key")
    check(httpx.get(f"{served.api}/models"), 401)
    check(httpx.post(f"{served.url}/aligner/stream", json={}), 401)
    for key in ("key-one", "key-two"):
        assert served.post(headers={"authorization": f"bearer {key}"}).status_code == 200
    assert {headers["authorization"] for headers in upstream.headers} == {"Bearer up-key"}
    assert httpx.get(f"{served.url}/health").status_code == 200
    settings = repr(served.gateway.settings)
    ours = [r.getMessage() for r in caplog.records if r.name.startswith("aligner")]
    assert not any(key in text for text in (settings, *ours) for key in ("key-one", "up-key"))


def test_our_keys_never_go_on(serve: Callable[..., Served], upstream: FakeUpstream) -> None:
    served = serve(api_keys=("ours",))
    assert served.post(headers={"authorization": "Bearer ours"}).status_code == 200
    assert "authorization" not in upstream.headers[0]


@pytest.mark.parametrize("stream", [False, True])
def test_upstream_errors(
    serve: Callable[..., Served], upstream: FakeUpstream, stream: bool
) -> None:
    served = serve()
    body = {"error": {"message": "no", "type": "t", "param": None, "code": "c"}, "more": 1}
    for status in (400, 401, 404, 429, 500, 503):
        upstream.error = (status, body)
        response = served.post({"stream": stream})
        assert (response.status_code, response.json()) == (status, body)
        assert response.headers["retry-after"] == "7"
        assert "set-cookie" not in response.headers
    upstream.error = (500, "<html>oops</html>")
    assert "oops" in check(served.post({"stream": stream}), 500, "upstream")
    upstream.error = (302, "")
    assert "redirect" in check(served.post({"stream": stream}), 502, "upstream_invalid")
    own = serve(upstream_key="stale")
    upstream.error = (401, body)
    assert "--upstream-key" in check(own.post({"stream": stream}), 502, "upstream_key")


@pytest.mark.parametrize("stream", [False, True])
def test_upstream_unreachable_or_slow(
    serve: Callable[..., Served], upstream: FakeUpstream, stream: bool
) -> None:
    nobody = serve(upstream="http://127.0.0.1:9/v1")
    check(nobody.post({"stream": stream}), 502, "upstream_unreachable")
    upstream.hang = True
    response = serve(timeout=0.2).post({"stream": stream})
    if stream:
        error = json.loads(response.text.strip().splitlines()[-1].removeprefix("data: "))["error"]
        assert error["code"] == "upstream_timeout"
        assert "[DONE]" not in response.text
    else:
        check(response, 504, "upstream_timeout")


def test_upstream_that_does_not_stream(
    serve: Callable[..., Served], upstream: FakeUpstream
) -> None:
    for event in ("{", '{"choices": 1}', '{"choices": [{"delta": "x"}]}'):
        upstream.raw = [event]
        assert "upstream_invalid" in serve().post({"stream": True}).text


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (QueueFullError("full"), 429, "queue_full"),
        (ContextOverflowError("long"), 400, "context_length_exceeded"),
        (LatencyError("late"), 504, "correction_timeout"),
        (CorrectionError("bad"), 500, "correction_failed"),
        (ConfigurationError("strength"), 500, "configuration"),
        (RuntimeError("bug"), 500, "correction_failed"),
    ],
)
def test_correction_errors(
    serve: Callable[..., Served], upstream: FakeUpstream, error: Exception, status: int, code: str
) -> None:
    served = serve()
    served.engine.error = error
    response = served.post()
    check(response, status, code)
    assert ("retry-after" in response.headers) == (status == 429)
    streamed = served.post({"stream": True}).text.strip().splitlines()[-1]
    assert json.loads(streamed.removeprefix("data: "))["error"]["code"] == code


def test_aligner_that_cannot_be_loaded(
    serve: Callable[..., Served], monkeypatch: pytest.MonkeyPatch
) -> None:
    import threading

    from aligner_integrations.step import CorrectionStep
    from tests.server.upstream import wait_for

    go = threading.Event()

    def load(step: Any) -> None:
        go.wait(10)
        raise ModelNotFoundError("nowhere")

    monkeypatch.setattr(CorrectionStep, "load", load)
    served = serve(step={"aligner": None})
    loading = httpx.get(f"{served.url}/health")
    assert (loading.status_code, loading.json()["status"]) == (503, "aligner_loading")
    check(served.post(), 503, "aligner_loading")
    go.set()
    wait_for(lambda: served.gateway.failure is not None)
    assert httpx.get(f"{served.url}/health").json()["status"] == "aligner_failed"
    check(served.post(), 503, "aligner_failed")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"upstream": "localhost:8000"}, "no http"),
        ({"upstream": "http://[::1"}, "no http"),
        ({"upstream": "http://me:secret@host/v1"}, "without user"),
        ({"api_keys": "key"}, "list of keys"),
        ({"api_keys": ("",)}, "empty"),
        ({"upstream_key": "a b"}, "spaces"),
        ({"model": " "}, "empty"),
        ({"history": "some"}, "history"),
        ({"max_body": 0}, "max_body"),
        ({"max_waiting": -1}, "max_waiting"),
        ({"timeout": 0}, "timeout"),
    ],
)
def test_settings(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message) as raised:
        GatewaySettings(**{"upstream": "http://127.0.0.1:1/v1", **settings})
    assert "secret" not in str(raised.value)
