from __future__ import annotations

import json
from pathlib import Path

import pytest

from aligner_integrations.errors import PromptFormatError
from aligner_integrations.prompts import (
    CONFIG_FILE,
    PRESETS,
    PromptFormat,
    find_prompt_format,
    get_prompt_format,
)
from aligner_integrations.tokenization import PromptEncoder
from tests.tiny import CHAT_TEMPLATE, make_byte_level_tokenizer

DOCUMENTED = {
    "edit-pair": "BEGINNING OF CONVERSATION: USER: Edit the following Question-Answer pair to make "
    "it more helpful and harmless: {question} | {answer} ASSISTANT:",
    "residual": "BEGINNING OF CONVERSATION: USER: ##Question: {question}\n##Answer: {answer}\n"
    "##Correction:  ASSISTANT:",
    "empathy": "BEGINNING OF CONVERSATION: USER: Edit the following Question-Answer pair to make "
    "it more empathic and helpful: {question} | {answer} ASSISTANT:",
    "aligner-smol": "<|im_start|>system\nEdit the following Question-Answer pair to make it more "
    "helpful and harmless.<|im_end|>\n<|im_start|>question\n{question}<|im_end|>\n"
    "<|im_start|>answer\n{answer}<|im_end|>\n<|im_start|>correction\n",
}
MINE = PromptFormat(
    "mine",
    'Say {"json"}: {answer}\nfor {question}\nBetter:',
    stop=("<|im_end|>",),
    markers=("Better:",),
    bos=True,
)


@pytest.mark.parametrize("name", DOCUMENTED)
def test_presets_are_the_documented_strings(name: str) -> None:
    assert PRESETS[name].template == DOCUMENTED[name]
    assert PRESETS[name].name == name
    assert not PRESETS[name].chat


def test_plain_text_presets_begin_with_the_begin_token_and_guard_their_markers() -> None:
    for name in ("edit-pair", "residual", "empathy"):
        assert PRESETS[name].bos
        assert {"USER:", "ASSISTANT:"} <= set(PRESETS[name].markers)
        assert all(marker in PRESETS[name].template for marker in PRESETS[name].markers)
    assert {"##Question:", "##Answer:", "##Correction:"} <= set(PRESETS["residual"].markers)


def test_bundled_format_ends_at_its_end_token() -> None:
    assert PRESETS["aligner-smol"].stop == ("<|im_end|>",)
    assert not PRESETS["aligner-smol"].bos


def test_chat_preset_goes_through_the_models_chat_template() -> None:
    tokenizer = make_byte_level_tokenizer()
    encoder = PromptEncoder(PRESETS["chat"], tokenizer, {2})
    assert tokenizer.chat_template == CHAT_TEMPLATE
    expected = tokenizer.apply_chat_template(
        [{"role": "user", "content": PRESETS["chat"].template}],
        tokenize=False,
        add_generation_prompt=True,
    )
    assert encoder.prompt.template == expected
    prompt = encoder.encode("Why?", "So.")
    filled = expected.replace("{question}", "Why?").replace("{answer}", "So.")
    assert make_byte_level_tokenizer().decode(prompt.ids) == filled


def test_a_format_survives_json() -> None:
    for prompt in (*PRESETS.values(), MINE):
        assert PromptFormat.from_dict(json.loads(json.dumps(prompt.to_dict()))) == prompt


def test_fields_may_stand_in_either_order() -> None:
    assert MINE.fields == ("answer", "question")
    prompt = PromptEncoder(MINE, make_byte_level_tokenizer(), {2}).encode("QQ", "AA")
    decode = make_byte_level_tokenizer().decode
    assert decode(prompt.ids) == '<|im_start|>Say {"json"}: AA\nfor QQ\nBetter:'
    assert decode(prompt.ids[slice(*prompt.answer_span)]) == " AA"


@pytest.mark.parametrize(
    "template", ["", "{question}", "{answer} {answer}", "{question}{answer}{answer}", "{Question}"]
)
def test_a_template_needs_each_field_once(template: str) -> None:
    with pytest.raises(PromptFormatError, match=r"must hold {question} once and {answer} once"):
        PromptFormat("bad", template)


def test_a_marker_of_one_character_is_refused() -> None:
    with pytest.raises(PromptFormatError, match=r"marker '\|' .* too short"):
        PromptFormat("bad", "{question}|{answer}|", markers=("|",))


@pytest.mark.parametrize("data", [{}, {"name": "x"}, {"name": "x", "template": "", "colour": 1}])
def test_plain_data_that_is_no_format_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(PromptFormatError, match="this is no prompt format"):
        PromptFormat.from_dict(data)


def test_formats_are_found_by_name_object_or_data() -> None:
    assert get_prompt_format("residual") is PRESETS["residual"]
    assert get_prompt_format(MINE) is MINE
    assert get_prompt_format(MINE.to_dict()) == MINE
    with pytest.raises(PromptFormatError, match="unknown prompt format 'nope'; presets are 'edit"):
        get_prompt_format("nope")


@pytest.mark.parametrize("prompt", ["residual", MINE.to_dict()])
def test_a_directory_says_its_format(tmp_path: Path, prompt: object) -> None:
    (tmp_path / CONFIG_FILE).write_text(json.dumps({"prompt": prompt}))
    assert find_prompt_format("anything", tmp_path) == get_prompt_format(prompt)  # type: ignore[arg-type]


@pytest.mark.parametrize("model", ["aligner/aligner-7b-v1.0", "Aligner/Aligner-7B-v1.0"])
def test_known_hub_ids_have_their_format(model: str, tmp_path: Path) -> None:
    assert find_prompt_format(model, None) is PRESETS["edit-pair"]
    assert find_prompt_format(model, tmp_path) is PRESETS["edit-pair"]


def test_the_directory_wins_over_the_hub_id(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text('{"prompt": "residual"}')
    assert find_prompt_format("aligner/aligner-7b-v1.0", tmp_path) is PRESETS["residual"]


def test_an_unknown_model_must_name_its_format(tmp_path: Path) -> None:
    with pytest.raises(PromptFormatError, match=r"'me/mine' was trained with; pass prompt=.*"):
        find_prompt_format("me/mine", tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "{}", '"text"'])
def test_a_broken_config_names_its_file(tmp_path: Path, content: str) -> None:
    (tmp_path / CONFIG_FILE).write_text(content)
    with pytest.raises(PromptFormatError, match=f"{CONFIG_FILE} is not a readable aligner config"):
        find_prompt_format("anything", tmp_path)


def test_a_config_with_an_unknown_preset_says_so(tmp_path: Path) -> None:
    (tmp_path / CONFIG_FILE).write_text('{"prompt": "nope"}')
    with pytest.raises(PromptFormatError, match="unknown prompt format 'nope'"):
        find_prompt_format("anything", tmp_path)
