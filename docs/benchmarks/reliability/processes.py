"""The gateway and the scripted upstream as processes of their own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import httpx
import psutil

from docs.benchmarks.reliability.pool import ROOT

COMMAND = [sys.executable, "-c", "from aligner_integrations.cli import main; main()"]
START = 300.0
"""Seconds that a process has to start; the bundled model may have to be made ready first."""


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds at a moment.

    Attributes:
        rss: Resident memory in MB (2**20 bytes).
        files: Open file descriptors, sockets among them.
        threads: Threads.
    """

    rss: float
    files: int
    threads: int


class Process:
    """A process that says ``listening on URL`` in its log.

    Args:
        line: The command line.
        log: File for its output.
    """

    def __init__(self, line: Sequence[str], log: Path) -> None:
        self.log = log
        environment = {**os.environ, "OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1"}
        with log.open("w") as out:
            self.popen = subprocess.Popen(  # noqa: S603 - our own commands
                line, stdout=out, stderr=subprocess.STDOUT, cwd=ROOT, env=environment
            )
        self._watched = psutil.Process(self.popen.pid)

    def find_url(self) -> str:
        """The URL, once it listens.

        Raises:
            RuntimeError: It ended before, or took too long.
        """
        end = time.monotonic() + START
        while time.monotonic() < end and self.popen.poll() is None:
            if found := re.search(r"listening on (http://\S+)", self.log.read_text("utf-8")):
                return found[1]
            time.sleep(0.02)
        raise RuntimeError(f"the process does not listen; it said:\n{self.log.read_text('utf-8')}")

    def measure(self) -> Held:
        """What it holds now."""
        rss = self._watched.memory_info().rss / 2**20
        return Held(rss, self._watched.num_fds(), self._watched.num_threads())

    def read_peak(self) -> float | None:
        """The most memory that it ever held, in MB; None where the system does not say."""
        status = Path(f"/proc/{self.popen.pid}/status")
        if not status.is_file():
            return None
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) / 1024

    def stop(self) -> int:
        """End it as an operator would; its exit code."""
        if self.popen.poll() is None:
            self.popen.send_signal(signal.SIGTERM)
        try:
            return self.popen.wait(40)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            return self.popen.wait()


@dataclass(frozen=True, slots=True)
class Running:
    """Both processes, ready.

    Attributes:
        gateway: ``aligner serve``.
        url: Its URL.
        upstream_url: The upstream's, without ``/v1``.
    """

    gateway: Process
    url: str
    upstream_url: str


@contextlib.contextmanager
def running(
    scratch: Path, model: str, pool: Path, options: Sequence[str] = ()
) -> Iterator[Running]:
    """Start both and wait until they are ready; afterwards end them.

    Args:
        scratch: Folder for their logs.
        model: The aligner.
        pool: The upstream's answers.
        options: Further options of ``aligner serve``.
    """
    module = "docs.benchmarks.reliability.upstream"
    upstream = Process([sys.executable, "-m", module, str(pool)], scratch / "upstream.log")
    gateway = None
    try:
        upstream_url = upstream.find_url()
        line = [*COMMAND, "serve", "--upstream", f"{upstream_url}/v1", "--model", "m"]
        line += ["--aligner", model, "--device", "cpu", "--port", "0", *options]
        gateway = Process(line, scratch / "gateway.log")
        url = gateway.find_url()
        _wait_until_ready(gateway, url)
        yield Running(gateway, url, upstream_url)
    finally:
        if gateway is not None:
            gateway.stop()
        upstream.stop()


def _wait_until_ready(gateway: Process, url: str) -> None:
    end = time.monotonic() + START
    while time.monotonic() < end and gateway.popen.poll() is None:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/health").status_code == 200:
                return
        time.sleep(0.05)
    raise RuntimeError(f"the gateway is not ready; it said:\n{gateway.log.read_text('utf-8')}")
