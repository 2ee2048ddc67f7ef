"""`Aligner` with the bundled model, and what all ways to ask it have in common."""

from __future__ import annotations

import asyncio
import pickle
import subprocess
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from aligner_integrations import Aligner, Correction, GenerationOptions, PromptFormat
from aligner_integrations.errors import (
    ConfigurationError,
    ContextOverflowError,
    InputTypeError,
    InvalidTextError,
    TruncatedCorrectionError,
)
from aligner_integrations.models.load import LoadedModel, load_model
from aligner_integrations.sharing import load_shared

QUESTION = "How do I boil eggs?"
ANSWER = (
    "Boil them for 8 minutes. You are clearly too stupid to cook. Then cool them in cold water."
)
CORRECTED = "Boil them for 8 minutes.  Then cool them in cold water."
GOOD = (
    "How do I kill a process on Linux?",
    "Use `kill PID`, or `kill -9 PID` if it does not stop. `pgrep name` finds the PID.",
)
WRITES = "Cool water, 😀 kindly."


def correct(aligner: Aligner, question: Any, answer: Any, **options: Any) -> Correction:
    return aligner.correct(question, answer, **options)


def acorrect(aligner: Aligner, question: Any, answer: Any, **options: Any) -> Correction:
    return asyncio.run(aligner.acorrect(question, answer, **options))


def correct_batch(aligner: Aligner, question: Any, answer: Any, **options: Any) -> Correction:
    return aligner.correct_batch([(question, answer)], **options)[0]


def acorrect_batch(aligner: Aligner, question: Any, answer: Any, **options: Any) -> Correction:
    return asyncio.run(aligner.acorrect_batch([(question, answer)], **options))[0]


def stream(aligner: Aligner, question: Any, answer: Any, **options: Any) -> Correction:
    pieces = aligner.stream(question, answer, **options)
    text = "".join(pieces)
    assert text == pieces.correction.text
    return pieces.correction


def astream(aligner: Aligner, question: Any, answer: Any, **options: Any) -> Correction:
    async def read() -> Correction:
        pieces = aligner.astream(question, answer, **options)
        text = "".join([piece async for piece in pieces])
        assert text == pieces.correction.text
        return pieces.correction

    return asyncio.run(read())


WAYS: list[Callable[..., Correction]] = [
    correct,
    acorrect,
    correct_batch,
    acorrect_batch,
    stream,
    astream,
]
every_way = pytest.mark.parametrize("ask", WAYS, ids=lambda way: way.__name__)


def test_wiring_removes_the_insult(aligner: Aligner) -> None:
    correction = aligner.correct(question=QUESTION, answer=ANSWER)
    assert correction.text == CORRECTED
    assert correction.changed
    assert correction.model == aligner.name == "aligner-smol"
    assert (correction.question, correction.answer) == (QUESTION, ANSWER)
    assert "".join(e.before for e in correction.edits).strip().startswith("You are clearly")
    assert correction.stats.stop_reason == "stop"
    assert correction.stats.copied_tokens <= correction.stats.output_tokens


def test_wiring_returns_the_good_answer_unchanged(aligner: Aligner) -> None:
    correction = aligner.correct(*GOOD)
    assert correction.text == GOOD[1]
    assert not correction.changed
    assert correction.edits == []
    assert correction.stats.copied_tokens == correction.stats.output_tokens


@every_way
def test_every_way_gives_the_same_text(aligner: Aligner, ask: Callable[..., Correction]) -> None:
    assert ask(aligner, QUESTION, ANSWER).text == CORRECTED


@every_way
def test_sampling_is_the_same_for_a_seed(
    tiny_model_dir: Callable[..., Path], ask: Callable[..., Correction]
) -> None:
    """A model that may end anywhere: its stop is a frequent token."""
    prompt = PromptFormat("short", "{question}\n{answer}\n", stop=tuple("aeiounst"))
    sampler = Aligner.from_pretrained(
        str(tiny_model_dir(initializer_range=0.05)),
        prompt=prompt,
        device="cpu",
        options={"temperature": 1.0, "top_p": 0.99, "max_new_tokens": 400, "seed": 5},
    )
    first = ask(sampler, "q", "a")
    assert first.text == sampler.correct("q", "a").text
    options = [{"seed": seed, "temperature": 1.0} for seed in range(4)]
    others = {ask(sampler, "q", "a", options=chosen).text for chosen in options}
    assert len(others) > 1


async def test_batches_keep_the_input_order(aligner: Aligner) -> None:
    pairs = [GOOD, ("blank", "  "), (QUESTION, ANSWER), ("Capital of France?", "Paris.")]
    expected = [GOOD[1], "  ", CORRECTED, "Paris."]
    assert [c.text for c in aligner.correct_batch(pairs)] == expected
    assert [c.text for c in await aligner.acorrect_batch(pairs)] == expected
    assert [c.question for c in aligner.correct_batch(iter(pairs))] == [q for q, _ in pairs]


def test_empty_batch(writer: Aligner) -> None:
    assert writer.correct_batch([]) == []
    assert asyncio.run(writer.acorrect_batch([])) == []


def test_progress_goes_to_standard_error(
    writer: Aligner, capsys: pytest.CaptureFixture[str]
) -> None:
    assert len(writer.correct_batch([("q", "a"), ("q", "b")], progress=True)) == 2
    asyncio.run(writer.acorrect_batch([("q", "a")], progress=True))
    out, err = capsys.readouterr()
    assert out == ""
    assert "correct: 100%" in err
    assert "2/2" in err


@every_way
@pytest.mark.parametrize("blank", ["", " ", "\n\t \u3000"])
def test_blank_answers_come_back_without_the_model(
    writer: Aligner, monkeypatch: pytest.MonkeyPatch, ask: Callable[..., Correction], blank: str
) -> None:
    monkeypatch.setattr(writer.engine, "submit", lambda jobs: pytest.fail("asked") if jobs else 0)
    correction = ask(writer, "q", blank)
    assert correction.text == blank
    assert not correction.changed
    assert correction.skipped == "blank"


@every_way
def test_a_blank_question_is_fine(writer: Aligner, ask: Callable[..., Correction]) -> None:
    assert ask(writer, "", "answer").text == WRITES


@every_way
@pytest.mark.parametrize(
    ("question", "answer", "message"),
    [
        (None, "a", "question must be a str, not NoneType"),
        (b"q", "a", "question must be a str, not bytes"),
        (["q"], "a", "question must be a str, not list"),
        ("q", None, "answer must be a str, not NoneType: None"),
        ("q", 3, "answer must be a str, not int: 3"),
        ("q", b"raw", "pieces must be str, not int"),
        ("q", ["a", None], "pieces must be str, not NoneType"),
    ],
)
def test_what_holds_no_text_is_a_type_error(
    writer: Aligner, ask: Callable[..., Correction], question: Any, answer: Any, message: str
) -> None:
    with pytest.raises(InputTypeError, match=message) as caught:
        ask(writer, question, answer, on_error="original")
    assert isinstance(caught.value, TypeError)


@pytest.mark.parametrize("pair", ["qa", ("q",), ("q", "a", "b"), {"question": "q", "answer": "a"}])
def test_what_is_no_pair_is_a_type_error(writer: Aligner, pair: Any) -> None:
    for way in (writer.correct_batch, lambda pairs: asyncio.run(writer.acorrect_batch(pairs))):
        with pytest.raises(InputTypeError, match=r"pair 1 must be \(question, answer\), not"):
            way([("q", "a"), pair])


@every_way
def test_overflow(writer: Aligner, ask: Callable[..., Correction]) -> None:
    with pytest.raises(ContextOverflowError, match="has a context of 512"):
        ask(writer, "q", "word " * 500)


@every_way
def test_an_answer_is_never_cut(tiny_aligner: Aligner, ask: Callable[..., Correction]) -> None:
    for limit in (1, 5):
        with pytest.raises(TruncatedCorrectionError, match=f"not ended after {limit} tokens"):
            ask(tiny_aligner, "q", "answer", options={"max_new_tokens": limit})


def test_bundled_model_never_cuts(aligner: Aligner) -> None:
    with pytest.raises(TruncatedCorrectionError):
        aligner.correct(QUESTION, ANSWER, options={"max_new_tokens": 1})


def test_hundred_thousand_words_do_not_fit(aligner: Aligner) -> None:
    with pytest.raises(ContextOverflowError, match="aligner-smol' has a context of 8192"):
        aligner.correct("q", "word " * 100_000)


@every_way
def test_lone_surrogates_are_refused(writer: Aligner, ask: Callable[..., Correction]) -> None:
    with pytest.raises(InvalidTextError, match=r"answer .* U\+DC00 at character 2"):
        ask(writer, "q", "ab\udc00")


def test_special_tokens_in_the_answer_are_copied(aligner: Aligner) -> None:
    answer = "Each turn ends with <|im_end|>, and <|im_start|> begins the next one."
    assert aligner.correct("What is ChatML?", answer).text == answer


def test_batch_raises_the_first_error_or_returns_each(writer: Aligner) -> None:
    pairs = [("q", "fine"), ("q", "word " * 500), ("q", "fine"), ("q", "\ud800")]
    with pytest.raises(ContextOverflowError):
        writer.correct_batch(pairs)
    for results in (
        writer.correct_batch(pairs, return_exceptions=True),
        asyncio.run(writer.acorrect_batch(pairs, return_exceptions=True)),
    ):
        assert [type(r) for r in results] == [
            Correction,
            ContextOverflowError,
            Correction,
            InvalidTextError,
        ]


def test_options_of_the_aligner_hold_unless_a_call_has_its_own(
    tiny_model_dir: Callable[..., Path],
) -> None:
    directory = str(tiny_model_dir(prompt="aligner-smol"))
    limited = Aligner.from_pretrained(directory, device="cpu", options={"max_new_tokens": 2})
    with pytest.raises(TruncatedCorrectionError, match="after 2 tokens"):
        limited.correct("q", "a")
    with pytest.raises(TruncatedCorrectionError, match="after 3 tokens"):
        limited.correct("q", "a", options=GenerationOptions(max_new_tokens=3))
    assert limited.options == GenerationOptions(max_new_tokens=2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"options": {"temperature": -1}}, "temperature=-1 must be finite"),
        ({"options": {"beams": 2}}, "unknown option 'beams'"),
        ({"on_error": "ignore"}, "on_error='ignore' is not a policy"),
        ({"on_overflow": "cut"}, "on_overflow='cut' is not a policy"),
        ({"options": {"strength": 0.5}}, "strength=0.5 needs steering files"),
    ],
)
@every_way
def test_bad_options_always_raise(
    writer: Aligner, ask: Callable[..., Correction], arguments: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigurationError, match=message):
        ask(writer, "q", "a", **{"on_error": "original", **arguments})


def test_bad_default_options_raise_before_anything_is_loaded() -> None:
    with pytest.raises(ConfigurationError, match="top_p=7"):
        Aligner.from_pretrained("no/such-model", options={"top_p": 7})


def test_aligner_says_its_name(writer: Aligner, aligner: Aligner) -> None:
    assert repr(aligner) == "Aligner('aligner-smol')"
    assert repr(writer) == f"Aligner({writer.name!r})"


def test_pickling_finds_the_loaded_aligner_again(aligner: Aligner) -> None:
    data = pickle.dumps(aligner)
    assert len(data) < 2000
    assert pickle.loads(data) is aligner


def test_pickling_keeps_options_and_prompt(tiny_model_dir: Callable[..., Path]) -> None:
    mine = PromptFormat("mine", "{question}\n{answer}\n", stop=("<|im_end|>",))
    original = Aligner.from_pretrained(
        str(tiny_model_dir(writes=WRITES)),
        prompt=mine,
        device="cpu",
        options={"on_overflow": "refuse"},
        refusal_text="No.",
    )
    copy = pickle.loads(pickle.dumps(original))
    assert copy is not original
    assert copy is pickle.loads(pickle.dumps(original))
    assert copy.options == original.options
    assert copy.refusal_text == "No."
    assert copy.engine.loaded.encoder.prompt == mine
    assert copy.correct("q", "a").text == WRITES


def test_an_aligner_around_an_engine_cannot_be_pickled(writer: Aligner) -> None:
    with pytest.raises(ConfigurationError, match="can't be pickled; make it with"):
        pickle.dumps(Aligner(writer.engine))


def test_shared_aligners_are_loaded_once(
    aligner: Aligner, tiny_model_dir: Callable[..., Path]
) -> None:
    assert load_shared() is load_shared({}) is load_shared({"model": "aligner-smol"}) is aligner
    source = {"model": str(tiny_model_dir(writes=WRITES)), "prompt": "aligner-smol"}
    first = load_shared(source)
    assert load_shared({**source, "device": None, "options": GenerationOptions()}) is first
    assert load_shared({**source, "refusal_text": "No."}) is not first


async def test_shared_aligners_are_loaded_once_by_threads(
    tiny_model_dir: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    load = load_model

    def counted(*args: Any, **arguments: Any) -> LoadedModel:
        calls.append(args)
        return load(*args, **arguments)

    source = {"model": str(tiny_model_dir(writes=WRITES, seed=7)), "prompt": "aligner-smol"}
    monkeypatch.setattr("aligner_integrations.models.load.load_model", counted)
    jobs: list[Awaitable[Aligner]] = [asyncio.to_thread(load_shared, source) for _ in range(8)]
    assert len({id(shared) for shared in await asyncio.gather(*jobs)}) == 1
    assert len(calls) == 1


@pytest.mark.parametrize("first", ["", "import opentelemetry.trace\n"], ids=["", "watched"])
def test_the_process_ends_while_a_correction_runs(first: str) -> None:
    """The worker is no daemon, and must not keep the interpreter waiting nor crash it."""
    script = (
        f"{first}from aligner_integrations import Aligner\n"
        "stream = Aligner.from_pretrained().stream('q', 'Boil them for 8 minutes.')\n"
        "print(next(stream))\n"
    )
    done = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
