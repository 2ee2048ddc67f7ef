"""How many answers may wait, and how batches that are larger than that are handed to the engine."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from aligner_integrations import Aligner, Correction
from aligner_integrations.batches import WINDOW
from aligner_integrations.decoding.rows import Row
from aligner_integrations.engines.base import Event, Finished, Job
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.errors import (
    AlignerError,
    ConfigurationError,
    ContextOverflowError,
    CorrectionError,
    InputTypeError,
    InvalidTextError,
    QueueFullError,
    TruncatedCorrectionError,
)
from aligner_integrations.options import REFUSAL_TEXT
from tests.passes import on_pass

WRITES = "Cool water, 😀 kindly."
MANY = 2 * WINDOW + 37

Batch = Callable[..., list[Any]]


def batch(aligner: Aligner, pairs: Sequence[Any], **kwargs: Any) -> list[Any]:
    return aligner.correct_batch(pairs, **kwargs)


def abatch(aligner: Aligner, pairs: Sequence[Any], **kwargs: Any) -> list[Any]:
    return asyncio.run(aligner.acorrect_batch(pairs, **kwargs))


both_ways = pytest.mark.parametrize("correct", [batch, abatch], ids=["sync", "async"])


def engine_of(aligner: Aligner) -> LocalEngine:
    assert isinstance(aligner.engine, LocalEngine)
    return aligner.engine


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


@pytest.fixture
def make(writer: Aligner) -> Callable[..., Aligner]:
    """The writer in an engine with other limits."""

    def make(**limits: Any) -> Aligner:
        return Aligner(LocalEngine(engine_of(writer).loaded, **limits))

    return make


@pytest.fixture
def crowds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many jobs the engine had that were not done, after each that it got."""
    lock, under_way, seen = threading.Lock(), [0], []
    submit = LocalEngine.submit

    def count(engine: LocalEngine, jobs: Sequence[Job]) -> None:
        for job in jobs:
            with lock:
                under_way[0] += 1
                seen.append(under_way[0])
            job.emit = watch(job.emit)
        submit(engine, jobs)

    def watch(emit: Callable[[Event], None]) -> Callable[[Event], None]:
        def watched(event: Event) -> None:
            if not isinstance(event, str):
                with lock:
                    under_way[0] -= 1
            emit(event)

        return watched

    monkeypatch.setattr(LocalEngine, "submit", count)
    return seen


def test_a_queue_of_nothing_is_refused(writer: Aligner) -> None:
    with pytest.raises(ConfigurationError, match="max_waiting=0 must be at least 1"):
        LocalEngine(engine_of(writer).loaded, max_waiting=0)


@both_ways
def test_those_beyond_the_limit_are_told(make: Callable[..., Aligner], correct: Batch) -> None:
    """The shortest are taken, as they are done first."""
    aligner = make(max_waiting=3, max_batch_size=2)
    pairs = [("q", "word " * n) for n in (9, 2, 7, 1, 5, 4)]
    results = correct(aligner, pairs, return_exceptions=True)
    kinds = [type(result) for result in results]
    assert kinds == [
        QueueFullError,
        Correction,
        QueueFullError,
        Correction,
        QueueFullError,
        Correction,
    ]
    assert {result.text for result in results if isinstance(result, Correction)} == {WRITES}
    message = str(results[0])
    assert f"3 answers wait for '{aligner.name}' already" in message
    assert "try again later, or raise max_waiting" in message
    with pytest.raises(QueueFullError):
        correct(aligner, pairs)
    wait_until(lambda: not engine_of(aligner)._working)
    assert {c.text for c in correct(aligner, pairs[:3])} == {WRITES}  # and it goes on


@both_ways
def test_policies_hold_for_those_beyond_the_limit(
    make: Callable[..., Aligner], correct: Batch
) -> None:
    aligner = make(max_waiting=1)
    pairs = [("q", "word " * n) for n in (1, 2)]
    for policy, text in (("original", "word word "), ("refuse", REFUSAL_TEXT)):
        done, full = correct(aligner, pairs, on_error=policy)
        assert (done.text, done.policy) == (WRITES, None)
        assert (full.text, full.policy) == (text, policy)
        assert full.error.startswith("QueueFullError: 1 answers wait")
        assert full.stats.stop_reason == "policy"
    (_, error) = correct(aligner, pairs, on_overflow="original", return_exceptions=True)
    assert isinstance(error, QueueFullError)  # it is no overflow of the context


def hold(monkeypatch: pytest.MonkeyPatch) -> tuple[threading.Event, threading.Event]:
    """Let passes wait; returns what tells that one does, and what lets it go on."""
    begun, go_on = threading.Event(), threading.Event()

    def wait(rows: list[Row]) -> None:
        begun.set()
        assert go_on.wait(20)

    on_pass(monkeypatch, wait)
    return begun, go_on


async def test_those_that_run_do_not_wait(
    make: Callable[..., Aligner], monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, go_on = hold(monkeypatch)
    aligner = make(max_waiting=2, max_batch_size=1)
    tasks = [asyncio.create_task(aligner.acorrect("q", "first"))]
    assert await asyncio.to_thread(begun.wait, 20)
    tasks += [asyncio.create_task(aligner.acorrect("q", answer)) for answer in ("second", "third")]
    await asyncio.to_thread(wait_until, lambda: len(engine_of(aligner)._waiting) == 2)
    with pytest.raises(QueueFullError):
        await aligner.acorrect("q", "fourth")
    stream = aligner.astream("q", "fifth", on_error="original")
    assert [piece async for piece in stream] == ["fifth"]
    go_on.set()
    assert [c.text for c in await asyncio.gather(*tasks)] == [WRITES] * 3
    assert (await aligner.acorrect("q", "fourth")).text == WRITES


def test_cancelled_jobs_give_up_their_places(
    make: Callable[..., Aligner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Clients that hung up wait no longer, so they are no reason to turn others away."""
    begun, go_on = hold(monkeypatch)
    aligner = make(max_waiting=2, max_batch_size=1)
    first = aligner.stream("q", "first")
    reader = threading.Thread(target=first.read)
    reader.start()
    assert begun.wait(20)
    events: list[Event] = []
    jobs = [Job("q", "a", aligner.options, events.append) for _ in range(2)]
    aligner.engine.submit(jobs)
    for job in jobs:
        job.cancel()
    later = aligner.stream("q", "later")
    job_later = later.start()
    assert job_later is not None
    aligner.engine.submit([job_later])
    go_on.set()
    reader.join(20)
    assert first.correction.text == WRITES
    assert later.read().text == WRITES
    wait_until(lambda: len(events) == 2)
    assert all(isinstance(event, CorrectionError) for event in events)


@both_ways
def test_results_of_many_are_in_order(
    tiny_model_dir: Callable[..., Path], correct: Batch, crowds: list[int]
) -> None:
    """With a model that writes another text for each, so that none can be mixed up."""
    ends = list(range(2, 440, 7))
    directory = tiny_model_dir(prompt="aligner-smol", eos_token_id=ends)
    aligner = Aligner.from_pretrained(str(directory), device="cpu")
    pairs = [(f"Question {n}?", f"Answer {n * n}, {'word ' * (n % 5)}") for n in range(MANY)]
    options = {"max_new_tokens": 12}
    results = correct(aligner, pairs, options=options, return_exceptions=True)
    assert len(results) == MANY
    done = [index for index, result in enumerate(results) if isinstance(result, Correction)]
    assert len(done) > MANY / 3
    assert len({results[index].text for index in done}) > 20
    for index in done:
        assert (results[index].question, results[index].answer) == pairs[index]
    for index in range(0, MANY, 11):
        if index in done:
            wanted = aligner.correct(*pairs[index], options=options).text
            assert results[index].text == wanted
        else:
            with pytest.raises(TruncatedCorrectionError):
                aligner.correct(*pairs[index], options=options)
    assert max(crowds) <= WINDOW


@both_ways
def test_a_window_is_all_that_the_engine_has(
    make: Callable[..., Aligner], correct: Batch, crowds: list[int]
) -> None:
    results = correct(make(), [("q", f"a {n}") for n in range(MANY)])
    assert [result.text for result in results] == [WRITES] * MANY
    assert [result.answer for result in results] == [f"a {n}" for n in range(MANY)]
    assert len(crowds) == MANY
    assert max(crowds) == WINDOW


@both_ways
def test_batches_are_larger_than_the_queue(make: Callable[..., Aligner], correct: Batch) -> None:
    """A batch of any size fits a queue that has room for its window."""
    aligner = make(max_waiting=WINDOW)
    results = correct(aligner, [("q", f"a {n}") for n in range(MANY)])
    assert [result.text for result in results] == [WRITES] * MANY


@both_ways
def test_a_few_more_than_a_window(make: Callable[..., Aligner], correct: Batch) -> None:
    for count in (0, 1, WINDOW - 1, WINDOW, WINDOW + 1):
        results = correct(make(), [("q", f"a {n}") for n in range(count)])
        assert [result.answer for result in results] == [f"a {n}" for n in range(count)]


@both_ways
def test_blank_answers_take_no_place(
    make: Callable[..., Aligner], correct: Batch, crowds: list[int]
) -> None:
    """A window full of them must not end the batch."""
    answers = [" " * n for n in range(WINDOW + 5)] + ["a", "\n", "b"] + [""] * WINDOW + ["c"]
    results = correct(make(), [("q", answer) for answer in answers])
    assert [r.text for r in results] == [a if not a.strip() else WRITES for a in answers]
    assert len(crowds) == 3


@both_ways
def test_errors_in_the_middle_take_their_own_places(
    make: Callable[..., Aligner], correct: Batch
) -> None:
    bad = {5: "\ud800", 127: "word " * 300, 128: "\udfff", 200: "word " * 300, MANY - 1: "\ud800"}
    pairs = [("q", bad.get(n, f"a {n}")) for n in range(MANY)]
    aligner = make()
    results = correct(aligner, pairs, return_exceptions=True)
    for index, result in enumerate(results):
        if index not in bad:
            assert (result.text, result.answer) == (WRITES, f"a {index}")
        else:
            kind = ContextOverflowError if "word" in bad[index] else InvalidTextError
            assert type(result) is kind
    results = correct(aligner, pairs, on_error="original", on_overflow="refuse")
    assert [results[index].policy for index in bad] == [
        "original",
        "refuse",
        "original",
        "refuse",
        "original",
    ]
    assert results[200].text == REFUSAL_TEXT
    with pytest.raises(InvalidTextError):
        correct(aligner, pairs)


@both_ways
def test_the_first_error_ends_the_rest(
    make: Callable[..., Aligner], correct: Batch, crowds: list[int]
) -> None:
    """Nobody waits for what comes behind it, so it is not even begun."""
    pairs = [("q", "\ud800" if n == 3 else f"a {n}") for n in range(MANY)]
    aligner = make()
    with pytest.raises(InvalidTextError):
        correct(aligner, pairs)
    assert len(crowds) <= WINDOW + 3
    assert aligner.correct("q", "a").text == WRITES


@both_ways
@pytest.mark.parametrize("at", [3, WINDOW + 50])
def test_what_is_no_answer_raises(make: Callable[..., Aligner], correct: Batch, at: int) -> None:
    pairs: list[Any] = [("q", 7 if n == at else f"a {n}") for n in range(MANY)]
    aligner = make()
    with pytest.raises(InputTypeError, match="answer must be a str, not int"):
        correct(aligner, pairs)
    assert aligner.correct("q", "a").text == WRITES


def test_a_batch_that_is_interrupted_frees_the_model(
    make: Callable[..., Aligner], monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []

    on_pass(monkeypatch, lambda rows: passes.append(len(rows)))
    aligner = make()

    async def ask() -> None:
        task = asyncio.create_task(aligner.acorrect_batch([("q", f"a {n}") for n in range(MANY)]))
        await asyncio.to_thread(wait_until, lambda: len(passes) >= 3)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(ask())
    count = len(passes)
    assert aligner.correct("q", "a").text == WRITES
    assert len(passes) < count + 40


def test_progress_counts_all(
    make: Callable[..., Aligner], capsys: pytest.CaptureFixture[str]
) -> None:
    results = make().correct_batch([("q", f"a {n}") for n in range(MANY)], progress=True)
    assert len(results) == MANY
    assert f"{MANY}/{MANY}" in capsys.readouterr().err


def test_answers_of_a_batch_may_come_in_pieces(make: Callable[..., Aligner]) -> None:
    def arrive(text: str) -> Iterator[str]:
        yield from text

    pairs: list[Any] = [("q", arrive(f"answer {n}")) for n in range(WINDOW + 20)]
    results = make().correct_batch(pairs)
    assert [result.answer for result in results] == [f"answer {n}" for n in range(WINDOW + 20)]
    assert {result.text for result in results} == {WRITES}


def test_threads_share_the_queue(make: Callable[..., Aligner]) -> None:
    """Whoever finds it full is told, all others are served, and nobody waits for ever."""
    aligner = make(max_waiting=4, max_batch_size=2)
    results: list[Any] = []

    def ask(n: int) -> None:
        try:
            results.append(aligner.correct("q", f"a {n}").text)
        except AlignerError as error:
            results.append(type(error))

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(24)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert len(results) == 24
    assert set(results) <= {WRITES, QueueFullError}
    assert results.count(WRITES) >= 4
    assert not engine_of(aligner)._waiting


def test_finished_jobs_are_events_as_ever(make: Callable[..., Aligner]) -> None:
    events: list[Event] = []
    done = threading.Event()

    def emit(event: Event) -> None:
        events.append(event)
        if not isinstance(event, str):
            done.set()

    aligner = make(max_waiting=1)
    aligner.engine.submit([Job("q", "a", aligner.options, emit)])
    assert done.wait(20)
    assert isinstance(events[-1], Finished)
