"""Many answers through one engine: so many at a time, and results in their order."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Collection, Iterable, Sequence
from itertools import islice, repeat
from typing import Any, TypeVar

from aligner_integrations.engines.base import Engine
from aligner_integrations.errors import ConfigurationError, InputTypeError
from aligner_integrations.request import Request
from aligner_integrations.streams import AsyncCorrectionStream, CorrectionStream

Pair = tuple[str, str]
_S = TypeVar("_S", CorrectionStream, AsyncCorrectionStream)

WINDOW = 128  # answers that the engine has at a time; bounds the memory for them


def check_pairs(
    pairs: Iterable[Pair], tags: Sequence[Collection[str]] | None
) -> list[tuple[Pair, Collection[str]]]:
    """Pairs of question and answer, each with its tags.

    Raises:
        InputTypeError: A pair is none, or its answer is neither text nor pieces of it.
        ConfigurationError: There are tags for more pairs, or for fewer.
    """
    checked = list(pairs)
    for index, pair in enumerate(checked):
        if not isinstance(pair, (tuple, list)) or len(pair) != 2:
            raise InputTypeError(f"pair {index} must be (question, answer), not {pair!r:.80}")
        if not isinstance(pair[1], (str, Iterable, AsyncIterable)):
            raise InputTypeError(
                f"answer must be a str, not {type(pair[1]).__name__}: {pair[1]!r:.80}"
            )
    if tags is not None and len(tags) != len(checked):
        raise ConfigurationError(
            f"there are {len(checked)} pairs, but tags for {len(tags)}; give one list of tags "
            "for each pair"
        )
    return list(zip(checked, repeat(()) if tags is None else tags, strict=False))


def read_batch(
    engine: Engine, requests: Iterable[Request], *, return_exceptions: bool, progress: bool
) -> list[Any]:
    """The corrections, or errors, of requests; see `Aligner.correct_batch`."""
    streams = [CorrectionStream(request, whole=True) for request in requests]
    coming = iter(streams)
    try:
        engine.submit([job for stream in islice(coming, WINDOW) if (job := stream.start())])
        results: list[Any] = []
        for stream in _show_progress(streams, progress):
            try:
                results.append(stream.read())
            except Exception as error:
                if not return_exceptions:
                    raise
                results.append(error)
            if later := [job for one in islice(coming, 1) if (job := one.start())]:
                engine.submit(later)
        return results
    finally:
        for stream in streams:
            stream.close()


async def aread_batch(
    engine: Engine, requests: Iterable[Request], *, return_exceptions: bool, progress: bool
) -> list[Any]:
    """`read_batch`, without blocking the event loop."""
    streams = [AsyncCorrectionStream(request, whole=True) for request in requests]
    coming = iter(streams)
    try:
        jobs = [job for one in islice(coming, WINDOW) if (job := await one.start())]
        await asyncio.to_thread(engine.submit, jobs)
        results: list[Any] = []
        for stream in _show_progress(streams, progress):
            try:
                results.append(await stream.read())
            except Exception as error:
                if not return_exceptions:
                    raise
                results.append(error)
            if later := [job for one in islice(coming, 1) if (job := await one.start())]:
                await asyncio.to_thread(engine.submit, later)
        return results
    finally:
        for stream in streams:
            await stream.aclose()


def _show_progress(streams: list[_S], progress: bool) -> Iterable[_S]:
    if not progress:
        return streams
    from tqdm.auto import tqdm

    bar: Iterable[_S] = tqdm(streams, desc="correct", unit="answer")
    return bar
