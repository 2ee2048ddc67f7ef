"""Driving the engine in this process: threads and event loops, cancellations, passes that fail."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from aligner_integrations import Aligner
from aligner_integrations.benchmarking.memory import read_peak
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.errors import AlignerError
from docs.benchmarks.reliability import ways
from docs.benchmarks.reliability.pool import Pool
from docs.benchmarks.reliability.tally import Tally

FAILING = 0.01
"""Share of passes that fail, while some do."""

QUEUE = 8
"""Answers that may wait, while the queue is short."""

REFUSED = "QueueFullError"

TASKS = 4
"""Tasks of each event loop."""

_SETTLE = 20.0


class Driver:
    """Threads, half of which run an event loop with several tasks, on one aligner.

    Args:
        aligner: The aligner.
        pool: What to ask.
        tally: Where ends are counted.
        seed: Of the draws.
        patience: Most seconds before a task is cancelled.
        more: Errors in which any request may end.
    """

    def __init__(
        self,
        aligner: Aligner,
        pool: Pool,
        tally: Tally,
        *,
        seed: int,
        patience: float,
        more: frozenset[str] = frozenset(),
    ) -> None:
        self._aligner = aligner
        self._pool = pool
        self._tally = tally
        self._seed = seed
        self._patience = patience
        self._more = more
        self._lock = threading.Lock()
        self._left = 0
        self._told: Callable[[int], None] = lambda done: None

    def run(self, requests: int, workers: int, told: Callable[[int], None]) -> None:
        """Ask so many requests, or a few more where the last ones are batches."""
        self._left, self._told = requests, told
        with ThreadPoolExecutor(workers) as threads:
            for done in [threads.submit(self._work, number) for number in range(workers)]:
                done.result()

    def _work(self, number: int) -> None:
        draw = random.Random(f"{self._seed} {number}")  # noqa: S311 - a load
        if number % 2:
            asyncio.run(self._work_in_loop(draw))
            return
        for turn in self._turns(draw):
            way, started = draw.choice(ways.SYNC), time.perf_counter()
            try:
                ends = way(self._aligner, turn)
            except AlignerError as error:
                ends = [ways.end_of_error(way.__name__, error)]
            self._note(way.__name__, ends, started)
            if any(end.how == REFUSED for end in ends):  # as a good client does
                time.sleep(draw.uniform(0.0, 0.1))

    async def _work_in_loop(self, draw: random.Random) -> None:
        async def work(own: random.Random) -> None:
            for turn in self._turns(own):
                way, started = own.choice(ways.ASYNC), time.perf_counter()
                try:
                    ends = await way(self._aligner, turn)
                except AlignerError as error:
                    ends = [ways.end_of_error(way.__name__, error)]
                self._note(way.__name__, ends, started)
                if any(end.how == REFUSED for end in ends):
                    await asyncio.sleep(own.uniform(0.0, 0.1))

        draws = [random.Random(draw.random()) for _ in range(TASKS)]  # noqa: S311 - a load
        await asyncio.gather(*(work(own) for own in draws))

    def _turns(self, draw: random.Random) -> Iterator[ways.Turn]:
        while self._left > 0:
            pairs = draw.sample(self._pool.pairs, draw.randint(1, 6))
            yield ways.Turn(pairs, self._pool.too_long, draw, self._patience)

    def _note(self, way: str, ends: list[ways.End], started: float) -> None:
        seconds = time.perf_counter() - started
        with self._lock:
            self._left -= len(ends)
            for end in ends:
                self._tally.note(way, end.how, set(end.allowed | self._more), end.detail)
            if all(end.how in end.allowed for end in ends) and way not in ("cancel", "leave_early"):
                self._tally.note_seconds(way, seconds)
            self._told(self._tally.requests)


def run(
    aligner: Aligner,
    pool: Pool,
    requests: int,
    *,
    seed: int,
    workers: int,
    patience: float,
    told: Callable[[int], None] = lambda done: None,
) -> dict[str, Any]:
    """Three parts of a run: all is well (six tenths), passes fail, the queue is short.

    Returns:
        Figures for the report.
    """
    engine = aligner.engine
    if not isinstance(engine, LocalEngine):
        raise TypeError(f"{engine!r} is no LocalEngine, so it has no passes to break")
    tally, started = Tally(), time.perf_counter()
    usual = Driver(aligner, pool, tally, seed=seed, patience=patience)
    usual.run(requests * 6 // 10, workers, told)
    tally.wrong += check_settled()

    broken = Driver(
        aligner, pool, tally, seed=seed + 1, patience=patience, more=frozenset({"CorrectionError"})
    )
    with failing_passes(engine, seed):
        broken.run(requests * 2 // 10, workers, told)
        tally.wrong += check_settled()

    short = Aligner(LocalEngine(engine.loaded, max_waiting=QUEUE, max_batch_size=4))
    crowded = Driver(
        short, pool, tally, seed=seed + 2, patience=patience, more=frozenset({REFUSED})
    )
    crowded.run(requests * 2 // 10, workers, told)
    tally.wrong += check_settled()
    figures = tally.summarize(time.perf_counter() - started)
    return {**figures, "workers": workers, "memory": {"peak": round(read_peak() / 2**20)}}


@contextlib.contextmanager
def failing_passes(engine: LocalEngine, seed: int) -> Iterator[None]:
    """Some passes of the model fail, half of them before and half after they were made."""
    packed = engine.pack()
    if packed is None:
        raise TypeError(f"{engine.name!r} can't take packed passes, so none can be broken")
    draw, forward = random.Random(seed), packed.forward  # noqa: S311 - faults

    def fail_sometimes(parts: Any) -> Any:
        place = draw.random()
        if place < FAILING / 2:
            raise RuntimeError("this pass fails on purpose, before")
        result = forward(parts)
        if place < FAILING:
            raise RuntimeError("this pass fails on purpose, behind")
        return result

    packed.forward = fail_sometimes  # type: ignore[method-assign]
    logger = logging.getLogger("aligner_integrations.engines.local")
    level = logger.level
    logger.setLevel(logging.ERROR)  # it warns of each
    try:
        yield
    finally:
        del packed.forward
        logger.setLevel(level)


def check_settled() -> list[str]:
    """Wait until the engine's worker has ended, as it does when nothing is left to do."""
    end = time.monotonic() + _SETTLE
    while working := [one for one in threading.enumerate() if one.name.startswith("aligner ")]:
        if time.monotonic() > end:
            return [f"{len(working)} workers of the engine still run after the end"]
        time.sleep(0.02)
    return []
