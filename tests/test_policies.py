"""What a caller gets when an answer cannot be corrected."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from aligner_integrations import Aligner, Correction
from aligner_integrations.decoding.rows import Row
from aligner_integrations.errors import (
    ContextOverflowError,
    CorrectionError,
    InvalidTextError,
    TruncatedCorrectionError,
)
from aligner_integrations.options import REFUSAL_TEXT
from tests.passes import on_pass
from tests.test_aligner import every_way

LONG = "a long answer " * 300
AT_ONCE, LATER = 1, 4  # the pass that fails


@pytest.fixture
def fails_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Let the model fail in its n-th pass."""

    def inject(step: int) -> None:
        def fail(rows: list[Row]) -> None:
            if len(rows[0].output) + 1 >= step:
                raise RuntimeError("boom")

        on_pass(monkeypatch, fail)

    return inject


def check(correction: Correction, policy: str, answer: str, reason: str) -> None:
    assert correction.policy == policy
    assert correction.text == (answer if policy == "original" else REFUSAL_TEXT)
    assert correction.changed == (policy == "refuse")
    assert correction.answer == answer
    assert correction.error is not None
    assert reason in correction.error
    assert "\n" not in correction.error
    assert correction.stats.stop_reason == "policy"
    assert correction.record()["policy"] == policy
    assert correction.record()["error"] == correction.error


@every_way
@pytest.mark.parametrize("policy", ["original", "refuse"])
def test_overflow(
    writer: Aligner,
    caplog: pytest.LogCaptureFixture,
    ask: Callable[..., Correction],
    policy: str,
) -> None:
    with caplog.at_level(logging.WARNING, logger="aligner_integrations"):
        correction = ask(writer, "q", LONG, on_overflow=policy)
    check(correction, policy, LONG, "ContextOverflowError: the prompt has")
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert f"not corrected, the caller gets '{policy}': ContextOverflow" in record.getMessage()
    assert "a long answer" not in record.getMessage()


@every_way
def test_overflow_policy_may_be_an_option(writer: Aligner, ask: Callable[..., Correction]) -> None:
    assert ask(writer, "q", LONG, options={"on_overflow": "refuse"}).policy == "refuse"
    correction = ask(writer, "q", LONG, options={"on_overflow": "refuse"}, on_overflow="original")
    assert correction.policy == "original"


@every_way
def test_overflow_and_error_have_their_own_policies(
    writer: Aligner, fails_at: Callable[[int], None], ask: Callable[..., Correction]
) -> None:
    with pytest.raises(ContextOverflowError):
        ask(writer, "q", LONG, on_error="original")
    fails_at(AT_ONCE)
    with pytest.raises(CorrectionError):
        ask(writer, "q", "short", on_overflow="original")


@every_way
@pytest.mark.parametrize("policy", ["original", "refuse"])
def test_error(
    writer: Aligner,
    caplog: pytest.LogCaptureFixture,
    fails_at: Callable[[int], None],
    ask: Callable[..., Correction],
    policy: str,
) -> None:
    fails_at(AT_ONCE)
    with caplog.at_level(logging.WARNING, logger="aligner_integrations"):
        correction = ask(writer, "q", "some answer", on_error=policy)
    check(correction, policy, "some answer", "CorrectionError: ")
    assert f"the caller gets '{policy}'" in caplog.text


@every_way
def test_error_raises_by_default(
    writer: Aligner, fails_at: Callable[[int], None], ask: Callable[..., Correction]
) -> None:
    fails_at(AT_ONCE)
    with pytest.raises(CorrectionError, match=r"failed on a prompt .* RuntimeError\('boom'\)"):
        ask(writer, "q", "some answer")


@pytest.mark.parametrize("policy", ["original", "refuse"])
@every_way
def test_an_error_in_the_middle(
    writer: Aligner,
    fails_at: Callable[[int], None],
    ask: Callable[..., Correction],
    policy: str,
) -> None:
    """What a stream has handed out can't be taken back, so it raises; nobody else needs to."""
    fails_at(LATER)
    if "stream" in ask.__name__:
        with pytest.raises(CorrectionError):
            ask(writer, "q", "some answer", on_error=policy)
    else:
        correction = ask(writer, "q", "some answer", on_error=policy)
        check(correction, policy, "some answer", "CorrectionError: ")


@every_way
@pytest.mark.parametrize("policy", ["original", "refuse"])
def test_truncation(tiny_aligner: Aligner, ask: Callable[..., Correction], policy: str) -> None:
    options = {"max_new_tokens": 6}
    if "stream" in ask.__name__:
        with pytest.raises(TruncatedCorrectionError):
            ask(tiny_aligner, "q", "some answer", options=options, on_error=policy)
    else:
        correction = ask(tiny_aligner, "q", "some answer", options=options, on_error=policy)
        check(correction, policy, "some answer", "TruncatedCorrectionError: ")


@every_way
def test_text_that_is_no_unicode(writer: Aligner, ask: Callable[..., Correction]) -> None:
    correction = ask(writer, "q", "a\ud800", on_error="refuse")
    check(correction, "refuse", "a\ud800", "InvalidTextError: the answer holds the lone")
    with pytest.raises(InvalidTextError):
        ask(writer, "q", "a\ud800", on_overflow="refuse")


def test_a_stream_hands_out_what_the_policy_puts_there(
    writer: Aligner, fails_at: Callable[[int], None]
) -> None:
    fails_at(AT_ONCE)
    assert list(writer.stream("q", iter(["some ", "answer"]), on_error="original")) == [
        "some answer"
    ]
    assert list(writer.stream("q", "x", on_error="refuse")) == [REFUSAL_TEXT]


def test_batch_applies_its_policy_to_each(writer: Aligner) -> None:
    corrections = writer.correct_batch(
        [("q", "fine"), ("q", LONG), ("q", "\ud800")], on_error="refuse", on_overflow="original"
    )
    assert [c.policy for c in corrections] == [None, "original", "refuse"]
    assert corrections[1].text == LONG


def test_refusal_text_may_be_chosen(writer: Aligner) -> None:
    shy = Aligner(writer.engine, refusal_text="Nothing to see.")
    assert shy.correct("q", LONG, on_overflow="refuse").text == "Nothing to see."


@every_way
def test_nothing_is_logged_when_all_goes_well(
    writer: Aligner, caplog: pytest.LogCaptureFixture, ask: Callable[..., Correction]
) -> None:
    with caplog.at_level(logging.DEBUG, logger="aligner_integrations"):
        assert ask(writer, "q", "answer", on_error="original").policy is None
    assert caplog.records == []


def test_records_hold_no_text(writer: Aligner) -> None:
    for correction in (
        writer.correct("a question", "an answer"),
        writer.correct("a question", LONG, on_overflow="original"),
        writer.correct("a question", "an answer\ud800", on_error="refuse"),
    ):
        shown = str(correction.record())
        assert "question" not in shown.replace("question and", "").replace("question or", "")
        assert "an answer" not in shown
        assert "a long answer" not in shown
        assert correction.text not in shown
