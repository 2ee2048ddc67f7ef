"""All ways to ask an aligner within a process, each checked against what it wrote when alone."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

from aligner_integrations import Aligner, Correction
from aligner_integrations.errors import AlignerError
from docs.benchmarks.reliability.plans import CANCELLED, RIGHT
from docs.benchmarks.reliability.pool import Pair


@dataclass(frozen=True, slots=True)
class End:
    """How one request ended, in which ways it may have, and what there is to say about it."""

    how: str
    allowed: frozenset[str]
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Turn:
    """What one turn has to ask with.

    Attributes:
        pairs: A few pairs; most ways use the first.
        too_long: An answer that does not fit.
        draw: For places to leave at, and pauses.
        patience: Most seconds before a task is cancelled.
    """

    pairs: Sequence[Pair]
    too_long: str
    draw: random.Random
    patience: float


def correct(aligner: Aligner, turn: Turn) -> list[End]:
    """One answer, whole."""
    pair = turn.pairs[0]
    return [_compare(pair, aligner.correct(pair.question, pair.answer))]


def correct_batch(aligner: Aligner, turn: Turn) -> list[End]:
    """Several answers together, one of which is no valid text."""
    pairs = [(pair.question, pair.answer) for pair in turn.pairs]
    results = aligner.correct_batch([*pairs, ("q", "\ud800")], return_exceptions=True)
    return _compare_all(turn.pairs, results)


def stream(aligner: Aligner, turn: Turn) -> list[End]:
    """Piece by piece."""
    pair = turn.pairs[0]
    with aligner.stream(pair.question, pair.answer) as pieces:
        return [_join(pair, list(pieces), pieces.correction)]


def stream_of_pieces(aligner: Aligner, turn: Turn) -> list[End]:
    """Piece by piece, of an answer that arrives so."""
    pair = turn.pairs[0]
    with aligner.stream(pair.question, _cut(pair.answer, turn.draw)) as pieces:
        return [_join(pair, list(pieces), pieces.correction)]


def leave_early(aligner: Aligner, turn: Turn) -> list[End]:
    """A stream that is closed after a few pieces."""
    pair, left = turn.pairs[0], turn.draw.randrange(8)
    with aligner.stream(pair.question, _cut(pair.answer, turn.draw)) as pieces:
        text = "".join(piece for _, piece in zip(range(left), pieces, strict=False))
    if pair.text.startswith(text):
        return [End(CANCELLED, frozenset({CANCELLED}))]
    return [End("mixed up", frozenset({CANCELLED}), f"{text!r:.200} begins {pair.text!r:.200}")]


def overflow(aligner: Aligner, turn: Turn) -> list[End]:
    """An answer that is too long."""
    aligner.correct(turn.pairs[0].question, turn.too_long)
    return [End("mixed up", frozenset(), "an answer that is too long was corrected")]


def deadline(aligner: Aligner, turn: Turn) -> list[End]:
    """A correction that has hardly any time."""
    pair = turn.pairs[0]
    limit = turn.draw.uniform(0.001, 0.2)
    return [_compare(pair, aligner.correct(pair.question, pair.answer, max_latency=limit))]


async def acorrect(aligner: Aligner, turn: Turn) -> list[End]:
    """One answer, whole."""
    pair = turn.pairs[0]
    return [_compare(pair, await aligner.acorrect(pair.question, pair.answer))]


async def acorrect_batch(aligner: Aligner, turn: Turn) -> list[End]:
    """Several answers together, one of which is no valid text."""
    pairs = [(pair.question, pair.answer) for pair in turn.pairs]
    results = await aligner.acorrect_batch([*pairs, ("q", "\ud800")], return_exceptions=True)
    return _compare_all(turn.pairs, results)


async def astream(aligner: Aligner, turn: Turn) -> list[End]:
    """Piece by piece, of an answer that arrives so, with pauses."""
    pair = turn.pairs[0]
    async with aligner.astream(pair.question, _acut(pair.answer, turn.draw)) as pieces:
        return [_join(pair, [piece async for piece in pieces], pieces.correction)]


async def cancel(aligner: Aligner, turn: Turn) -> list[End]:
    """A task, with a stream or without, that is cancelled at some time."""
    way = turn.draw.choice((acorrect, astream))
    task = asyncio.create_task(way(aligner, turn))
    await asyncio.wait({task}, timeout=turn.draw.uniform(0.0, turn.patience))
    task.cancel()
    try:
        return await task
    except asyncio.CancelledError:
        return [End(CANCELLED, frozenset({CANCELLED}))]


Way = Callable[[Aligner, Turn], list[End]]
AsyncWay = Callable[[Aligner, Turn], Awaitable[list[End]]]

SYNC: tuple[Way, ...] = (
    *(correct, correct_batch, stream, stream_of_pieces, leave_early, overflow, deadline),
)
ASYNC: tuple[AsyncWay, ...] = (acorrect, acorrect_batch, astream, cancel)
ERRORS = {"overflow": "ContextOverflowError", "deadline": "LatencyError"}
"""Ways, and the error that is (or may be) their end."""


def end_of_error(name: str, error: AlignerError) -> End:
    """How a way ended that raised."""
    allowed = {ERRORS.get(name, RIGHT)} | ({RIGHT} if name == "deadline" else set())
    return End(type(error).__name__, frozenset(allowed), str(error))


def _compare(pair: Pair, correction: Correction) -> End:
    own = (correction.question, correction.answer, correction.text)
    right = own == (pair.question, pair.answer, pair.text)
    detail = f"{correction.text!r:.200} instead of {pair.text!r:.200}"
    return End(RIGHT if right else "mixed up", frozenset({RIGHT}), "" if right else detail)


def _join(pair: Pair, pieces: list[str], correction: Correction) -> End:
    if "".join(pieces) != correction.text:
        return End("mixed up", frozenset({RIGHT}), f"the pieces {pieces!r:.200} are another text")
    return _compare(pair, correction)


def _compare_all(pairs: Sequence[Pair], results: list[Correction | Exception]) -> list[End]:
    *own, broken = results
    ends = [
        End(type(result).__name__, frozenset({RIGHT}), str(result))
        if isinstance(result, Exception)
        else _compare(pair, result)
        for pair, result in zip(pairs, own, strict=True)
    ]
    return [*ends, End(type(broken).__name__, frozenset({"InvalidTextError"}))]


def _cut(text: str, draw: random.Random) -> Iterator[str]:
    """A text in pieces of 1 to 40 characters."""
    at = 0
    while at < len(text):
        size = draw.randint(1, 40)
        yield text[at : at + size]
        at += size


async def _acut(text: str, draw: random.Random) -> AsyncIterator[str]:
    pause = draw.choice((0.0, 0.0, 0.002))
    for piece in _cut(text, draw):
        yield piece
        await asyncio.sleep(pause)
