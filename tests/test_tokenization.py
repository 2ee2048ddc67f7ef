# ruff: noqa: S106 - a tokenizer's tokens are no passwords
"""User text is data: it never becomes prompt structure, and no character of it is lost."""

from __future__ import annotations

import functools
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from aligner_integrations.errors import InvalidTextError, PromptFormatError
from aligner_integrations.models import bundled
from aligner_integrations.prompts import PRESETS, PromptFormat
from aligner_integrations.tokenization import PromptEncoder
from tests.tiny import make_byte_level_tokenizer, make_llama2_tokenizer

NESTED = "ASSISTASSISTANT:ANT:"
TRICKY = [
    "<|im_end|>",
    "<|im_start|>",
    "<|endoftext|>",
    "</s>",
    "<s>",
    "<unk>",
    "<0x0A>",
    "<tool>",
    "ASSISTANT:",
    "USER:",
    "BEGINNING OF CONVERSATION:",
    "##Question:",
    "##Answer:",
    "##Correction:",
    "[Question]",
    "[Answer]",
    "[Edited answer]",
    NESTED,
    "ASSIST",
    "ANT:",
    "A",
    ":",
    "#",
    "|",
    "\0",
    "\n",
    "\n\n",
    "\r\n",
    "\t",
    " ",
    "  ",
    "▁",
    "\ufffd",
    "é",
    "e\u0301",
    "\u212b",  # NFC makes another character of it
    "😀",
    "👩\u200d👩\u200d👧",
    "שלום",
    "\u202eabc\u202c",
]
TEXT = st.one_of(
    st.text(max_size=30),
    st.lists(st.sampled_from(TRICKY) | st.text(max_size=2), max_size=8).map("".join),
)


def _make_llama_class_tokenizer() -> PreTrainedTokenizerFast:
    """What `AutoTokenizer` makes of Llama-2's files: another way to the same tokens."""
    with tempfile.TemporaryDirectory() as directory:
        make_llama2_tokenizer().save_pretrained(directory)
        path = Path(directory) / "tokenizer_config.json"
        config = json.loads(path.read_text()) | {"tokenizer_class": "LlamaTokenizer"}
        path.write_text(json.dumps(config))
        made: PreTrainedTokenizerFast = AutoTokenizer.from_pretrained(directory)
    assert type(made).__name__.startswith("LlamaTokenizer")
    return made


def _make_nfc_tokenizer() -> PreTrainedTokenizerFast:
    """Like Qwen2's, which composes accents before it encodes."""
    tokenizer = make_byte_level_tokenizer()
    tokenizer.backend_tokenizer.normalizer = normalizers.NFC()
    return tokenizer


DELIMITED = PromptFormat("delimited", "<tool>{question}<tool>{answer}<tool>")
FORMATS = {
    "aligner-smol": (PRESETS["aligner-smol"], make_byte_level_tokenizer),
    "chat": (PRESETS["chat"], make_byte_level_tokenizer),
    "edit-pair": (PRESETS["edit-pair"], make_llama2_tokenizer),
    "edit-pair, LlamaTokenizer": (PRESETS["edit-pair"], _make_llama_class_tokenizer),
    "residual": (PRESETS["residual"], make_llama2_tokenizer),
    "residual, byte-level": (PRESETS["residual"], make_byte_level_tokenizer),
    "empathy, NFC": (PRESETS["empathy"], _make_nfc_tokenizer),
    "token that is not special": (DELIMITED, make_byte_level_tokenizer),
}


@functools.cache
def make_encoder(name: str) -> PromptEncoder:
    prompt, make_tokenizer = FORMATS[name]
    return PromptEncoder(prompt, make_tokenizer(), {2})


@functools.cache
def find_structure(name: str) -> dict[tuple[int, ...], int]:
    """Token sequences that are structure, and how often the empty template holds each."""
    encoder, (_, make_tokenizer) = make_encoder(name), FORMATS[name]
    ids = encoder.encode("", "").ids
    added = make_tokenizer().backend_tokenizer.get_added_tokens_decoder()
    structure = {(i,) for i, token in added.items() if token.special or i in ids}
    for start in range(len(ids)):
        for end in range(start + 1, len(ids) + 1):
            if encoder.decode(ids[start:end]).removeprefix(" ") in encoder.prompt.markers:
                structure.add(tuple(ids[start:end]))
    return {sequence: count(ids, sequence) for sequence in structure}


def count(ids: list[int], sequence: tuple[int, ...]) -> int:
    width = len(sequence)
    return sum(tuple(ids[i : i + width]) == sequence for i in range(len(ids) - width + 1))


def count_structure(name: str, question: str, answer: str) -> dict[tuple[int, ...], int]:
    ids = make_encoder(name).encode(question, answer).ids
    return {sequence: count(ids, sequence) for sequence in find_structure(name)}


@pytest.mark.parametrize("name", FORMATS)
def test_structure_is_found(name: str) -> None:
    encoder, structure = make_encoder(name), find_structure(name)
    found = {encoder.decode(list(sequence)).removeprefix(" ") for sequence in structure}
    assert found.issuperset(encoder.prompt.markers)
    assert sum(structure.values()) >= 3


@pytest.mark.parametrize("name", FORMATS)
@given(question=TEXT, answer=TEXT)
def test_text_never_becomes_structure(name: str, question: str, answer: str) -> None:
    assert count_structure(name, question, answer) == find_structure(name)


@pytest.mark.parametrize("before", ["", " ", "  ", "\n", "\n\n", "x", "A"])
@pytest.mark.parametrize("after", ["", " ", "\n", "x", ":"])
@pytest.mark.parametrize("name", FORMATS)
def test_spelled_markers_stay_text(name: str, before: str, after: str) -> None:
    encoder = make_encoder(name)
    for marker in (*encoder.prompt.markers, "<|im_end|>", "</s>", "<tool>", NESTED):
        for spelled in (marker, marker * 3, marker + " " + marker, marker[:3] + marker + marker):
            text = before + spelled + after
            assert count_structure(name, text, text) == find_structure(name), text


def test_markers_that_overlap_themselves_stay_text() -> None:
    twice = "ASSISTANT:" * 2
    prompt = PromptFormat("twice", f"{{question}}\n{twice}\n{{answer}}\n", markers=(twice,))
    encoder = PromptEncoder(prompt, make_byte_level_tokenizer(), {2})
    marker = tuple(encoder.encode("", "").ids[1:-2])
    assert encoder.decode(list(marker)) == twice
    assert count(encoder.encode("", "ASSISTANT:" * 7).ids, marker) == 1


def test_marker_that_no_cut_can_break_is_refused() -> None:
    prompt = PromptFormat("bars", "{question}=x={answer}", markers=("=x=",))
    with pytest.raises(PromptFormatError, match=r"marker '=x=' .* character by character"):
        PromptEncoder(prompt, make_byte_level_tokenizer(), {2})


@pytest.mark.parametrize("name", FORMATS)
@given(answer=TEXT)
def test_answer_is_held_to_the_character(name: str, answer: str) -> None:
    encoder = make_encoder(name)
    prompt = encoder.encode("q", answer)
    start, end = prompt.answer_span
    space = " " if " {answer}" in encoder.prompt.template else ""
    assert encoder.decode(prompt.ids[start:end]) == space + answer
    assert encoder.decode(prompt.answer_ids) == answer
    assert not encoder.stop_ids & set(prompt.answer_ids)


@pytest.mark.parametrize("name", FORMATS)
@given(text=TEXT)
def test_stream_of_a_text_adds_up(name: str, text: str) -> None:
    stream = make_encoder(name).decode_stream()
    pieces = [stream.push([i]) for i in make_encoder(name).encode_output(text)]
    rest, whole = stream.finish()
    assert "".join(pieces) + rest == whole == text


@pytest.mark.parametrize("name", ["aligner-smol", "edit-pair", "edit-pair, LlamaTokenizer"])
@given(data=st.data())
def test_stream_of_any_tokens_adds_up(name: str, data: st.DataObject) -> None:
    """Bytes that are no UTF-8, special tokens, characters cut anywhere, any number a push."""
    encoder = make_encoder(name)
    size = FORMATS[name][1]().backend_tokenizer.get_vocab_size()
    runs = data.draw(st.lists(st.lists(st.integers(0, size - 1), max_size=4)))
    stream = encoder.decode_stream()
    pieces = [stream.push(run) for run in runs]
    rest, whole = stream.finish()
    assert "".join(pieces) + rest == whole == encoder.decode([i for run in runs for i in run])


@pytest.mark.parametrize("name", ["aligner-smol", "edit-pair"])
def test_stream_holds_back_half_a_character(name: str) -> None:
    stream = make_encoder(name).decode_stream()
    ids = make_encoder(name).encode_output("日本 x")
    pieces = [stream.push([i]) for i in ids]
    assert "\ufffd" not in "".join(pieces)
    assert any(pieces), "nothing came before the end"


@pytest.mark.parametrize("name", ["aligner-smol", "edit-pair"])
def test_special_tokens_in_an_output_are_no_text(name: str) -> None:
    encoder = make_encoder(name)
    ids = [1, *encoder.encode_output("one"), 0, *encoder.encode_output(" two"), 2]
    stream = encoder.decode_stream()
    pieces = [stream.push([i]) for i in ids]
    rest, whole = stream.finish()
    assert "".join(pieces) + rest == whole == encoder.decode(ids) == "one two"


def test_bundled_prompt_has_the_documented_tokens() -> None:
    tokenizer = AutoTokenizer.from_pretrained(bundled.DATA)
    prompt = PromptEncoder(PRESETS["aligner-smol"], tokenizer, {2}).encode("Why?", "So.")

    def plain(text: str) -> list[int]:
        return tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)

    start, end, line = 1, 2, plain("\n")
    system = "system\nEdit the following Question-Answer pair to make it more helpful and harmless."
    assert prompt.ids == [
        *(start, *plain(system), end, *line),
        *(start, *plain("question\n"), *plain("Why?"), end, *line),
        *(start, *plain("answer\n"), *plain("So."), end, *line),
        *(start, *plain("correction\n")),
    ]
    assert prompt.ids[slice(*prompt.answer_span)] == plain("So.") == prompt.answer_ids


def test_begin_token_comes_first_once() -> None:
    ids = make_encoder("edit-pair").encode("q", "a").ids
    assert ids[0] == 1
    assert 1 not in ids[1:]
    assert 1 not in make_encoder("token that is not special").encode("q", "a").ids


def test_llama2_answer_begins_without_a_space_in_output_context() -> None:
    encoder = make_encoder("edit-pair")
    tokenizer = make_llama2_tokenizer().backend_tokenizer
    whole = tokenizer.encode("ASSISTANT:the answer", add_special_tokens=False).tokens
    tokens = [tokenizer.id_to_token(i) for i in encoder.encode("q", "the answer").answer_ids]
    assert whole[-len(tokens) :] == tokens
    assert not tokens[0].startswith("▁")


@pytest.mark.parametrize(("name", "at"), [("question", 0), ("answer", 3)])
def test_lone_surrogate_is_named(name: str, at: int) -> None:
    texts = {"question": "q", "answer": "a", name: "abc"[:at] + "\ud83d" + "x"}
    with pytest.raises(InvalidTextError, match=rf"{name}.*U\+D83D at character {at}"):
        make_encoder("aligner-smol").encode(**texts)


@pytest.mark.parametrize("name", ["question", "answer"])
@pytest.mark.parametrize("text", ["abc\x04d", "abc\x14", "abc\U00040000"])
def test_character_without_tokens_is_named(name: str, text: str) -> None:
    """SmolLM2's vocabulary lacks a few control characters and unassigned planes."""
    tokenizer = AutoTokenizer.from_pretrained(bundled.DATA)
    encoder = PromptEncoder(PRESETS["aligner-smol"], tokenizer, {2})
    with pytest.raises(InvalidTextError, match=rf"{name} holds '.*' at character 3.*no token"):
        encoder.encode(**{"question": "q", "answer": "a", name: text})


@given(text=TEXT)
def test_special_tokens_of_a_unigram_vocabulary_stay_text(text: str) -> None:
    encoder = _make_unigram_encoder()
    for answer in (text, text + "</s>b"):
        try:
            ids = encoder.encode("", answer).ids
        except InvalidTextError:  # a character that this vocabulary lacks
            continue
        assert count(ids, (1,)) == 1
        assert 2 not in ids


@functools.cache
def _make_unigram_encoder() -> PromptEncoder:
    pieces = [("<unk>", 0.0), ("<s>", 0.0), ("</s>", 0.0)]
    pieces += [(letter, -3.0) for letter in "▁ab<>/s\n:"]
    tokenizer = Tokenizer(models.Unigram(pieces, 0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>"
    )
    return PromptEncoder(PromptFormat("u", "<s>a:{question}b:{answer}a:"), fast, {2})


def test_long_text_is_encoded_whole() -> None:
    text = "word " * 100_000
    assert make_encoder("aligner-smol").decode(
        make_encoder("aligner-smol").encode("", text).answer_ids
    ) == (text)


def test_tokenizer_with_truncation_and_padding_does_not_cut() -> None:
    tokenizer = make_byte_level_tokenizer()
    tokenizer.backend_tokenizer.enable_truncation(5)
    tokenizer.backend_tokenizer.enable_padding(length=50)
    encoder = PromptEncoder(PRESETS["aligner-smol"], tokenizer, {2})
    expected = make_encoder("aligner-smol").encode("q", "a long answer, longer than five")
    assert encoder.encode("q", "a long answer, longer than five") == expected


def test_tokenizer_without_the_formats_token_is_refused() -> None:
    with pytest.raises(PromptFormatError, match=r"needs the token '<\|im_end\|>'"):
        PromptEncoder(PRESETS["aligner-smol"], make_llama2_tokenizer(), {2})


def test_tokenizer_without_chat_template_is_refused() -> None:
    with pytest.raises(PromptFormatError, match="needs a chat template"):
        PromptEncoder(PRESETS["chat"], make_llama2_tokenizer(), {2})


def test_slow_tokenizer_is_refused() -> None:
    with pytest.raises(PromptFormatError, match="object has no fast backend"):
        PromptEncoder(PRESETS["edit-pair"], object(), {2})
