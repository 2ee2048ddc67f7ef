"""Gateways and upstreams that are killed: what clients see, and what is left afterwards."""

from __future__ import annotations

import contextlib
import functools
import json
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from aligner_integrations import Aligner
from docs.benchmarks.reliability.pool import ROOT, Pair, Pool
from tests.server.conftest import Served, ask
from tests.server.test_load import Process
from tests.server.upstream import FakeUpstream, wait_for

DONE = "data: [DONE]"
WRITES = "Cool water, 😀 kindly."
RAW = "Boil them for 8 minutes, you fool."
NONSENSE: dict[str, Any] = {"prompt": "aligner-smol", "max_position_embeddings": 8192}
"""A random model whose corrections do not end for a while, so that they can be cut."""


@dataclass
class Cut:
    """A request in a thread: the lines that came, and the error with which they ended."""

    run: Callable[[list[str]], None]
    lines: list[str] = field(default_factory=list)
    error: Exception | None = None

    def __post_init__(self) -> None:
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self.run(self.lines)
        except Exception as error:
            self.error = error

    def wait(self) -> str:
        """Everything that came."""
        self._thread.join(20)
        assert not self._thread.is_alive()
        return "\n".join(self.lines)


def stream_raw(url: str) -> Callable[[list[str]], None]:
    def run(lines: list[str]) -> None:
        body = ask(stream=True)
        with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as response:
            assert response.status_code == 200
            for line in response.iter_lines():
                lines.append(line)  # noqa: PERF402 - they count although the loop raises

    return run


def stream_openai(url: str) -> Callable[[list[str]], None]:
    def run(lines: list[str]) -> None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
            messages: list[Any] = [{"role": "user", "content": "Eggs?"}]
            chunks = client.chat.completions.create(model="m", messages=messages, stream=True)
            for chunk in chunks:
                lines.append(chunk.choices[0].delta.content or "")  # noqa: PERF401 - as below

    return run


def ask_openai(url: str) -> Callable[[list[str]], None]:
    def run(lines: list[str]) -> None:
        with openai.OpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0) as client:
            done = client.chat.completions.create(
                model="m", messages=[{"role": "user", "content": "Eggs?"}]
            )
            lines.append(done.choices[0].message.content or "")

    return run


@contextlib.contextmanager
def running(directory: Path, upstream: str, *options: str) -> Iterator[Process]:
    process = Process(directory, upstream, *options)
    try:
        wait_for(process.is_ready, 240)
        yield process
    finally:
        if process.process.poll() is None:
            process.process.kill()
        process.wait()


def count_requests(url: str) -> float:
    figures = text_string_to_metric_families(httpx.get(f"{url}/metrics").text)
    return sum(
        sample.value
        for family in figures
        for sample in family.samples
        if sample.name == "aligner_requests_total" and sample.labels["route"].startswith("/v1")
    )


def test_killed_gateway(
    upstream_server: tuple[FakeUpstream, str],
    upstream: FakeUpstream,
    tiny_model_dir: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Nothing looks finished that was not; what was finished is with its client, and nowhere else.

    The gateway that follows on the same port answers, and knows nothing of the one before.
    """
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALIGNER_CACHE_DIR", str(tmp_path))
    with running(tiny_model_dir(**NONSENSE), upstream_server[1]) as process:
        url = process.url
        upstream.answers = ['{"minutes": 8}']
        finished = Cut(stream_raw(url))
        assert finished.wait().endswith(DONE + "\n")
        assert finished.error is None
        upstream.answers = [" ".join([RAW] * 150)]
        cut = [Cut(make(url)) for make in (stream_raw, stream_openai, ask_openai)]
        wait_for(lambda: len(upstream.requests) == 4)
        wait_for(lambda: len("".join(cut[0].lines)) > 1500)
        wait_for(lambda: len("".join(cut[1].lines)) > 20)
        process.process.send_signal(signal.SIGKILL)
        texts = [one.wait() for one in cut]
    assert isinstance(cut[0].error, httpx.RemoteProtocolError)
    assert "incomplete chunked read" in str(cut[0].error)
    assert isinstance(cut[1].error, httpx.RemoteProtocolError)  # the client hands it on as it is
    assert isinstance(cut[2].error, openai.APIConnectionError)
    assert texts[2] == ""
    for bad in ("[DONE]", '"finish_reason":"', "you fool"):  # signs of an end, and the raw answer
        assert not any(bad in text for text in texts)
    assert list(tmp_path.iterdir()) == []  # a gateway keeps nothing

    writer = tiny_model_dir(prompt="aligner-smol", writes=WRITES)
    with running(writer, upstream_server[1], "--port", url.rpartition(":")[2]) as process:
        assert process.url == url
        upstream.answers = [RAW]
        answer = Served(url, None).post()  # type: ignore[arg-type]
        assert answer.json()["choices"][0]["message"]["content"] == WRITES
        assert count_requests(url) == 1  # figures begin anew


def test_terminated_gateway(
    upstream_server: tuple[FakeUpstream, str],
    upstream: FakeUpstream,
    tiny_model_dir: Callable[..., Path],
) -> None:
    """What does not end within the grace time ends in an error, a stream in its last event.

    That the others are whole is seen in `test_sigterm_ends_running_requests_first`.
    """
    upstream.hang = True
    writer = tiny_model_dir(prompt="aligner-smol", writes=WRITES)
    with running(writer, upstream_server[1], "--grace", "0.5") as process:
        cut = [Cut(make(process.url)) for make in (stream_raw, stream_openai, ask_openai)]
        wait_for(lambda: len(upstream.requests) == 3)
        wait_for(lambda: cut[0].lines and cut[1].lines)
        process.process.send_signal(signal.SIGTERM)
        texts = [one.wait() for one in cut]
        assert process.process.wait(20) == 0
    *_, last = [line for line in cut[0].lines if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "shutting_down"
    assert cut[0].error is None
    assert isinstance(cut[1].error, openai.APIError)
    assert isinstance(cut[2].error, openai.InternalServerError)
    assert "shutting down" in str(cut[1].error)
    assert cut[2].error.status_code == 503
    for bad in ("[DONE]", '"finish_reason":"', "Boil"):
        assert not any(bad in text for text in texts)
    wait_for(upstream.gone.is_set)


class KilledUpstream:
    """The scripted upstream of the load tests, as a process that can be killed and started anew.

    Its streams fall silent somewhere in the middle.
    """

    def __init__(self, folder: Path) -> None:
        self._pool = folder / "pool.json"
        Pool((Pair("Eggs?", " ".join([RAW] * 5), WRITES),), "", 0).save(self._pool)
        self.url = ""
        self.start()

    def start(self) -> None:
        line = [sys.executable, "-m", "docs.benchmarks.reliability.upstream", str(self._pool)]
        line += [self.url.rpartition(":")[2]] if self.url else []
        self.process = subprocess.Popen(  # noqa: S603 - our own module
            line, stdout=subprocess.PIPE, text=True, cwd=ROOT
        )
        assert self.process.stdout is not None
        self.url = self.process.stdout.readline().split()[-1]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stdout is not None
        self.process.stdout.close()


@pytest.fixture
def killed_upstream(tmp_path: Path) -> Iterator[KilledUpstream]:
    upstream = KilledUpstream(tmp_path)
    yield upstream
    upstream.kill()


def test_killed_upstream(
    serve: Callable[..., Served], killed_upstream: KilledUpstream, writer: Aligner
) -> None:
    """Its answer is neither handed out half nor corrected; the next one's is, without a restart."""
    served = serve(step={"aligner": writer}, upstream=f"{killed_upstream.url}/v1")
    wait_for(lambda: httpx.get(f"{served.url}/health").status_code == 200)
    body = {"metadata": {"request": "r", "fault": "silent"}}
    cut = [Cut(functools.partial(post_lines, served, body | {"stream": s})) for s in (True, False)]
    wait_for(lambda: cut[0].lines)
    wait_for(lambda: httpx.get(killed_upstream.url).json()["open"] == 2)
    killed_upstream.kill()
    streamed, whole = (one.wait() for one in cut)
    *_, last = [line for line in streamed.splitlines() if line]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "upstream_broken"
    assert json.loads(whole)["error"]["code"] == "upstream_broken"
    assert not any(word in text for text in (streamed, whole) for word in ("Boil", "[DONE]"))

    down = served.post(body)
    assert (down.status_code, down.json()["error"]["code"]) == (502, "upstream_unreachable")
    killed_upstream.start()
    after = served.post({"metadata": {"request": "r", "fault": ""}})
    assert after.json()["choices"][0]["message"]["content"] == WRITES
    wait_for(lambda: served.gateway.admission.idle)


def post_lines(served: Served, body: dict[str, Any], lines: list[str]) -> None:
    with httpx.stream("POST", f"{served.api}/chat/completions", json=ask() | body) as response:
        for line in response.iter_lines():
            lines.append(line)  # noqa: PERF402 - they count although the loop raises
