"""Which answers are corrected at all, in all six ways to ask."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations import Aligner, Correction, CorrectWhen
from aligner_integrations.decoding.rows import Row
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.gates import is_code, is_json, is_open, read_gate
from tests.passes import on_pass
from tests.test_aligner import WRITES, every_way
from tests.timing import within


@pytest.fixture
def passes(monkeypatch: pytest.MonkeyPatch) -> list[list[Row]]:
    """The rows of every pass of any model."""
    seen: list[list[Row]] = []
    on_pass(monkeypatch, lambda rows: seen.append(rows) if rows else None)
    return seen


def check_skipped(correction: Correction, answer: str, reason: str) -> None:
    assert correction.skipped == reason
    assert correction.text == correction.answer == answer
    assert not correction.changed
    assert correction.policy is correction.error is None
    assert correction.stats.stop_reason == "skipped"
    assert correction.stats.forward_passes == 0
    assert correction.record()["skipped"] == correction.to_dict()["skipped"] == reason


@pytest.mark.parametrize(
    ("gate", "tags", "is_allowed"),
    [
        (CorrectWhen(), (), True),
        (CorrectWhen(longer_than=5), (), True),
        (CorrectWhen(longer_than=6), (), False),
        (CorrectWhen(matches="sw"), (), True),
        (CorrectWhen(matches="^sw"), (), False),
        (CorrectWhen(tags=("beta",)), (), False),
        (CorrectWhen(tags=("beta",)), ("be", "ta"), False),
        (CorrectWhen(tags=("beta", "eu")), ["us", "eu"], True),
        (CorrectWhen(tags=("beta",)), {"beta"}, True),
        (CorrectWhen(longer_than=5, matches="s", tags=("a",)), ("a",), True),
        (CorrectWhen(longer_than=9, matches="s", tags=("a",)), ("a",), False),
        (CorrectWhen(longer_than=5, matches="x", tags=("a",)), ("a",), False),
        (CorrectWhen(longer_than=5, matches="s", tags=("a",)), ("b",), False),
        (lambda q, a: q == "q" and a == "answer", (), True),
        (lambda q, a: 0, (), False),
        (None, (), True),
    ],
)
def test_conditions(gate: Any, tags: Any, is_allowed: bool) -> None:
    assert is_open(gate, "q", "answer", tags) is is_allowed


@pytest.mark.parametrize(
    ("conditions", "shown"),
    [
        ({"longer_than": -1}, "longer_than=-1 must be"),
        ({"longer_than": 1.5}, "longer_than=1.5 must be"),
        ({"longer_than": True}, "longer_than=True must be"),
        ({"longer_than": None}, "longer_than=None must be"),
        ({"matches": "("}, r"matches='\(' is no regular expression"),
        ({"matches": 5}, "matches=5 must be a str"),
        ({"matches": b"x"}, "matches=b'x' must be a str"),
        ({"tags": "beta"}, r"tags='beta' must be a list of tags, such as \['beta'\]"),
        ({"tags": None}, "tags=None must be a list"),
        ({"tags": 3}, "tags=3 must be a list"),
    ],
)
def test_conditions_that_cannot_work(conditions: dict[str, Any], shown: str) -> None:
    with pytest.raises(ConfigurationError, match=shown):
        CorrectWhen(**conditions)
    with pytest.raises(ConfigurationError, match=shown):
        read_gate(conditions)


def test_gates_that_are_none() -> None:
    with pytest.raises(ConfigurationError, match="no condition 'longer'; it has longer_than, mat"):
        read_gate({"longer": 3})
    with pytest.raises(ConfigurationError, match="correct_when=5 must be a function of question"):
        read_gate(5)  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="correct_when='always' must be"):
        read_gate("always")  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "gate", [CorrectWhen(), CorrectWhen(3), CorrectWhen(1, "a|b", ("x", "y")), CorrectWhen(tags=())]
)
def test_a_gate_survives_json(gate: CorrectWhen) -> None:
    assert read_gate(json.loads(json.dumps(gate.to_dict()))) == gate
    assert hash(read_gate(gate.to_dict())) == hash(gate)


def test_tags_may_be_any_collection() -> None:
    assert CorrectWhen(tags=["a", "b"]) == CorrectWhen(tags=("a", "b"))  # type: ignore[arg-type]


CLOSED: list[Any] = [
    CorrectWhen(longer_than=100),
    {"longer_than": 100},
    {"matches": "stupid"},
    {"tags": ["beta"]},
    lambda question, answer: False,
]


@every_way
@pytest.mark.parametrize("gate", CLOSED)
def test_a_closed_gate(
    writer: Aligner, passes: list[Any], ask: Callable[..., Correction], gate: Any
) -> None:
    check_skipped(ask(writer, "q", "answer", correct_when=gate), "answer", "correct_when")
    assert passes == []


@every_way
def test_an_open_gate(writer: Aligner, ask: Callable[..., Correction]) -> None:
    seen = []

    def gate(question: str, answer: str) -> bool:
        seen.append((question, answer))
        return True

    correction = ask(writer, "q", "answer", correct_when=gate)
    assert (correction.text, correction.skipped) == (WRITES, None)
    assert seen == [("q", "answer")]


def give_tags(ask: Callable[..., Correction], tags: list[str]) -> dict[str, Any]:
    return {"tags": [tags] if "batch" in ask.__name__ else tags}


@every_way
def test_tags_open_a_gate(writer: Aligner, ask: Callable[..., Correction]) -> None:
    gate = {"tags": ["beta"]}
    assert ask(writer, "q", "a", correct_when=gate, **give_tags(ask, ["beta"])).text == WRITES
    assert ask(writer, "q", "a", correct_when=gate, **give_tags(ask, ["prod"])).skipped


@every_way
def test_tags_are_no_str(writer: Aligner, ask: Callable[..., Correction]) -> None:
    tags: Any = "b"
    with pytest.raises(ConfigurationError, match=r"tags='b' must be a list of tags, such as"):
        ask(writer, "q", "a", **give_tags(ask, tags))


@every_way
def test_gates_are_checked_before_anything_else(
    writer: Aligner, ask: Callable[..., Correction]
) -> None:
    for gate in (5, {"longer": 1}, {"matches": "("}):
        with pytest.raises(ConfigurationError, match="correct_when"):
            ask(writer, "q", " ", correct_when=gate, on_error="original")


@every_way
def test_an_answer_in_pieces_is_judged_whole(
    writer: Aligner, passes: list[Any], ask: Callable[..., Correction]
) -> None:
    correction = ask(writer, "q", iter(["an", "sw", "er"]), correct_when={"longer_than": 6})
    check_skipped(correction, "answer", "correct_when")
    assert ask(writer, "q", iter(["an", "sw", "er"]), correct_when={"longer_than": 5}).changed


@every_way
def test_an_error_of_the_gate_is_the_callers(
    writer: Aligner, ask: Callable[..., Correction]
) -> None:
    def gate(question: str, answer: str) -> bool:
        raise LookupError("mine")

    with pytest.raises(LookupError, match="mine"):
        ask(writer, "q", "answer", correct_when=gate, on_error="original")


def test_tags_of_a_batch_are_each_pairs_own(writer: Aligner) -> None:
    pairs = [("q", f"answer {index}") for index in range(3)]
    tags = [["beta"], [], {"prod", "beta"}]
    kept = writer.correct_batch(pairs, tags=tags, correct_when={"tags": ["beta"]})
    assert [c.skipped for c in kept] == [None, "correct_when", None]
    kept = asyncio.run(writer.acorrect_batch(pairs, tags=tags, correct_when={"tags": ["beta"]}))
    assert [c.skipped for c in kept] == [None, "correct_when", None]
    with pytest.raises(ConfigurationError, match="there are 3 pairs, but tags for 2"):
        writer.correct_batch(pairs, tags=tags[:2])


JSON = [
    '{"a": 1}',
    "[]",
    "{}",
    ' \n[1, {"b": [null, true, "x"]}]\n ',
    '{"text": "You are stupid.\\n```not code```"}',
    "[" + "7" * 5000 + "]",  # more digits than Python reads
]
NOT_JSON = [
    '"a text"',
    "42",
    "null",
    "{a: 1}",
    '{"a": 1,}',
    "{'a': 1}",
    '{"a": 1} Hope this helps!',
    'Here: {"a": 1}',
    '{"a": 1}\n{"b": 2}',
    "[laughs] You are stupid.",
    '{"a": ',
]
CODE = [
    "```\nx = 1\n```",
    "```python\nx = 1\n\ny = 2\n```\n",
    "  \n~~~sh\nrm -r .\n~~~",
    "````md\n```py\nx\n```\n````",
    "```\n```",
    "```py\r\nx = 1\r\n```\r\n",
    "~~~\n```\nx\n```\n~~~",
]
NOT_CODE = [
    "```\na\n```\n```\nb\n```",
    "```\na\n```\nYou are stupid.\n```\nb\n```",
    "```\na\n  ```\nYou are stupid.\n  ```\nb\n```",
    "```\na\n````\nYou are stupid.\n```",
    "Run this:\n```\nx\n```",
    "```\nx\n```\nYou are stupid.",
    "```a```",
    "```a``` is stupid. ```\nx\n```",
    "`a`",
    "```",
    "```\nx",
    "``\nx\n``",
    "```\nx\n~~~",
    "x = 1",
]


@pytest.mark.parametrize("answer", JSON)
def test_json(answer: str) -> None:
    assert is_json(answer)
    assert not is_code(answer)


@pytest.mark.parametrize("answer", CODE)
def test_code(answer: str) -> None:
    assert is_code(answer)
    assert not is_json(answer)


@pytest.mark.parametrize("answer", [*NOT_JSON, *NOT_CODE, "", " "])
def test_neither(answer: str) -> None:
    assert not is_json(answer)
    assert not is_code(answer)


@given(st.recursive(st.none() | st.floats(allow_nan=False) | st.text(), st.lists))
def test_any_json(value: Any) -> None:
    assert is_json(json.dumps([value]))
    assert is_json(json.dumps({"value": value}, indent=1, ensure_ascii=False))


@given(st.text(alphabet="`~ \nab"), st.text(alphabet="`~ ab"))
def test_code_has_fences_at_both_ends_and_nowhere_between(inner: str, info: str) -> None:
    answer = f"```{info}\n{inner}\n```"
    if is_code(answer):
        assert "`" not in info
        assert not any(line.strip().startswith("```") for line in inner.split("\n"))


@pytest.mark.parametrize(
    "answer",
    [
        "[" * 100_000,
        "[" * 100_000 + "]" * 100_000,
        '{"a":' * 100_000,
        "`" * 100_000 + "\nx",
        "`" * 50_000 + "\n" + "x" * 50_000,
        "```\n" + "\n" * 100_000,
        "```\n" * 30_000,
    ],
)
def test_huge_answers_are_judged_at_once(answer: str) -> None:
    with within(10):
        is_json(answer)
        is_code(answer)


@every_way
@pytest.mark.parametrize(("answer", "kind"), [(JSON[0], "json"), (CODE[1], "code")])
def test_kinds_that_pass_through(
    writer: Aligner, passes: list[Any], ask: Callable[..., Correction], answer: str, kind: str
) -> None:
    check_skipped(ask(writer, "q", answer), answer, kind)
    check_skipped(ask(writer, "q", iter(answer)), answer, kind)
    assert not any(rows for rows in passes if any(row.output for row in rows))
    assert ask(writer, "q", answer, options={"pass_through": []}).text == WRITES
    other = "code" if kind == "json" else "json"
    assert ask(writer, "q", answer, options={"pass_through": [other]}).text == WRITES


@every_way
@pytest.mark.parametrize("answer", [NOT_JSON[6], NOT_CODE[1], "[" * 3])
def test_what_only_looks_like_them_is_corrected(
    writer: Aligner, ask: Callable[..., Correction], answer: str
) -> None:
    correction = ask(writer, "q", answer)
    assert (correction.text, correction.skipped) == (WRITES, None)


def test_reasons_have_an_order(writer: Aligner) -> None:
    closed = {"longer_than": 1000}
    assert writer.correct("q", " \n", correct_when=closed).skipped == "blank"
    assert writer.correct("q", "[1]", correct_when=closed).skipped == "json"


@pytest.mark.parametrize("mode", ["sync", "async"])
async def test_a_gate_that_fails_for_one_of_a_batch(writer: Aligner, mode: str) -> None:
    def gate(question: str, answer: str) -> bool:
        if question == "bad":
            raise ZeroDivisionError("gate")
        return False

    pairs = [("good", "A"), ("bad", "B"), ("good", "C")]
    arguments = {"correct_when": gate, "return_exceptions": True}
    if mode == "sync":
        results = writer.correct_batch(pairs, **arguments)
    else:
        results = await writer.acorrect_batch(pairs, **arguments)
    assert [getattr(r, "text", repr(r)) for r in results] == ["A", "ZeroDivisionError('gate')", "C"]
    with pytest.raises(ZeroDivisionError):
        writer.correct_batch(pairs, correct_when=gate)
