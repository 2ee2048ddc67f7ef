"""The local engine: batches, failures, cancelling and the life of its worker."""

from __future__ import annotations

import gc
import logging
import threading
import time
import traceback
from collections.abc import Callable
from itertools import pairwise
from queue import SimpleQueue
from typing import Any

import pytest
import torch

from aligner_integrations import Aligner, CorrectionStats, GenerationOptions
from aligner_integrations.decoding.rows import Row
from aligner_integrations.engines.base import Event, Finished, Job
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.errors import (
    ConfigurationError,
    ContextOverflowError,
    CorrectionError,
    InvalidTextError,
    TruncatedCorrectionError,
)
from aligner_integrations.models.load import LoadedModel
from tests.passes import on_pass

TEXT = "Cool water, 😀 kindly."


@pytest.fixture
def loaded(writer: Aligner) -> LoadedModel:
    assert isinstance(writer.engine, LocalEngine)
    return writer.engine.loaded


@pytest.fixture(params=[True, False], ids=["speculative", "plain"])
def speculate(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture
def engine(loaded: LoadedModel, speculate: bool) -> LocalEngine:
    return LocalEngine(loaded, speculate=speculate)


class Asked:
    """A job and its events."""

    def __init__(self, answer: str = "some answer", question: str = "q", **options: Any) -> None:
        self.events: SimpleQueue[Event] = SimpleQueue()
        self.job = Job(question, answer, GenerationOptions(**options), self.events.put)

    def wait(self) -> tuple[list[str], Event]:
        """Pieces, and the last event."""
        pieces: list[str] = []
        while isinstance(event := self.events.get(timeout=30), str):
            pieces.append(event)
        return pieces, event


def ask(engine: LocalEngine, *asked: Asked) -> list[tuple[list[str], Event]]:
    engine.submit([one.job for one in asked])
    return [one.wait() for one in asked]


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)


def workers(engine: LocalEngine) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == f"aligner {engine.name}"]


def test_pieces_add_up_to_the_text(engine: LocalEngine) -> None:
    ((pieces, last),) = ask(engine, Asked())
    assert isinstance(last, Finished)
    assert "".join(pieces) == last.text == TEXT
    assert len(pieces) > 5
    assert "😀" in "".join(pieces)
    assert not any("\ufffd" in piece for piece in pieces)


def test_stats(engine: LocalEngine, loaded: LoadedModel, speculate: bool) -> None:
    answer = "Cool it in water, kindly."
    prompt = loaded.encoder.encode("q", answer)
    output = loaded.encoder.encode_output(TEXT)
    started = time.perf_counter()
    ((_, last),) = ask(engine, Asked(answer))
    assert isinstance(last, Finished)
    stats = last.stats
    assert 0 < stats.seconds < time.perf_counter() - started + 0.1
    assert stats == CorrectionStats(
        prompt_tokens=len(prompt.ids),
        output_tokens=len(output),
        copied_tokens=longest_common_subsequence(prompt.answer_ids, output),
        forward_passes=stats.forward_passes,
        near_ties=0,
        smallest_margin=stats.smallest_margin,
        seconds=stats.seconds,
        stop_reason="stop",
        drafted_tokens=stats.drafted_tokens,
        accepted_tokens=stats.accepted_tokens,
        queue_seconds=stats.queue_seconds,
    )
    assert 0 < stats.queue_seconds < stats.seconds
    assert stats.accepted_tokens <= stats.drafted_tokens
    assert bool(stats.drafted_tokens) == speculate
    assert stats.smallest_margin == pytest.approx(21.161, abs=0.01)
    assert 0 < stats.copied_tokens < stats.output_tokens
    plain_passes = len(output) + 1
    assert stats.forward_passes <= plain_passes if speculate else plain_passes


def longest_common_subsequence(a: list[int], b: list[int]) -> int:
    row = [0] * (len(b) + 1)
    for x in a:
        old = 0
        for j, y in enumerate(b, 1):
            old, row[j] = row[j], old + 1 if x == y else max(row[j], row[j - 1])
    return row[-1]


def test_worker_ends_when_idle_and_starts_again(engine: LocalEngine) -> None:
    for _ in range(3):
        ask(engine, Asked())
        wait_until(lambda: not workers(engine))
    assert not engine._working


def test_a_batch_shares_passes(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[list[int]] = []
    on_pass(monkeypatch, lambda rows: passes.append([len(row.prompt) for row in rows]))
    results = ask(engine, *(Asked("word " * n) for n in (9, 1, 5)))
    assert [getattr(last, "text", None) for _, last in results] == [TEXT] * 3
    assert len(passes[0]) == 3
    assert passes[0] == sorted(passes[0])


@pytest.mark.parametrize(
    ("limits", "most"),
    [
        ({}, 7),
        ({"max_batch_size": 3}, 3),
        ({"max_batch_size": 1}, 1),
        ({"max_batch_tokens": 130}, 2),
        ({"max_batch_tokens": 1}, 1),
    ],
)
def test_batches_keep_their_limits(
    loaded: LoadedModel,
    monkeypatch: pytest.MonkeyPatch,
    limits: dict[str, int],
    most: int,
    speculate: bool,
) -> None:
    sizes: list[int] = []
    on_pass(monkeypatch, lambda rows: sizes.append(len(rows)))
    engine = LocalEngine(loaded, speculate=speculate, **limits)
    results = ask(engine, *(Asked("ok") for _ in range(7)))
    assert [getattr(last, "text", None) for _, last in results] == [TEXT] * 7
    assert max(sizes) == most


def test_a_place_that_gets_free_is_taken_at_once(
    loaded: LoadedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Continuous batching: a long job does not hold up those that wait behind a short one."""
    running: list[set[int]] = []
    on_pass(monkeypatch, lambda rows: running.append({id(row) for row in rows}))
    ask(LocalEngine(loaded, max_batch_size=2), *(Asked("word " * n) for n in range(1, 6)))
    assert max(map(len, running)) == 2
    assert len(set().union(*running)) == 5
    assert any(len(one & other) == 1 for one, other in pairwise(running))


def test_a_batch_size_below_one_is_refused(loaded: LoadedModel) -> None:
    with pytest.raises(ConfigurationError, match="max_batch_size=0 must be at least 1"):
        LocalEngine(loaded, max_batch_size=0)


@pytest.mark.parametrize(
    ("asked", "error", "message"),
    [
        (Asked("word " * 300), ContextOverflowError, "has a context of 512; shorten .* on_overfl"),
        (Asked("\ud800"), InvalidTextError, r"lone surrogate U\+D800 at character 0"),
        (Asked(strength=0.5), ConfigurationError, "strength=0.5 needs steering files"),
        (Asked(max_new_tokens=1), TruncatedCorrectionError, "not ended after 1 tokens"),
    ],
)
def test_jobs_that_cannot_be_done_say_so(
    engine: LocalEngine, asked: Asked, error: type[Exception], message: str
) -> None:
    neighbour = Asked()
    (_, last), (_, other) = ask(engine, asked, neighbour)
    with pytest.raises(error, match=message):
        raise last  # type: ignore[misc]
    assert isinstance(other, Finished)
    assert other.text == TEXT


def test_overflow_begins_where_a_full_copy_no_longer_fits(engine: LocalEngine) -> None:
    """The context is 512: of prompt, answer, answer again and 32 more."""

    def measure(length: int) -> int:
        prompt = engine.loaded.encoder.encode("q", "x" * length)
        return len(prompt.ids) + len(prompt.answer_ids) + 32

    fits = max(length for length in range(300) if measure(length) <= 512)
    (_, just), (_, beyond) = ask(engine, Asked("x" * fits), Asked("x" * (fits + 1)))
    assert isinstance(just, Finished)
    assert isinstance(beyond, ContextOverflowError)


def test_input_that_breaks_the_tokenizer_fails_alone(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    encode = engine.loaded.encoder.encode

    def fail(question: str, answer: str) -> Any:
        if answer == "bad":
            raise RuntimeError("odd")
        return encode(question, answer)

    monkeypatch.setattr(engine.loaded.encoder, "encode", fail)
    (_, bad), (_, good) = ask(engine, Asked("bad"), Asked("good"))
    assert isinstance(bad, CorrectionError)
    assert "could not read the input: RuntimeError('odd')" in str(bad)
    assert isinstance(good, Finished)


@pytest.mark.parametrize("fails_at", [1, 2, 6])
@pytest.mark.parametrize("bad_is", [0, 1, 2])
def test_a_failing_row_does_not_take_its_neighbours_along(
    engine: LocalEngine,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    fails_at: int,
    bad_is: int,
) -> None:
    """A row that breaks the model in one of its passes, alone or in company."""
    asked = [Asked("word " * n, f"question {n}") for n in (1, 2, 3)]
    bad = engine.loaded.encoder.encode(asked[bad_is].job.question, asked[bad_is].job.answer).ids
    break_model(monkeypatch, engine, lambda prompt, step: prompt == bad and step >= fails_at)
    with caplog.at_level(logging.WARNING):
        results = ask(engine, *asked)
    for index, (pieces, last) in enumerate(results):
        if index == bad_is:
            assert isinstance(last, CorrectionError)
            assert f"failed on a prompt of {len(bad)} tokens: RuntimeError('boom')" in str(last)
            assert isinstance(last.__cause__, RuntimeError)
        else:
            assert isinstance(last, Finished)
            assert "".join(pieces) == last.text == TEXT
    assert "a batch of 3 failed (RuntimeError('boom'))" in caplog.text


def break_model(
    monkeypatch: pytest.MonkeyPatch, engine: LocalEngine, breaks: Callable[[list[int], int], bool]
) -> None:
    """Let a forward pass raise if any of its rows, by its prompt and step, breaks it."""

    def fail(rows: list[Row]) -> None:
        if any(breaks(row.prompt, len(row.output) + 1) for row in rows):
            raise RuntimeError("boom")

    on_pass(monkeypatch, fail)


def test_an_error_that_is_held_holds_no_keys_and_values(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After one for want of memory, what the batch took must be free again at once."""
    ask(engine, Asked())
    wait_until(lambda: not engine._working)
    gc.collect()
    before = set(map(id, find_caches()))
    with monkeypatch.context() as patch:
        break_model(patch, engine, lambda prompt, step: step >= 3)
        gc.disable()
        try:
            held = [last for _, last in ask(engine, Asked("a"), Asked("b b b"), Asked("c c"))]
            wait_until(lambda: not engine._working)
            assert [one for one in find_caches() if id(one) not in before] == []
        finally:
            gc.enable()
    for error in held:
        assert isinstance(error, CorrectionError)
        assert "in fail" in "".join(traceback.format_exception(error))  # where it came from


def find_caches() -> list[torch.Tensor]:
    """Keys and values: (rows, heads, positions, size)."""
    return [one for one in gc.get_objects() if type(one) is torch.Tensor and one.dim() == 4]


def test_a_failure_of_batches_alone_fails_nobody(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when memory suffices for one row only: half-written rows go on where they were."""
    passes: list[int] = []

    def fail(rows: list[Row]) -> None:
        passes.append(len(rows))
        if len(rows) > 1 and len(passes) > 4:
            raise MemoryError

    on_pass(monkeypatch, fail)
    for pieces, last in ask(engine, Asked("a"), Asked("b b b"), Asked("c c")):
        assert isinstance(last, Finished)
        assert "".join(pieces) == last.text == TEXT
    assert passes[:5] == [3] * 5
    assert set(passes[5:]) == {1}


def test_a_sampler_that_fails_fails_its_row_only(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rows before it in the batch have taken their token already, and must not lose it."""
    from aligner_integrations.decoding.sampling import Sampler

    probabilities = Sampler.probabilities
    calls: list[Any] = []

    def fail(self: Sampler, logits: Any) -> Any:
        calls.append(logits)
        if len(calls) >= 4:
            raise RuntimeError("no distribution")
        return probabilities(self, logits)

    monkeypatch.setattr(Sampler, "probabilities", fail)
    asked = [Asked("a"), Asked("b b", temperature=0.5, seed=1), Asked("c c c")]
    results = ask(engine, *asked)
    for pieces, last in (results[0], results[2]):
        assert isinstance(last, Finished)
        assert "".join(pieces) == last.text == TEXT
    assert isinstance(results[1][1], CorrectionError)


def test_a_failure_while_text_is_made_ends_that_job_only(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = [Asked("a"), Asked("b b"), Asked("c c c")]
    emit = asked[1].job.emit

    def fail(event: Event) -> None:
        if isinstance(event, str):
            raise RuntimeError("full")
        emit(event)

    asked[1].job.emit = fail
    results = ask(engine, *asked)
    assert isinstance(results[1][1], CorrectionError)
    assert [getattr(results[i][1], "text", None) for i in (0, 2)] == [TEXT, TEXT]


def test_failures_end_the_worker_too(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        break_model(patch, engine, lambda prompt, step: True)
        ((_, last),) = ask(engine, Asked())
        assert isinstance(last, CorrectionError)
        wait_until(lambda: not workers(engine))
    ((_, last),) = ask(engine, Asked())
    assert isinstance(last, Finished)


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_worker_that_is_stopped_tells_its_jobs(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*args: Any) -> Any:
        raise SystemExit

    with monkeypatch.context() as patch:
        patch.setattr(engine, "_make_decoder", stop)
        ((_, last),) = ask(engine, Asked())
        assert "SystemExit" in str(last)
        wait_until(lambda: not workers(engine))
    ((_, last),) = ask(engine, Asked())
    assert isinstance(last, Finished)


def test_a_cancelled_job_leaves_within_a_pass(
    tiny_aligner: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert isinstance(tiny_aligner.engine, LocalEngine)
    engine = LocalEngine(tiny_aligner.engine.loaded)
    passes: list[int] = []
    asked = Asked()

    def cancel(rows: list[Row]) -> None:
        passes.append(len(rows))
        if len(passes) == 5:
            asked.job.cancel()

    on_pass(monkeypatch, cancel)
    _, last = ask(engine, asked)[0]
    assert isinstance(last, CorrectionError)
    assert "closed before its end" in str(last)
    assert len(passes) == 5
    wait_until(lambda: not workers(engine))


def test_a_job_cancelled_while_it_waits_costs_no_pass(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    passes: list[int] = []
    on_pass(monkeypatch, lambda rows: passes.append(len(rows)))
    asked = Asked()
    asked.job.cancel()
    _, last = ask(engine, asked)[0]
    assert isinstance(last, CorrectionError)
    wait_until(lambda: not workers(engine))
    assert passes == []


def test_jobs_that_come_while_it_works_are_done_next(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    late = Asked("late")
    sent: list[bool] = []

    def submit(rows: list[Row]) -> None:
        if not sent:
            sent.append(True)
            engine.submit([late.job])

    on_pass(monkeypatch, submit)
    first = ask(engine, Asked("first"))[0]
    assert [getattr(last, "text", None) for _, last in (first, late.wait())] == [TEXT, TEXT]


def test_submitting_nothing_starts_nothing(engine: LocalEngine) -> None:
    wait_until(lambda: not workers(engine))  # of the tests before
    engine.submit([])
    assert not workers(engine)
