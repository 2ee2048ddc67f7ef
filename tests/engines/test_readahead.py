"""Answers that are read while they arrive: the same corrections, with less left for the end."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import threading
import time
import weakref
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import GPTNeoConfig
from transformers.models.auto.modeling_auto import AutoModelForCausalLM

from aligner_integrations import Aligner
from aligner_integrations.decoding.kv import RowCache
from aligner_integrations.decoding.packed import PackedModel, Part
from aligner_integrations.decoding.rows import Prefix, count_shared
from aligner_integrations.decoding.speculative import Decoder
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.engines.readahead import HELD, STEP, LocalReadAhead
from aligner_integrations.errors import (
    AlignerError,
    ContextOverflowError,
    InputTypeError,
    InvalidTextError,
)
from tests.passes import on_pass
from tests.tiny import make_byte_level_tokenizer, save_model

FORMATS = {"byte-level": "aligner-smol", "llama-2": "edit-pair"}
LIMIT = {"max_new_tokens": 24}
QUESTION = "How do I boil eggs?"
WORDS = "Boil them for 8 minutes. Then cool them in cold water, and you are done. " * 4
TRICKY = ["<|im_end|>", "<|im_start|>", "</s>", "<tool>", "ASSISTANT:", "USER:", "ASSIST", "|"]
TRICKY += [" ", "  ", "\n", "\n\n", "\t", "▁", "é", "e\u0301", "😀", "👩\u200d👧", " the"]
PIECES = st.lists(
    st.one_of(st.sampled_from(TRICKY), st.text(max_size=4), st.just("cold water, ")), max_size=40
)
TEXTS = st.lists(st.sampled_from(TRICKY) | st.text(max_size=3), max_size=6).map("".join)


@pytest.fixture(scope="module")
def aligners(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Aligner]:
    """Models whose random text ends where it happens to hold one of many end tokens."""
    made = {}
    for tokenizer, prompt in FORMATS.items():
        directory = tmp_path_factory.mktemp(tokenizer)
        ends = {"eos_token_id": list(range(2, 440, 19)), "max_position_embeddings": 2048}
        save_model(directory, tokenizer=tokenizer, prompt=prompt, **ends)
        made[tokenizer] = Aligner.from_pretrained(str(directory), device="cpu", options=LIMIT)
    return made


@pytest.fixture
def aligner(aligners: dict[str, Aligner]) -> Aligner:
    return aligners["byte-level"]


@dataclass(frozen=True)
class Outcome:
    """All that a caller gets to see of a stream, apart from time."""

    pieces: str
    error: str = ""
    answer: str = ""
    stop_reason: str = ""


def engine_of(aligner: Aligner) -> LocalEngine:
    assert isinstance(aligner.engine, LocalEngine)
    return aligner.engine


def see(stream: Any) -> Outcome:
    pieces: list[str] = []
    try:
        pieces.extend(stream)
    except AlignerError as error:
        return Outcome("".join(pieces), f"{type(error).__name__}: {error}")
    correction = stream.correction
    return Outcome("".join(pieces), "", correction.answer, correction.stats.stop_reason)


async def asee(stream: Any) -> Outcome:
    pieces: list[str] = []
    try:
        async for piece in stream:
            pieces.append(piece)  # noqa: PERF401 - what came before an error counts
    except AlignerError as error:
        return Outcome("".join(pieces), f"{type(error).__name__}: {error}")
    correction = stream.correction
    return Outcome("".join(pieces), "", correction.answer, correction.stats.stop_reason)


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def wait_for_rest(engine: LocalEngine) -> None:
    wait_until(lambda: not engine._working)


def cut(text: str, size: int = 7) -> list[str]:
    return [text[at : at + size] for at in range(0, len(text), size)]


def slowly(engine: LocalEngine, pieces: Sequence[str], every: int = 1) -> Iterator[str]:
    """Pieces from an upstream that is slower than the aligner."""
    for index, piece in enumerate(pieces):
        yield piece
        if index % every == 0:
            wait_for_rest(engine)


async def aslowly(engine: LocalEngine, pieces: Sequence[str]) -> AsyncIterator[str]:
    for piece in pieces:
        yield piece
        await asyncio.to_thread(wait_for_rest, engine)


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[Part]]:
    """The parts of each pass, as they were before it."""
    seen: list[list[Part]] = []
    forward = PackedModel.forward

    def watched(model: PackedModel, parts: Sequence[Part]) -> Any:
        seen.append([Part(part.cache, list(part.tokens), part.wanted) for part in parts])
        return forward(model, parts)

    monkeypatch.setattr(PackedModel, "forward", watched)
    return seen


def count_read(passes: list[list[Part]]) -> int:
    """Tokens that were read, drafts left out."""
    return sum(len(part.tokens) - max(0, part.wanted - 1) for parts in passes for part in parts)


@pytest.mark.parametrize("tokenizer", FORMATS)
@given(question=TEXTS, pieces=PIECES, every=st.integers(1, 9))
def test_same_as_without(
    aligners: dict[str, Aligner], tokenizer: str, question: str, pieces: list[str], every: int
) -> None:
    aligner = aligners[tokenizer]
    wanted = see(aligner.stream(question, "".join(pieces)))
    assert see(aligner.stream(question, slowly(engine_of(aligner), pieces, every))) == wanted
    assert see(aligner.stream(question, iter(pieces))) == wanted


@pytest.mark.parametrize("tokenizer", FORMATS)
@given(question=TEXTS, pieces=PIECES)
@settings(max_examples=30)
def test_same_as_without_async(
    aligners: dict[str, Aligner], tokenizer: str, question: str, pieces: list[str]
) -> None:
    aligner = aligners[tokenizer]
    wanted = see(aligner.stream(question, "".join(pieces)))

    async def ask() -> list[Outcome]:
        slow = aslowly(engine_of(aligner), pieces)
        return [
            await asee(aligner.astream(question, slow)),
            await asee(aligner.astream(question, iter(pieces))),
            await asee(aligner.astream(question, pieces)),
        ]

    assert asyncio.run(ask()) == [wanted] * 3


def test_the_models_of_these_tests_write_different_things(aligners: dict[str, Aligner]) -> None:
    """The comparisons above would mean little if nothing hung on the answer."""
    for aligner in aligners.values():
        seen = [see(aligner.stream("q", WORDS[:n])) for n in range(20, 60)]
        assert len({outcome.pieces for outcome in seen}) > 20
        assert {bool(outcome.error) for outcome in seen} == {True, False}


@pytest.mark.parametrize("tokenizer", FORMATS)
@given(question=TEXTS, pieces=PIECES, at=st.integers(0, 200))
def test_a_beginning_is_the_whole_prompt_up_to_its_last_tokens(
    aligners: dict[str, Aligner], tokenizer: str, question: str, pieces: list[str], at: int
) -> None:
    encoder, answer = engine_of(aligners[tokenizer]).loaded.encoder, "".join(pieces)
    try:
        whole = encoder.encode(question, answer)
    except InvalidTextError:  # a character that this tokenizer has no token for
        return
    beginning = encoder.encode_beginning(question, answer[:at])
    assert count_shared(beginning, whole.ids) >= whole.answer_span[0] - 1
    in_full = encoder.encode_beginning(question, answer)
    assert in_full == whole.ids[: whole.answer_span[1]]


@pytest.mark.parametrize("tokenizer", FORMATS)
def test_most_is_read_before_the_end(
    aligners: dict[str, Aligner], tokenizer: str, passes: list[list[Part]]
) -> None:
    aligner = aligners[tokenizer]
    engine = engine_of(aligner)
    prompt = engine.loaded.encoder.encode(QUESTION, WORDS)
    see(aligner.stream(QUESTION, "now the model is packed and the opening is read"))
    passes.clear()
    before: list[int] = []

    def arrive() -> Iterator[str]:
        yield from slowly(engine, cut(WORDS))
        before.extend([len(passes), count_read(passes)])

    outcome = see(aligner.stream(QUESTION, arrive()))
    count, read = before
    opening, behind = len(engine.loaded.encoder.opening), len(prompt.ids) - prompt.answer_span[1]
    # Of the answer's tokens, none of which is shorter than a character, a step and those held.
    most_left = STEP + HELD + behind
    assert read >= len(prompt.ids) - opening - most_left
    assert read > 0.7 * (len(prompt.ids) - opening)
    assert count <= len(WORDS) / STEP + 2
    (first, *_) = passes[count]
    assert len(first.tokens) - (first.wanted - 1) <= most_left
    assert count_read(passes[: count + 1]) == len(prompt.ids) - opening  # nothing read twice
    assert outcome == see(aligner.stream(QUESTION, WORDS))


def test_the_question_is_read_before_the_answer_begins(
    aligner: Aligner, passes: list[list[Part]]
) -> None:
    question = "Why? " * 30
    see(aligner.stream("q", "a"))
    passes.clear()
    ahead = aligner.read_ahead(question)
    wait_for_rest(engine_of(aligner))
    encoder = engine_of(aligner).loaded.encoder
    start = encoder.encode(question, "").answer_span[0]
    assert count_read(passes) == start - HELD - len(encoder.opening)
    assert see(aligner.stream(question, "Why not?", read_ahead=ahead)) == see(
        aligner.stream(question, "Why not?")
    )


def test_a_long_beginning_is_read_in_chunks(aligner: Aligner, passes: list[list[Part]]) -> None:
    """So that others' passes don't have to wait for all of it."""
    question = "word " * 280
    see(aligner.stream("q", "a"))
    passes.clear()
    ahead = aligner.read_ahead(question)
    wait_for_rest(engine_of(aligner))
    assert len(passes) > 1
    assert max(len(part.tokens) for parts in passes for part in parts) == 512
    outcome = see(aligner.stream(question, "a", read_ahead=ahead))
    assert outcome == see(aligner.stream(question, "a"))


def test_what_is_too_long_to_be_corrected_is_not_read_to_its_end(
    aligner: Aligner, passes: list[list[Part]]
) -> None:
    """Its copy must have room in the context as well, so half of that is enough to know."""
    engine = engine_of(aligner)
    answer = WORDS * 20
    with pytest.raises(ContextOverflowError):
        list(aligner.stream(QUESTION, slowly(engine, cut(answer, 100))))
    wait_for_rest(engine)
    context = engine.loaded.context_length
    assert len(engine.loaded.encoder.encode(QUESTION, answer).ids) > context
    assert 0.3 * context < count_read(passes) < 0.6 * context


def test_it_is_read_in_the_passes_of_others(
    tiny_aligner: Aligner, passes: list[list[Part]]
) -> None:
    question, answer = "Why?", WORDS[:120]
    wanted = see(tiny_aligner.stream(question, answer, options=LIMIT))
    other = tiny_aligner.stream("another", "answer", options={"max_new_tokens": 400})
    next(other)

    def arrive() -> Iterator[str]:
        for piece in cut(answer):
            yield piece
            count = len(passes)
            wait_until(lambda: len(passes) > count + 1)  # noqa: B023 - used up at once

    outcome = see(tiny_aligner.stream(question, arrive(), options=LIMIT))
    other.close()
    wait_for_rest(engine_of(tiny_aligner))
    together = [[part.wanted > 0 for part in parts] for parts in passes]
    assert together.count([True, False]) > 1  # a row that writes, and one that is read
    assert outcome == wanted


@pytest.mark.parametrize(
    ("question", "pieces"),
    [
        (QUESTION, []),
        (QUESTION, [WORDS]),
        (QUESTION, ["something else ", "altogether, and long enough that it is read ahead, too"]),
        (QUESTION, [WORDS, " and more that was taken back"]),
        (QUESTION, [WORDS[:100]]),
        (QUESTION, ["B", *cut(WORDS)]),
        ("Another question?", [WORDS]),
        ("", [WORDS]),
        ("\ud800", [WORDS]),
        (QUESTION, ["\ud800 " * 50]),
        ("word " * 900, [WORDS]),
        (QUESTION, ["word " * 900]),
    ],
)
async def test_a_wrong_hint_changes_nothing(
    aligner: Aligner, question: str, pieces: list[str]
) -> None:
    wanted = see(aligner.stream(QUESTION, WORDS))
    for waits in (False, True):
        hints = []
        for _ in range(2):
            ahead = aligner.read_ahead(question)
            assert ahead is not None
            for piece in pieces:
                ahead.extend(piece)
            hints.append(ahead)
        if waits:
            wait_for_rest(engine_of(aligner))
        one, other = hints
        assert see(aligner.stream(QUESTION, WORDS, read_ahead=one)) == wanted
        assert await asee(aligner.astream(QUESTION, WORDS, read_ahead=other)) == wanted


def test_a_hint_may_be_used_again_and_go_on(aligner: Aligner) -> None:
    ahead = aligner.read_ahead(QUESTION)
    assert ahead is not None
    ahead.extend(WORDS)
    for answer in (WORDS, WORDS[:70], WORDS, "another"):
        wanted = see(aligner.stream(QUESTION, answer))
        assert see(aligner.stream(QUESTION, answer, read_ahead=ahead)) == wanted
        ahead.extend(answer)
    wait_for_rest(engine_of(aligner))


def test_a_hint_may_serve_several_streams_at_once(tiny_aligner: Aligner) -> None:
    """Each must go on with a cache of its own."""
    question, answers = "Why?", [WORDS[:100], WORDS[:100] + "So there!", WORDS[:90], "No."]
    wanted = [see(tiny_aligner.stream(question, answer, options=LIMIT)) for answer in answers]
    ahead = tiny_aligner.read_ahead(question)
    assert ahead is not None
    ahead.extend(answers[0])
    wait_for_rest(engine_of(tiny_aligner))
    streams = [
        tiny_aligner.stream(question, answer, options=LIMIT, read_ahead=ahead) for answer in answers
    ]
    tiny_aligner.engine.submit([job for stream in streams if (job := stream.start())])
    assert [see(stream) for stream in streams] == wanted


def test_a_hint_of_another_engine_is_ignored(aligners: dict[str, Aligner]) -> None:
    one, other = aligners.values()
    ahead = one.read_ahead(QUESTION)
    assert ahead is not None
    ahead.extend(WORDS)
    wait_for_rest(engine_of(one))
    wanted = see(other.stream(QUESTION, WORDS))
    assert see(other.stream(QUESTION, WORDS, read_ahead=ahead)) == wanted


def test_pieces_add_to_a_hint_that_is_given_with_them(aligner: Aligner) -> None:
    wanted = see(aligner.stream(QUESTION, WORDS))
    ahead = aligner.read_ahead(QUESTION)
    assert see(aligner.stream(QUESTION, cut(WORDS), read_ahead=ahead)) == wanted


@pytest.mark.parametrize(
    ("question", "pieces", "error"),
    [
        (QUESTION, [WORDS, "and \ud83d", "\ude00"], InvalidTextError),
        (QUESTION, ["\udc00", WORDS], InvalidTextError),
        ("\ud800", cut(WORDS), InvalidTextError),
        (QUESTION, cut("word " * 900, 50), ContextOverflowError),
        ("word " * 900, cut(WORDS), ContextOverflowError),
    ],
)
async def test_what_cannot_be_corrected_says_so_as_without(
    aligner: Aligner, question: str, pieces: list[str], error: type[Exception]
) -> None:
    answer, engine = "".join(pieces), engine_of(aligner)
    wanted = see(aligner.stream(question, answer))
    assert wanted.error.startswith(error.__name__)
    assert see(aligner.stream(question, slowly(engine, pieces))) == wanted
    assert await asee(aligner.astream(question, aslowly(engine, pieces))) == wanted
    kept = {"on_error": "original", "on_overflow": "original"}
    assert see(aligner.stream(question, slowly(engine, pieces), **kept)).pieces == answer
    assert (await asee(aligner.astream(question, aslowly(engine, pieces), **kept))).pieces == answer
    wait_for_rest(engine)


async def test_blank_answers_cost_no_correction(
    aligner: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aligner.engine, "submit", None)
    for pieces in ([], [""], [" ", "\n" * 100, ""]):
        wanted = Outcome("".join(pieces), "", "".join(pieces), "skipped")
        assert see(aligner.stream(QUESTION, slowly(engine_of(aligner), pieces))) == wanted
        assert await asee(aligner.astream(QUESTION, iter(pieces))) == wanted


async def test_pieces_of_another_kind_are_named(aligner: Aligner) -> None:
    for pieces in (["a", 7], [b"a"], ["a", None]):
        with pytest.raises(InputTypeError, match="the answer's pieces must be str, not"):
            list(aligner.stream(QUESTION, iter(pieces)))  # type: ignore[arg-type]
        with pytest.raises(InputTypeError, match="the answer's pieces must be str, not"):
            await asee_raw(aligner.astream(QUESTION, iter(pieces)))  # type: ignore[arg-type]


async def asee_raw(stream: AsyncIterator[str]) -> list[str]:
    return [piece async for piece in stream]


def test_what_is_dropped_is_freed_and_stops_the_worker(aligner: Aligner) -> None:
    engine = engine_of(aligner)
    ahead = engine.read_ahead(QUESTION)
    assert ahead is not None
    ahead.extend(WORDS)
    wait_for_rest(engine)
    keys = weakref.ref(ahead.prefix.cache.keys[0])
    gone = weakref.ref(ahead)
    assert keys() is not None
    wait_until(lambda: not workers(engine))
    del ahead
    gc.collect()
    assert gone() is None
    assert keys() is None
    assert not engine._due
    assert not list(engine._ahead)


def workers(engine: LocalEngine) -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name == f"aligner {engine.name}"]


@pytest.mark.parametrize("how", ["upstream fails", "closed", "finished", "finished async"])
def test_nothing_is_left_of_a_stream(aligner: Aligner, how: str) -> None:
    engine = engine_of(aligner)
    seen: list[weakref.ref[Any]] = []

    def arrive() -> Iterator[str]:
        for piece in slowly(engine, cut(WORDS)):
            yield piece
            for ahead in list(engine._ahead):
                if ahead.prefix.cache.keys and not seen:
                    seen.append(weakref.ref(ahead))
        if how == "upstream fails":
            raise ConnectionError("upstream hung up")

    if how == "finished async":
        asyncio.run(asee(aligner.astream(QUESTION, arrive())))
    else:
        stream = aligner.stream(QUESTION, arrive())
        with contextlib.suppress(ConnectionError):
            if how == "closed":
                with stream:
                    next(stream)
            else:
                see(stream)
        del stream
    wait_until(lambda: not workers(engine))
    gc.collect()
    assert [ref() for ref in seen] == [None]
    assert not list(engine._ahead)


def test_held_tokens_are_bounded(
    aligner: Aligner, monkeypatch: pytest.MonkeyPatch, passes: list[list[Part]]
) -> None:
    """Answers that arrive together must not take more memory than batches may."""
    engine = LocalEngine(engine_of(aligner).loaded, max_batch_tokens=300)
    wanted = see(Aligner(engine, options=LIMIT).stream(QUESTION, WORDS))
    passes.clear()
    hints = [engine.read_ahead(QUESTION) for _ in range(8)]
    for hint in hints:
        assert hint is not None
        hint.extend(WORDS)
        wait_for_rest(engine)
    assert 0 < count_read(passes) < 1000 < 8 * len(WORDS) / 2
    for hint in hints:
        stream = Aligner(engine, options=LIMIT).stream(QUESTION, WORDS, read_ahead=hint)
        assert see(stream) == wanted


def save_unpackable(directory: Path) -> str:
    """A GPT-Neo, whose attention is no function of transformers' register."""
    shape = {"vocab_size": 448, "hidden_size": 32, "num_heads": 4, "num_layers": 2}
    config = GPTNeoConfig(
        **shape, attention_types=[[["global", "local"], 1]], bos_token_id=1, eos_token_id=2
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(directory)
    make_byte_level_tokenizer().save_pretrained(directory)
    return str(directory)


async def test_a_model_that_cannot_be_packed(tmp_path: Path) -> None:
    """Its answers are not read ahead, and are corrected all the same."""
    directory = save_unpackable(tmp_path)
    for asks_first in (True, False):
        aligner = Aligner.from_pretrained(
            directory, prompt="aligner-smol", device="cpu", options=LIMIT
        )
        engine = engine_of(aligner)
        if asks_first:  # then nobody knows yet that it can't be packed
            first = see(aligner.stream(QUESTION, slowly(engine, cut(WORDS))))
        else:
            first = await asee(aligner.astream(QUESTION, aslowly(engine, cut(WORDS))))
        assert engine._packed is None
        assert aligner.read_ahead(QUESTION) is None
        wanted = see(aligner.stream(QUESTION, WORDS))
        assert wanted.pieces
        assert first == wanted
        assert see(aligner.stream(QUESTION, slowly(engine, cut(WORDS)))) == wanted
        assert await asee(aligner.astream(QUESTION, iter(cut(WORDS)))) == wanted


async def test_without_speculation_nothing_is_read(aligner: Aligner) -> None:
    plain = Aligner(LocalEngine(engine_of(aligner).loaded, speculate=False), options=LIMIT)
    assert plain.read_ahead(QUESTION) is None
    wanted = see(aligner.stream(QUESTION, WORDS))
    assert see(plain.stream(QUESTION, cut(WORDS))) == wanted
    assert await asee(plain.astream(QUESTION, iter(cut(WORDS)))) == wanted


@pytest.mark.parametrize("tokenizer", FORMATS)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
async def test_exact_rows(tiny_model_dir: Callable[..., Path], tokenizer: str, dtype: str) -> None:
    """They read their prompt by themselves, so what was read ahead must not get in."""
    directory = tiny_model_dir(tokenizer=tokenizer, prompt=FORMATS[tokenizer])
    aligner = Aligner.from_pretrained(str(directory), device="cpu", dtype=dtype)
    plain = Aligner(LocalEngine(engine_of(aligner).loaded, speculate=False))
    options = {"exact": True, "max_new_tokens": 30}
    for answer in (WORDS[:60], WORDS[:110], WORDS[:90]):
        wanted = see(plain.stream(QUESTION, answer, options=options))
        assert wanted.pieces
        pieces = slowly(engine_of(aligner), cut(answer))
        assert see(aligner.stream(QUESTION, pieces, options=options)) == wanted
        async_pieces = aslowly(engine_of(aligner), cut(answer))
        assert await asee(aligner.astream(QUESTION, async_pieces, options=options)) == wanted


PAIRS = [(f"Question {n}?", f"Answer {n}: " + WORDS[n : n + 40 + 9 * n]) for n in range(16)]


@pytest.fixture
def expected(aligner: Aligner) -> list[Outcome]:
    outcomes = [see(aligner.stream(*pair)) for pair in PAIRS]
    assert len({outcome.pieces for outcome in outcomes}) > 12
    return outcomes


def test_threads_do_not_mix(aligner: Aligner, expected: list[Outcome]) -> None:
    def ask(n: int) -> Outcome:
        rng = random.Random(n)

        def arrive() -> Iterator[str]:
            for piece in cut(PAIRS[n % 16][1], 1 + n % 13):
                if rng.random() < 0.3:
                    time.sleep(rng.random() / 200)
                yield piece

        return see(aligner.stream(PAIRS[n % 16][0], arrive()))

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(48))) == expected * 3
    wait_for_rest(engine_of(aligner))


async def test_tasks_do_not_mix(aligner: Aligner, expected: list[Outcome]) -> None:
    async def ask(n: int) -> Outcome:
        rng = random.Random(n)

        async def arrive() -> AsyncIterator[str]:
            for piece in cut(PAIRS[n % 16][1], 1 + n % 13):
                await asyncio.sleep(rng.random() / 200 if rng.random() < 0.3 else 0)
                yield piece

        return await asee(aligner.astream(PAIRS[n % 16][0], arrive()))

    assert await asyncio.gather(*map(ask, range(32))) == expected * 2


def test_one_hint_may_grow_in_many_threads(aligner: Aligner) -> None:
    """What arrives in an unknown order is a wrong hint, no more."""
    wanted = see(aligner.stream(QUESTION, WORDS))
    ahead = aligner.read_ahead(QUESTION)
    assert ahead is not None
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(ahead.extend, cut(WORDS, 3)))
    assert see(aligner.stream(QUESTION, WORDS, read_ahead=ahead)) == wanted


class Meddling(LocalReadAhead):
    """Lets another thread begin to read something just when the worker looks at this."""

    begin: Callable[[], Any] | None = None
    _closed = False

    @property
    def closed(self) -> bool:
        if self.begin is not None and threading.current_thread() is not threading.main_thread():
            begin, self.begin = self.begin, None
            thread = threading.Thread(target=begin)
            thread.start()
            thread.join(0.1)  # or it waits its turn
        return self._closed

    @closed.setter
    def closed(self, value: bool) -> None:
        self._closed = value


def test_others_may_begin_while_the_worker_looks_at_all(
    aligner: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = engine_of(aligner)
    see(aligner.stream("q", "a"))
    failures: list[Exception] = []
    isolate = engine._isolate
    monkeypatch.setattr(
        engine, "_isolate", lambda batch, error: failures.append(error) or isolate(batch, error)
    )
    hints: list[Any] = []
    meddling = Meddling(engine.loaded.encoder, QUESTION, 500, engine._wake)
    meddling.begin = lambda: hints.append(engine.read_ahead("Another question?"))
    engine._ahead.add(meddling)
    hints.append(engine.read_ahead(QUESTION))
    wait_for_rest(engine)
    assert len(hints) == 2
    assert failures == []
    assert not any(hint.closed for hint in hints)


def test_a_pass_that_fails_while_it_reads_fails_nobody(
    aligner: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = see(aligner.stream(QUESTION, WORDS))
    with monkeypatch.context() as patch:
        on_pass(patch, fail)
        ahead = engine_of(aligner).read_ahead(QUESTION)
        assert ahead is not None
        ahead.extend(WORDS)
        wait_for_rest(engine_of(aligner))
        assert ahead.closed
    assert see(aligner.stream(QUESTION, WORDS, read_ahead=ahead)) == wanted


def fail(rows: list[Any]) -> None:
    raise RuntimeError("boom")


def test_reading_that_fails_fails_no_row_beside_it(
    tiny_aligner: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when memory suffices for what is written, but not for reading on top of it."""
    options = {"max_new_tokens": 60}
    wanted = see(tiny_aligner.stream("q", "a", options=options))
    make_pass = Decoder._pass

    def fail_with_reading(decoder: Decoder, running: Any, reading: Any) -> Any:
        if reading:
            raise MemoryError("no room")
        return make_pass(decoder, running, reading)

    monkeypatch.setattr(Decoder, "_pass", fail_with_reading)
    stream = tiny_aligner.stream("q", "a", options=options)
    first = next(stream)
    ahead = tiny_aligner.read_ahead(QUESTION)
    outcome = see(stream)
    assert Outcome(first + outcome.pieces, outcome.error) == wanted
    assert ahead is not None


def test_nothing_is_read_that_nobody_asks_for(aligner: Aligner, passes: list[list[Part]]) -> None:
    """A stream begins when it is first asked for a piece."""
    stream = aligner.stream(QUESTION, cut(WORDS))
    assert isinstance(aligner.engine, LocalEngine)
    time.sleep(0.02)
    assert passes == []
    assert not workers(aligner.engine)
    stream.close()


def test_a_few_characters_are_no_reason_to_wake_up(aligner: Aligner) -> None:
    woken: list[LocalReadAhead] = []
    encoder = engine_of(aligner).loaded.encoder
    ahead = LocalReadAhead(encoder, QUESTION, 500, woken.append)

    def begin() -> Prefix:
        return Prefix(RowCache())

    assert ahead.update(begin)  # the question
    ahead.prefix.cache.length = len(ahead.prefix.ids)  # as a pass does
    for letter in WORDS[: STEP - 1]:
        ahead.extend(letter)
    assert woken == []
    assert not ahead.update(begin)
    ahead.extend(WORDS[STEP - 1])
    assert woken == [ahead]
    assert ahead.update(begin)
    assert len(ahead.prefix.unread) <= STEP
