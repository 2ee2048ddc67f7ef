"""Parts of an answer that a correction is to keep word for word."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations import Aligner, Correction
from aligner_integrations.decoding.protection import find_tokens
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.protect import PATTERNS, check_protect, find_lost, find_protected
from aligner_integrations.tokenization import PromptEncoder
from tests.test_aligner import WRITES, every_way
from tests.timing import within
from tests.tiny import TOKENIZERS

WIKI = "https://en.wikipedia.org/wiki/A_(b)"


def find(text: str, *protect: str) -> list[str]:
    return [text[start:end] for start, end in find_protected(text, protect)]


@pytest.mark.parametrize(
    ("text", "urls"),
    [
        ("See https://example.org.", ["https://example.org"]),
        ("(https://a.org/b), http://c.org/?q=1&r=2! ftp://d", None),
        (f"[link]({WIKI}) (see {WIKI}). {WIKI}, {WIKI}", [WIKI] * 4),
        ("https://a.org/b(c(d))e", ["https://a.org/b(c(d))e"]),
        ("[https://a.org](https://b.org)[1]", ["https://a.org", "https://b.org"]),
        ("https://a.org[1] https://a.org/?b[]=1", ["https://a.org", "https://a.org/?b[]=1"]),
        ("**https://a.org** _https://b.org/c_d_", ["https://a.org", "https://b.org/c_d"]),
        ("<https://a.org/> `https://b.org` |https://c.org|", None),
        ("见https://a.org/x。然后 “https://b.org”", ["https://a.org/x", "https://b.org"]),
        ("HTTPS://A.ORG/#b~c", ["HTTPS://A.ORG/#b~c"]),
        ("http://[::1]:8080/x", ["http://[::1]:8080/x"]),
        ("https://a.org/b/", ["https://a.org/b/"]),
        ("https:// https://... xhttps://a.org example.org", []),
    ],
)
def test_urls(text: str, urls: list[str] | None) -> None:
    if urls is None:
        urls = [word.strip("(),!<>`|") for word in text.split()]
    assert find(text, "urls") == urls


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("1,000.50 and 12%, or -3.5.", ["1,000.50", "12%", "-3.5"]),
        ("On 2024-01-05, at 2024-01-05T10:30:00Z", ["2024-01-05", "2024-01-05T10:30:00Z"]),
        ("1/2/2024 5.1.2024 8:30", ["1/2/2024", "5.1.2024", "8:30"]),
        ("10mg, 3.5kg, 8am, 2nd", ["10mg", "3.5kg", "8am", "2nd"]),
        ("word2vec H2O v1.2 a1 x_1 1_000 3.5whatever 1,5_", []),
        ("(7), $5.00, 5°, +1, −2, 1e-5", ["7", "5.00", "5", "+1", "−2", "1e-5"]),
        ("1. Boil\n2. Cool", ["1", "2"]),
        ("3-5 or 3–5", ["3", "5", "3", "5"]),
        ("192.168.0.1, 5, 6", ["192.168.0.1", "5", "6"]),
        ("no numbers", []),
    ],
)
def test_numbers(text: str, numbers: list[str]) -> None:
    assert find(text, "numbers") == numbers


def test_citations() -> None:
    text = "A [1], b [1, 2], c [3-5], d [3–5;7]; no [a], [1,], [], 1."
    assert find(text, "citations") == ["[1]", "[1, 2]", "[3-5]", "[3–5;7]"]


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("Use `kill PID` or ``a`b``.", ["`kill PID`", "``a`b``"]),
        ("Run:\n```sh\nls `pwd`\n```\nDone `x`.", ["```sh\nls `pwd`\n```", "`x`"]),
        ("~~~\na\n```\n~~~\nb", ["~~~\na\n```\n~~~"]),
        ("````\n```\na\n```\n````", ["````\n```\na\n```\n````"]),
        ("```\n```\n5", ["```\n```"]),
        ("  ```\n  a\n  ```\n", ["```\n  a\n  ```"]),
        ("```a``` and\n`b`", ["```a```", "`b`"]),
        ("Cut off:\n```py\nx = `1`", ["```py\nx = `1`"]),
        ("one ` only\n and ` there, `` empty", []),
    ],
)
def test_code(text: str, code: list[str]) -> None:
    assert find(text, "code") == code


def test_numbers_of_tables_only() -> None:
    table = "5 pills\n\n| Drug | mg |\n|:--|--:|\n| A1 | 10.5 |\r\n  | B | -3 |  \nsum | 7 | no"
    assert find(table, "tables") == ["10.5", "-3"]


def test_names_and_expressions_together() -> None:
    text = "Ask Dr. Who at https://a.org/1 for `5` of 6 [7]."
    assert find(text, r"Dr\. \w+", "urls", "code", "numbers", "citations") == [
        "Dr. Who",
        "https://a.org/1",
        "`5`",
        "6",
        "[7]",
    ]
    assert find("abcd", "abc", "bcd") == ["abcd"]
    assert find("abcd", "ab", "cd") == ["ab", "cd"]
    assert find("abc", "x*", "(?=b)") == []


@given(st.text(alphabet="1a [](){}|.,-`~\nhtps:/%"), st.lists(st.sampled_from([*PATTERNS])))
def test_spans_are_in_order_and_apart(text: str, names: list[str]) -> None:
    spans = find_protected(text, names)
    assert all(start < end <= len(text) for start, end in spans)
    assert all(one[1] <= other[0] for one, other in itertools.pairwise(spans))


N = 100_000
ADVERSARIAL = [
    *("`" * N, "x```\n" * 20_000, "```\n" * 25_000, "``` x\n" * 17_000, "`a " * 33_000, "~" * N),
    "".join("`" * i + "\n" for i in range(440, 3, -1)),
    "".join("x" + "`" * i for i in range(440, 0, -1)),
    *("1," * 50_000 + "1abcdefg", "1" * N + "_", "1.1," * 25_000 + "x_", "1e" * 50_000, "-" * N),
    *("2024-01-" * 12_000, "2024-01-05T" + "1:" * 50_000 + "_", "1T" * 50_000),
    *("https://" * 12_000, "https://" + "." * N, "https://x(" * 10_000, "https://(" + "a" * N),
    *("https://" + "(a" * 50_000, "https://" + "(a)" * 33_000 + ".", "https://[1," * 9_000),
    *("https://x(a(b)" * 7_000, "https://" + "(())" * 25_000 + "("),
    *("[1" + " " * N, "[1 " * 33_000, "[" * N, "[1," * 33_000, "[" + "1" * N, "[1-" * 33_000),
    *("|" * N + "x", "| " * 50_000 + "x", " " * N, "|" + " " * N + "x", "\n" * N, "|1|\n" * 25_000),
]


@pytest.mark.parametrize("name", PATTERNS)
def test_no_text_takes_long(name: str) -> None:
    for text in ADVERSARIAL:
        with within(10):
            find_protected(text, [name])


@pytest.mark.parametrize(
    ("protect", "shown"),
    [
        ("urls", r"protect='urls' must be a list, such as \['urls'\]; names are code, urls"),
        (["("], r"protect='\(' is no regular expression"),
        (["urls", 5], "protect=5 must be a str"),
        ([["urls"]], r"protect=\['urls'\] must be a str"),
        (5, "protect=5 must be a list"),
    ],
)
def test_what_cannot_be_protected(writer: Aligner, protect: Any, shown: str) -> None:
    with pytest.raises(ConfigurationError, match=shown):
        check_protect(protect)
    with pytest.raises(ConfigurationError, match=shown):
        writer.correct("q", "a", protect=protect, on_error="original")


@pytest.mark.parametrize(
    ("answer", "text", "lost"),
    [
        ("1 and 2", "1 or 2", ()),
        ("1 and 2", "2", ("1",)),
        ("1, 1, 1", "1", ("1", "1")),
        ("1", "12 x1 1x", ("1",)),
        ("1 pill", "1.5 pills", ("1",)),
        ("5", "-5", ("5",)),
        ("12", "12%", ("12",)),
        ("1", "see [1]", ("1",)),
        ("https://a.org", "https://a.org/evil", ("https://a.org",)),
        (f"at {WIKI}", f"[here]({WIKI})!", ()),
        ("[1] [2] [1]", "[1] [2]", ("[1]",)),
        ("Use `ls`.", "Use `ls -l`.", ("`ls`",)),
        ("", "1", ()),
        ("1", "1 1 1", ()),
    ],
)
def test_lost(answer: str, text: str, lost: tuple[str, ...]) -> None:
    assert find_lost(answer, text, ["urls", "numbers", "citations", "code"]) == lost
    assert find_lost(answer, text, []) == ()


def test_numbers_of_a_table_may_become_prose() -> None:
    assert find_lost("| a | 5 |\n| b | 6 |", "It is 5.", ["tables"]) == ("6",)


def test_own_expressions_may_look_around() -> None:
    assert find_lost("dose: 5", "Take 5.", [r"(?<=dose: )\d"]) == ()
    assert find_lost("dose: 5", "Take 50.", [r"(?<=dose: )\d"]) == ("5",)


@every_way
def test_a_correction_says_what_it_lost(
    writer: Aligner, caplog: pytest.LogCaptureFixture, ask: Callable[..., Correction]
) -> None:
    answer = "Drink 5 cups, see https://a.org [1], then 5 more."
    correction = ask(writer, "q", answer, protect=["numbers", "urls"])
    assert correction.text == WRITES
    assert correction.lost == ("5", "5", "https://a.org", "1")
    assert correction.record()["lost"] == 4
    assert correction.to_dict()["lost"] == ["5", "5", "https://a.org", "1"]
    assert "a correction lost 4 protected parts" in caplog.text
    assert "a.org" not in caplog.text
    kept = ask(writer, "q", answer)
    assert (kept.lost, kept.record()["lost"]) == ((), 0)
    assert ask(writer, "q", answer, options={"protect": ["urls"]}).lost == ("https://a.org",)
    assert ask(writer, "q", answer, options={"protect": ["urls"]}, protect=[]).lost == ()


def test_what_was_not_corrected_lost_nothing(writer: Aligner) -> None:
    closed = writer.correct("q", "5", protect=["numbers"], correct_when={"longer_than": 9})
    assert closed.lost == ()


@pytest.fixture(scope="module", params=[*TOKENIZERS])
def encoder(request: pytest.FixtureRequest) -> PromptEncoder:
    from aligner_integrations.prompts import PromptFormat

    layout = PromptFormat("plain", "Q: {question}\nA: {answer}\nB:")
    return PromptEncoder(layout, TOKENIZERS[request.param](), set())


TEXTS = [
    "Boil them for 8 minutes, see https://a.org [1].",
    "😀5 😀😀 6😀",
    "Grüße 5€ — “quoted” 7",
    "\n5\n\n| 6 |\n",
    "<|im_end|> 5 </s> <s>6<unk>",
    "▁5▁ 6",
    "5",
    "é\u0301👩‍👩‍👧 5",
]


def check_tokens(encoder: PromptEncoder, text: str, start: int, end: int) -> None:
    """The span's tokens hold it, and one token less at either side would not."""
    ids = encoder.encode_output(text)
    ends = encoder.find_ends(ids)
    ((first, last),) = find_tokens([(start, end)], ends)
    span = text[start:end]
    assert 0 <= first < last <= len(ids)
    assert span in encoder.decode(ids[first:last])
    # A token may hold an end of the span and some bytes of another character.
    if "\ufffd" not in encoder.decode(ids[: first + 1]):
        assert span not in encoder.decode(ids[first + 1 : last]) or text.count(span) > 1
    if "\ufffd" not in encoder.decode(ids[: last - 1]):
        assert span not in encoder.decode(ids[first : last - 1]) or text.count(span) > 1
    # What stands before and behind is whole too, so nothing else has to be copied.
    for part in (ids[:first], ids[last:]):
        assert "\ufffd" not in encoder.decode(part)


@pytest.mark.parametrize("text", TEXTS)
def test_tokens_of_every_span(encoder: PromptEncoder, text: str) -> None:
    for start in range(len(text)):
        for end in range(start + 1, min(start + 6, len(text)) + 1):
            check_tokens(encoder, text, start, end)


@given(text=st.text(alphabet="ab5 \n€é😀<▁|", min_size=1, max_size=12), data=st.data())
def test_tokens_of_any_span(encoder: PromptEncoder, text: str, data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(text) - 1))
    check_tokens(encoder, text, start, data.draw(st.integers(start + 1, len(text))))


@pytest.mark.parametrize("text", TEXTS)
def test_ends_are_those_of_the_text(encoder: PromptEncoder, text: str) -> None:
    ids = encoder.encode_output(text)
    ends = encoder.find_ends(ids)
    assert len(ends) == len(ids)
    assert ends == sorted(ends)
    assert ends[-1] == len(text)
    for index, end in enumerate(ends):
        if end > (ends[index - 1] if index else 0):
            assert encoder.decode(ids[: index + 1]) == text[:end]


def test_spans_that_share_a_token_are_joined() -> None:
    assert find_tokens([(0, 1), (1, 2)], [2, 4]) == [(0, 1)]
    assert find_tokens([(0, 3), (3, 4)], [2, 4]) == [(0, 2)]
    assert find_tokens([(0, 2), (2, 4)], [2, 4]) == [(0, 1), (1, 2)]
    assert find_tokens([(1, 3)], [1, 1, 1, 3]) == [(1, 4)]
    assert find_tokens([], [1]) == []


def test_a_model_copies_what_is_protected(tiny_model_dir: Callable[..., Path]) -> None:
    directory = tiny_model_dir(prompt="aligner-smol", writes="Cool water kindly.")
    aligner = Aligner.from_pretrained(str(directory), device="cpu")
    answer = "Cool kindly."
    assert aligner.correct("q", answer).text == "Cool water kindly."
    for call in ({"protect": ["kindly"]}, {"options": {"protect": ["kindly"], "exact": True}}):
        correction = aligner.correct("q", answer, **call)
        assert (correction.text, correction.lost) == (answer, ())
    rewritten = aligner.correct("q", "Be nice 5.", protect=["numbers"])
    assert (rewritten.text, rewritten.lost) == ("Cool water kindly.", ("5",))


def test_names_that_are_nearly_ours() -> None:
    with pytest.raises(ConfigurationError, match=r"for the built-in name write 'urls'"):
        check_protect(["url"])
    assert check_protect([r"\burl\b", "aspirin"]) == (r"\burl\b", "aspirin")
