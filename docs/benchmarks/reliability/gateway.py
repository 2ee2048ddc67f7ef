"""Driving the gateway: thousands of requests, faults, clients that hang up, a crowd at once."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import httpx
from prometheus_client.parser import text_string_to_metric_families

from docs.benchmarks.reliability.client import SILENCE, Client
from docs.benchmarks.reliability.plans import CANCELLED, Plan
from docs.benchmarks.reliability.processes import Held, Running
from docs.benchmarks.reliability.tally import Tally

OPTIONS = ("--max-concurrent", "32", "--max-waiting", "64", "--timeout", "10")
"""How the gateway is started; its timeout is short, so that a silent upstream ends soon."""

_SETTLE = 20.0  # seconds in which all that is still open must be put away


@dataclass(frozen=True, slots=True)
class Sample:
    """What the gateway held, and how many requests had ended, so many seconds after the start."""

    at: float
    held: Held
    requests: int


@dataclass
class Load:
    """A run against a gateway.

    Attributes:
        tally: How requests ended.
        samples: Memory over time, the first from before the load.
        seconds: How long it took.
    """

    tally: Tally
    samples: list[Sample]
    seconds: float = 0.0


async def drive(
    running: Running,
    plans: Iterator[Plan],
    *,
    workers: int,
    crowd: Sequence[Plan] = (),
    every: float = 0.5,
    told: Callable[[int], None] = lambda done: None,
) -> Load:
    """Ask all that is planned, then a crowd at once, and check that nothing is left open.

    Args:
        running: Gateway and upstream.
        plans: What to ask.
        workers: Requests at the same time; at most what the gateway takes and lets wait.
        crowd: Requests that come at once at the end, more than it lets wait.
        every: Seconds between two looks at the gateway's memory.
        told: Called with the number of requests that have ended.
    """
    tally, started = Tally(), time.perf_counter()
    load = Load(tally, [Sample(0.0, running.gateway.measure(), 0)])

    async def watch() -> None:
        while True:
            await asyncio.sleep(every)
            at = round(time.perf_counter() - started, 1)
            load.samples.append(Sample(at, running.gateway.measure(), tally.requests))
            told(tally.requests)

    async def work(client: Client) -> None:
        for plan in plans:
            await client.ask(plan)

    async with _connect() as http:
        client = Client(http, running.url, tally)
        watching = asyncio.create_task(watch())
        try:
            await asyncio.gather(*(work(client) for _ in range(workers)))
            await asyncio.gather(*(client.ask(replace(plan, crowd=True)) for plan in crowd))
        finally:
            watching.cancel()
    load.seconds = time.perf_counter() - started
    async with _connect() as http:
        tally.wrong += await check_settled(http, running, tally)
    load.samples.append(Sample(round(load.seconds, 1), running.gateway.measure(), tally.requests))
    return load


async def check_settled(http: httpx.AsyncClient, running: Running, tally: Tally) -> list[str]:
    """Wait until neither gateway nor upstream works on anything; what is wrong after that."""
    end = time.monotonic() + _SETTLE
    while True:
        figures = read_figures((await http.get(f"{running.url}/metrics")).text)
        upstream = (await http.get(f"{running.upstream_url}/figures")).json()
        open_now = {
            "requests in flight": figures["aligner_requests_in_flight",],
            "requests waiting": figures["aligner_requests_waiting",],
            "requests at the upstream": upstream["open"],
        }
        if not any(open_now.values()) or time.monotonic() > end:
            break
        await asyncio.sleep(0.05)
    wrong = [f"{count:.0f} {what} after the end" for what, count in open_now.items() if count]
    counted = sum(
        value
        for (name, *labels), value in figures.items()
        if name == "aligner_requests_total" and "/v1/chat/completions" in labels
    )
    # A client that hung up may have done so before its request had left.
    if not tally.requests - tally.ends[CANCELLED] <= counted <= tally.requests:
        wrong.append(f"the gateway counted {counted:.0f} of {tally.requests} requests")
    log = running.gateway.log.read_text("utf-8").splitlines()
    wrong += [f"the gateway logged {line!r:.300}" for line in log if _is_trouble(line)]
    return wrong


def read_figures(text: str) -> dict[tuple[str, ...], float]:
    """Prometheus' text format, by name and sorted labels."""
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def summarize(load: Load, running: Running) -> dict[str, Any]:
    """The run as it goes into the report."""
    peak = running.gateway.read_peak() or max(sample.held.rss for sample in load.samples)
    first, last = load.samples[0], load.samples[-1]
    return {
        **load.tally.summarize(load.seconds),
        "memory": {
            "start": round(first.held.rss),
            "end": round(last.held.rss),
            "peak": round(peak),
        },
        "held_before": asdict(first.held),
        "held_after": asdict(last.held),
    }


@contextlib.asynccontextmanager
async def _connect() -> AsyncIterator[httpx.AsyncClient]:
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=64)
    timeout = httpx.Timeout(SILENCE, pool=None)
    async with httpx.AsyncClient(limits=limits, timeout=timeout, trust_env=False) as http:
        yield http


def _is_trouble(line: str) -> bool:
    return "Traceback" in line or " ERROR " in line or " CRITICAL " in line
