"""Gateways over loopback: with an engine that tests can see through, and with the real aligner."""

from __future__ import annotations

import contextlib
import ssl
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import httpx
import pytest

from aligner_integrations import Aligner
from aligner_integrations.correction import CorrectionStats
from aligner_integrations.engines.base import Finished, Job
from aligner_integrations.server import GatewaySettings, create_app
from aligner_integrations.server.gateway import Gateway
from aligner_integrations.step import CorrectionStep
from tests.server.upstream import FakeUpstream, serving, wait_for


class ScriptedEngine:
    """Corrects an answer to ``<question>: fine``, which holds nothing of it; or as ``write`` says.

    With ``hold`` set, jobs wait until it is cleared; with ``pause``, they do so after a word.
    """

    name = "scripted"
    prompt = None

    def __init__(self) -> None:
        self.jobs: list[Job] = []
        self.error: Exception | None = None
        self.ahead: list[str] | None = None
        self.hold = False
        self.pause = False
        self.write: Callable[[Job], str] = lambda job: f"{job.question}: fine"

    def read_ahead(self, question: str) -> Any:
        if self.ahead is None:
            return None
        self.ahead.append(question)
        return SimpleNamespace(extend=self.ahead.append, close=lambda: None)

    def calibrate(self) -> None:
        pass

    def submit(self, jobs: Sequence[Job]) -> None:
        self.jobs += jobs
        for job in jobs:
            threading.Thread(target=self._work, args=[job]).start()

    def _work(self, job: Job) -> None:
        wait_for(lambda: not self.hold or job.cancelled)
        if job.cancelled:
            return
        if self.error is not None:
            job.emit(self.error)
            return
        text = self.write(job)
        for index, word in enumerate(text.split(" ")):
            job.emit(word if index == 0 else f" {word}")
            wait_for(lambda: not self.pause or job.cancelled)
        job.emit(Finished(text, CorrectionStats(10, 4, 2, 1, seconds=0.1)))


@dataclass
class Served:
    """A gateway that runs."""

    url: str
    gateway: Gateway
    engine: Any = None

    @property
    def api(self) -> str:
        return f"{self.url}/v1"

    def post(self, body: Any = None, **more: Any) -> httpx.Response:
        given = {"content": body} if isinstance(body, bytes) else {"json": ask() | (body or {})}
        return httpx.post(f"{self.api}/chat/completions", timeout=30, **{**given, **more})


def ask(question: str = "Eggs?", **more: Any) -> dict[str, Any]:
    return {"model": "m", "messages": [{"role": "user", "content": question}], **more}


@pytest.fixture(scope="session", autouse=True)
def one_tls_context() -> Iterator[None]:
    """Nothing here speaks TLS, but every client of httpx would take 0.2 s to read all roots."""
    context = ssl.create_default_context()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("httpx._transports.default.create_ssl_context", lambda **_: context)
        yield


@pytest.fixture(scope="module")
def upstream_server() -> Iterator[tuple[FakeUpstream, str]]:
    upstream = FakeUpstream()
    with serving(upstream.app()) as url:
        yield upstream, f"{url}/v1"


@pytest.fixture
def upstream(upstream_server: tuple[FakeUpstream, str]) -> FakeUpstream:
    upstream_server[0].reset()
    return upstream_server[0]


@pytest.fixture
def serve(
    upstream_server: tuple[FakeUpstream, str], upstream: FakeUpstream
) -> Iterator[Callable[..., Served]]:
    """``serve(step={...}, **settings)``: a gateway with a `ScriptedEngine` before the fake."""
    with contextlib.ExitStack() as stack:

        def start(step: dict[str, Any] | None = None, **settings: Any) -> Served:
            engine = ScriptedEngine()
            arguments = {"aligner": Aligner(engine), **(step or {})}
            chosen = GatewaySettings(**{"upstream": upstream_server[1], **settings})
            app = create_app(chosen, CorrectionStep(**arguments))
            url = stack.enter_context(serving(app))
            served = Served(url, app.state.gateway, engine)
            if "aligner" not in (step or ()):
                wait_for(lambda: httpx.get(f"{url}/health").status_code == 200)
            return served

        yield start


@pytest.fixture(scope="module")
def real(upstream_server: tuple[FakeUpstream, str], aligner: Aligner) -> Iterator[Served]:
    """A gateway with the bundled aligner."""
    app = create_app(GatewaySettings(upstream_server[1]), CorrectionStep(aligner=aligner))
    with serving(app) as url:
        wait_for(lambda: httpx.get(f"{url}/health").status_code == 200)
        yield Served(url, app.state.gateway)
