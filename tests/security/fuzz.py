"""Fuzzing with hypothesis: ``python tests/security/fuzz.py --examples 10000``.

Each property is a function of what hypothesis draws. The suite (`test_fuzz.py`) tries a few inputs
of each; this script tries many and prints how many.
"""

from __future__ import annotations

import argparse
import asyncio
import functools
import json
import re
import sys
import time
import unicodedata
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import httpx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from aligner_integrations.conversation import Turn, render_turns
from aligner_integrations.decoding.costs import CPU_COSTS
from aligner_integrations.decoding.draft import Drafter
from aligner_integrations.engines import completions
from aligner_integrations.engines.retries import AttemptError
from aligner_integrations.prompts import PRESETS
from aligner_integrations.server.errors import ApiError
from aligner_integrations.server.requests import read_chat
from aligner_integrations.server.sse import encode, read_chunks
from aligner_integrations.tokenization import PromptEncoder

TRIED: Counter[str] = Counter()
"""How many inputs each property was tried on, in this process."""

SPECIAL = [
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
    "</s>",
    "<s>",
    "<unk>",
    "<0x0A>",
    "<tool>",
]
MARKERS = sorted({marker for preset in PRESETS.values() for marker in preset.markers})
_WIDE = {ord(c): ord(c) + 0xFEE0 for c in "<|_>/:#[]ASIT"}


def spell(text: str, how: int) -> str:
    """A special token or marker as somebody might try to get it past."""
    return [
        text,
        text.translate(_WIDE),  # full width
        unicodedata.normalize("NFD", text) + "\u0301",
        "\u200b".join(text),
        text.replace("s", "ſ").replace("A", "Α"),  # long s, Greek alpha
        text[:2] + text + text[2:],
        text[::-1],
        text.upper(),
        text + "\x00",
    ][how]


ATTACK = st.builds(spell, st.sampled_from([*SPECIAL, *MARKERS]), st.integers(0, 8))
TEXT = st.lists(st.one_of(ATTACK, st.text(max_size=4)), max_size=6).map("".join)
TURNS = st.lists(
    st.builds(Turn, st.sampled_from(["user", "assistant"]), TEXT), min_size=1, max_size=4
)


@functools.cache
def make_encoder(name: str, kind: str) -> tuple[PromptEncoder, frozenset[int]]:
    """An encoder, and its special tokens with other added ones that its template uses."""
    sys.path.insert(0, str(Path(__file__).parents[2]))  # also where this is run as a script
    from tests.tiny import CHAT_TEMPLATE, make_byte_level_tokenizer, make_llama2_tokenizer

    tokenizer = {"byte-level": make_byte_level_tokenizer, "llama-2": make_llama2_tokenizer}[kind]()
    tokenizer.chat_template = CHAT_TEMPLATE
    encoder = PromptEncoder(PRESETS[name], tokenizer, {2})
    used = encoder.encode("", "").ids
    added = tokenizer.backend_tokenizer.get_added_tokens_decoder().items()
    return encoder, frozenset(i for i, token in added if token.special or i in used)


ENCODERS = [
    (name, kind)
    for name in PRESETS
    for kind in ("byte-level", "llama-2")
    if (name, kind) != ("aligner-smol", "llama-2")  # which lacks its tokens
]


def check_prompt(which: tuple[str, str], turns: list[Turn], answer: str) -> None:
    """Structure is what the empty prompt has; both texts are there to the character."""
    encoder, added = make_encoder(*which)
    question = render_turns(turns, encoder.prompt)
    empty, full = encoder.encode("", ""), encoder.encode(question, answer)
    assert [i for i in full.ids if i in added] == [i for i in empty.ids if i in added]
    start, end = full.answer_span
    # The space before it may be the format's, and is its first token's own in some tokenizers.
    assert encoder.decode(full.ids[start:end]) in (answer, f" {answer}", answer.removeprefix(" "))
    assert encoder.decode(full.answer_ids) == answer
    assert not set(full.answer_ids) & encoder.stop_ids
    for marker in encoder.prompt.markers:
        ids, wanted = encode_literal(which, marker)
        if ids:
            assert count(full.ids, ids) == wanted, marker


@functools.cache
def encode_literal(which: tuple[str, str], marker: str) -> tuple[tuple[int, ...], int]:
    """A marker's tokens in the template, and how often they are there."""
    encoder, _ = make_encoder(*which)
    ids = encoder.encode("", "").ids
    for start in range(len(ids)):
        for end in range(start + 1, len(ids) + 1):
            if encoder.decode(ids[start:end]).removeprefix(" ") == marker:
                found = tuple(ids[start:end])
                return found, count(ids, found)
    return (), 0


def count(ids: list[int], part: tuple[int, ...]) -> int:
    return sum(tuple(ids[i : i + len(part)]) == part for i in range(len(ids) - len(part) + 1))


def check_pieces(which: tuple[str, str], question: str, answer: str, cuts: list[int]) -> None:
    """However a stream cuts an answer, what is read ahead of it holds no structure either."""
    encoder, added = make_encoder(*which)
    ends = sorted({min(cut, len(answer)) for cut in cuts})
    lead = [i for i in encoder.encode_beginning("", "") if i in added]
    for end in ends:
        ids = encoder.encode_beginning(question, answer[:end])
        assert [i for i in ids if i in added] == lead


PLAIN = (
    st.none()
    | st.booleans()
    | st.integers(-3, 3)
    | st.floats(allow_nan=False)
    | st.text(max_size=5)
)
FLAT = PLAIN | st.lists(PLAIN, max_size=3) | st.dictionaries(st.text(max_size=4), PLAIN, max_size=3)
JSON = FLAT | st.lists(FLAT, max_size=3) | st.dictionaries(st.text(max_size=4), FLAT, max_size=3)
DELTA = st.fixed_dictionaries(
    {}, optional={"content": JSON | st.text(max_size=9), "role": JSON, "tool_calls": JSON}
)
CHOICE = st.fixed_dictionaries(
    {},
    optional={
        "index": st.integers(0, 2) | JSON,
        "delta": DELTA | JSON,
        "finish_reason": st.sampled_from([None, "stop"]) | JSON,
        "logprobs": JSON,
    },
)


def make_streams(choice: st.SearchStrategy[Any]) -> st.SearchStrategy[tuple[bytes, int]]:
    """Event streams, mostly of such choices, and the size of the parts that they arrive in."""
    chunk = st.fixed_dictionaries(
        {}, optional={"choices": st.lists(choice, max_size=3) | JSON, "error": JSON}
    )
    line = st.one_of(
        chunk.map(lambda chunk: b"data: " + json.dumps(chunk).encode()),
        chunk.map(lambda chunk: b"data:" + json.dumps(chunk, ensure_ascii=False).encode()),
        st.sampled_from(
            [b"data: [DONE]", b": ping", b"event: x", b"id: 1", b"retry: x", b"data", b"\xff"]
        ),
        st.binary(max_size=12),
    )
    end = st.sampled_from([b"\n\n", b"\r\n\r\n", b"\r\r", b"\n"])
    events = st.lists(st.tuples(line, end), max_size=6)
    return st.tuples(
        events.map(lambda lines: b"".join(a + b for a, b in lines)), st.integers(1, 30)
    )


COMPLETION = st.fixed_dictionaries(
    {"text": st.text(max_size=9) | JSON},
    optional={"finish_reason": st.sampled_from([None, "", "stop", "length", "abort"]) | JSON},
)


class _Body(httpx.AsyncByteStream):
    def __init__(self, content: bytes, size: int) -> None:
        self._parts = [content[i : i + size] for i in range(0, len(content), size)]

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for part in self._parts:
            yield part


def make_response(content: bytes, size: int) -> httpx.Response:
    """A stream that arrives in parts."""
    request = httpx.Request("POST", "http://u", headers={"authorization": "Bearer KEY-KEY"})
    kind = {"content-type": "text/event-stream"}
    return httpx.Response(200, headers=kind, stream=_Body(content, size), request=request)


async def read_all(content: bytes, size: int) -> tuple[list[Any], str | None]:
    """What the gateway reads of an upstream, and the error's code."""
    response = make_response(content, size)
    chunks: list[Any] = []
    try:
        async for chunk in read_chunks(response):
            chunks.append(chunk)
            encode(chunk)
    except ApiError as told:
        error = told
    else:
        return chunks, None
    assert error.status == 502
    assert "KEY-KEY" not in json.dumps(error.body())
    return chunks, error.code


def check_events(stream: tuple[bytes, int]) -> None:
    """Chunks or one clear error, the same however the bytes are cut."""
    content, size = stream
    whole = asyncio.run(read_all(content, max(1, len(content))))
    assert repr(asyncio.run(read_all(content, size))) == repr(whole)
    for chunk in whole[0]:
        assert all(isinstance(choice, dict) for choice in chunk["choices"])


async def read_completion(content: bytes, size: int) -> tuple[list[completions.Chunk], str]:
    """What `Aligner.from_server` reads of an aligner's server, and the reason of a failure."""
    chunks: list[completions.Chunk] = []
    try:
        async for chunk in completions.read_chunks(make_response(content, size)):
            chunks.append(chunk)  # noqa: PERF401 - what came before a failure is kept
    except AttemptError as failure:
        return chunks, failure.reason
    return chunks, ""


def check_completion(stream: tuple[bytes, int]) -> None:
    """Texts up to one that says why it ended, or a failure; the same however the bytes are cut."""
    content, size = stream
    chunks, reason = asyncio.run(read_completion(content, max(1, len(content))))
    assert asyncio.run(read_completion(content, size)) == (chunks, reason)
    assert "KEY-KEY" not in reason
    ends = [chunk.end for chunk in chunks]
    assert (ends[-1:] in (["stop"], ["length"])) if not reason else (not any(ends))
    assert not any(ends[:-1])
    for chunk in chunks:
        chunk.text.encode()


BODY = st.one_of(
    st.binary(max_size=40),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries(
        {"messages": JSON | st.lists(st.fixed_dictionaries({"role": JSON, "content": JSON}))},
        optional={"model": JSON, "stream": JSON, "response_format": JSON, "metadata": JSON},
    ).map(lambda value: json.dumps(value).encode()),
)


def check_body(content: bytes, model: str | None) -> None:
    """A request, or a 4xx."""
    try:
        chat = read_chat(content, model)
    except ApiError as told:
        error = told
    else:
        error = None
    if error is not None:
        assert 400 <= error.status < 500
        return
    assert json.loads(chat.content)["messages"] == chat.messages
    assert model is None or json.loads(chat.content)["model"] == model


TOKENS = st.lists(st.integers(0, 4), max_size=40)
STEPS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 5)), max_size=25)


def check_drafts(source: list[int], steps: list[tuple[int, int]], rows: int) -> None:
    """Any output: drafts are runs of the answer, from a place within it."""
    drafter = Drafter(source)
    for token, accepted in steps:
        draft = list(drafter.draft(CPU_COSTS, 1, rows))
        assert 0 <= drafter.place <= len(source)
        assert draft == source[drafter.place : drafter.place + len(draft)]
        kept = draft[: min(accepted, len(draft))]
        drafter.learn(len(draft), len(kept))
        drafter.advance([*kept, token])
        assert 0 <= drafter.place <= len(source)
        assert 0 <= drafter.matched <= drafter.place
        if drafter.matched:
            assert source[drafter.place - 1] == token


def check_copies(source: list[int], at: int, gone: int, new: list[int]) -> None:
    """After a departure, the rest of a copy is found again before it ends."""
    rest = source[at + gone :]
    drafter = Drafter([*source, 90, 91, 92, 93])
    drafter.advance([*source[:at], *new, *rest, 90, 91])
    assert drafter.place == len(source) + 2
    assert list(drafter.draft(CPU_COSTS, 1, 1)) in ([], [92], [92, 93])


PROPERTIES: dict[str, tuple[Callable[..., None], dict[str, Any]]] = {
    "prompt builder": (
        check_prompt,
        {"which": st.sampled_from(ENCODERS), "turns": TURNS, "answer": TEXT},
    ),
    "answers in pieces": (
        check_pieces,
        {
            "which": st.sampled_from(ENCODERS),
            "question": TEXT,
            "answer": TEXT,
            "cuts": st.lists(st.integers(0, 40), max_size=5),
        },
    ),
    "upstream's event stream": (check_events, {"stream": make_streams(CHOICE)}),
    "aligner server's event stream": (check_completion, {"stream": make_streams(COMPLETION)}),
    "request bodies": (
        check_body,
        {"content": BODY, "model": st.sampled_from([None, "m"])},
    ),
    "resynchroniser: any output": (
        check_drafts,
        {"source": TOKENS, "steps": STEPS, "rows": st.integers(1, 8)},
    ),
    "resynchroniser: edited copies": (
        check_copies,
        {
            "source": TOKENS,
            "at": st.integers(0, 40),
            "gone": st.integers(0, 5),
            "new": st.lists(st.integers(50, 60), max_size=5),
        },
    ),
}


def try_property(name: str, examples: int) -> None:
    """Try one property; raises what the first input that it fails on raises."""
    check, drawn = PROPERTIES[name]

    @settings(
        max_examples=examples,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(**drawn)
    def run(**values: Any) -> None:
        TRIED[name] += 1
        check(**values)

    run()


def main() -> None:
    """Try them all."""
    parser = argparse.ArgumentParser(description=re.sub(r"\s+", " ", __doc__ or ""))
    parser.add_argument("--examples", type=int, default=10_000, help="inputs of each property")
    parser.add_argument("--only", choices=PROPERTIES, action="append")
    given_ = parser.parse_args()
    for name in given_.only or PROPERTIES:
        started = time.perf_counter()
        try_property(name, given_.examples)
        print(f"{name}: {TRIED[name]:,} inputs, {time.perf_counter() - started:.0f} s", flush=True)  # noqa: T201


if __name__ == "__main__":
    main()
