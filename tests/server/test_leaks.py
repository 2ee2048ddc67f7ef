"""Nothing of a raw answer reaches a client before it is corrected: not a byte, anywhere."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from aligner_integrations.errors import (
    ContextOverflowError,
    CorrectionError,
    InvalidTextError,
    LatencyError,
)
from tests.server.conftest import Served, ask
from tests.server.upstream import FakeUpstream

CANARY = "XyzzyCanary"
RAW = f"Fine so far {CANARY} and more {CANARY}"


@pytest.fixture
def canary(upstream: FakeUpstream) -> FakeUpstream:
    upstream.answers = [RAW]
    return upstream


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("logprobs", [False, True])
@pytest.mark.parametrize("n", [1, 3])
def test_answers(
    serve: Callable[..., Served],
    canary: FakeUpstream,
    caplog: pytest.LogCaptureFixture,
    stream: bool,
    logprobs: bool,
    n: int,
) -> None:
    caplog.set_level(logging.INFO)
    canary.choice = {  # copies of the answer that vLLM, Perplexity and others send along
        "token_ids": [1, 2],
        "text": RAW,
        ("message" if stream else "delta"): {"role": "assistant", "content": RAW},
    }
    if not stream:
        canary.choice.pop("delta")
    served = serve()
    response = served.post({"stream": stream, "logprobs": logprobs, "n": n})
    assert response.status_code == 200
    assert CANARY not in response.text
    assert response.text.count("fine") == n
    assert CANARY not in httpx.get(f"{served.url}/metrics").text
    assert CANARY not in caplog.text


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    "error",
    [
        CorrectionError(f"failed at {CANARY}"),
        InvalidTextError(f"bad character in {CANARY}"),
        RuntimeError(CANARY),
        LatencyError("late"),
        ContextOverflowError("too long"),
    ],
    ids=lambda error: type(error).__name__,
)
@pytest.mark.parametrize("policy", ["raise", "refuse"])
def test_errors(
    serve: Callable[..., Served],
    canary: FakeUpstream,
    caplog: pytest.LogCaptureFixture,
    error: Exception,
    stream: bool,
    policy: Any,
) -> None:
    """Log lines quote nothing either."""
    caplog.set_level(logging.INFO, logger="aligner_integrations")
    served = serve(step={"on_error": policy, "on_overflow": policy})
    served.engine.error = error
    response = served.post({"stream": stream})
    assert CANARY not in response.text
    lines = [r for r in caplog.records if r.name.startswith("aligner_integrations")]
    assert not any(CANARY in record.getMessage() for record in lines)
    if policy == "refuse" and not isinstance(error, RuntimeError | CorrectionError):
        assert "I'm sorry" in response.text
    if policy == "raise":
        assert '"error"' in response.text


def test_nothing_goes_out_before_the_correction(
    serve: Callable[..., Served], canary: FakeUpstream
) -> None:
    """The client's bytes up to the moment the engine begins to write, and after an upstream
    that breaks off."""
    served = serve(keep_alive=0.02)
    served.engine.hold = True
    seen = b""
    with httpx.stream(
        "POST", f"{served.api}/chat/completions", json=ask(stream=True), timeout=30
    ) as response:
        for part in response.iter_bytes():
            seen += part
            if seen.count(b": keep-alive") >= 3 and served.engine.jobs:
                served.engine.hold = False
            if served.engine.hold:
                assert b"fine" not in seen
    assert CANARY.encode() not in seen
    assert seen.count(b": keep-alive") >= 3
    assert seen.endswith(b"data: [DONE]\n\n")
    canary.raw = [
        json.dumps({"choices": [{"index": 0, "delta": {"content": RAW}, "finish_reason": None}]})
    ]
    broken = served.post({"stream": True})
    assert CANARY not in broken.text
    assert "ended before its answer" in broken.text


def test_text_after_the_end_is_refused(serve: Callable[..., Served], canary: FakeUpstream) -> None:
    ends = [("Hi", "stop"), (CANARY, None)]
    canary.raw = [
        json.dumps({"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": end}]})
        for text, end in ends
    ]
    text = serve().post({"stream": True}).text
    assert CANARY not in text
    assert "after its end" in text


def test_a_body_that_is_no_completion(serve: Callable[..., Served], canary: FakeUpstream) -> None:
    for choice in ({"message": None, "text": RAW}, {"message": RAW}):
        canary.choice = choice
        response = serve().post()
        assert response.status_code == 502
        assert CANARY not in response.text
