"""Which replica is asked, by a clock of our own."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from aligner_integrations.engines.replicas import Replica, Replicas
from aligner_integrations.engines.retries import AttemptError
from aligner_integrations.errors import TruncatedCorrectionError


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def make(clock: Clock, count: int = 2, **limits: Any) -> Replicas:
    settings = {"breaker_failures": 2, "breaker_seconds": 10.0, **limits}
    return Replicas([f"http://h{i}/v1" for i in range(count)], clock=clock, **settings)


def fail(replicas: Replicas, replica: Replica, **how: Any) -> None:
    with contextlib.suppress(AttemptError), replicas.use(replica):
        raise AttemptError("no", **how)


def succeed(replicas: Replicas, replica: Replica) -> None:
    with replicas.use(replica):
        pass


def test_least_loaded_then_least_asked(clock: Clock) -> None:
    replicas = make(clock, 3)
    one, two, three = replicas.all
    with replicas.use(one), replicas.use(two):
        assert replicas.choose() is three
        with replicas.use(three), replicas.use(three):
            assert replicas.choose() is one
    assert replicas.choose() is one  # in turn where nobody is busy
    succeed(replicas, one)
    assert replicas.choose() is two


def test_one_that_was_tried_comes_last(clock: Clock) -> None:
    replicas = make(clock)
    one, two = replicas.all
    assert replicas.choose({one}) is two
    assert replicas.choose({one, two}) in (one, two)
    assert replicas.has_fresh({one})
    assert not replicas.has_fresh({one, two})


def test_breaker(clock: Clock) -> None:
    replicas = make(clock, 1)
    [one] = replicas.all
    fail(replicas, one)
    assert replicas.choose() is one
    fail(replicas, one)
    assert replicas.choose() is None
    assert replicas.find_rest() is None
    assert replicas.find_probe() == 10
    clock.now += 10
    assert replicas.choose() is one
    with contextlib.suppress(AttemptError), replicas.use(one):
        assert replicas.choose() is None  # a single probe
        raise AttemptError("still")
    for seconds in (20, 40, 80, 80):
        assert replicas.find_probe() == seconds
        clock.now += seconds
        fail(replicas, one)
    clock.now += 80
    succeed(replicas, one)
    assert (one.open_until, one.failures, one.openings) == (None, 0, 0)


def test_failures_must_follow_each_other(clock: Clock) -> None:
    replicas = make(clock, 1)
    [one] = replicas.all
    for _ in range(5):
        fail(replicas, one)
        succeed(replicas, one)
    assert one.open_until is None


def test_late_failures_do_not_keep_it_open(clock: Clock) -> None:
    replicas = make(clock, 1)
    [one] = replicas.all
    with contextlib.suppress(AttemptError), replicas.use(one):
        fail(replicas, one)
        fail(replicas, one)
        clock.now += 9
        raise AttemptError("was sent before it opened")
    assert replicas.find_probe() == 1


def test_a_cancelled_probe_is_none(clock: Clock) -> None:
    replicas = make(clock, 1)
    [one] = replicas.all
    fail(replicas, one)
    fail(replicas, one)
    clock.now += 10
    with contextlib.suppress(KeyboardInterrupt), replicas.use(one):
        raise KeyboardInterrupt
    assert replicas.choose() is one


def test_an_answer_of_no_use_is_an_answer(clock: Clock) -> None:
    replicas = make(clock, 1)
    [one] = replicas.all
    fail(replicas, one)
    with contextlib.suppress(TruncatedCorrectionError), replicas.use(one):
        raise TruncatedCorrectionError("too long")
    assert one.failures == 0


def test_rest(clock: Clock) -> None:
    replicas = make(clock)
    one, two = replicas.all
    fail(replicas, one, broken=False, after=30.0)
    assert [replicas.choose() for _ in range(3)] == [two] * 3
    fail(replicas, two, broken=False, after=50.0)
    assert replicas.choose() is None
    assert replicas.find_rest() == 30
    clock.now += 30
    assert replicas.choose() is one


def test_a_broken_one_is_probed_first(clock: Clock) -> None:
    replicas = make(clock)
    one, two = replicas.all
    fail(replicas, one)
    fail(replicas, one)
    assert replicas.choose() is two
    clock.now += 10
    assert replicas.choose() is one
    with replicas.use(one):
        assert replicas.choose() is two
