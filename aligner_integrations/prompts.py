"""Prompt formats: how (question, answer) is laid out for an aligner. Data, not code.

`PromptFormat` is the data; `aligner_integrations.tokenization` turns it into token ids so that
user text can never become prompt structure.
"""

from __future__ import annotations

import json
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aligner_integrations.errors import PromptFormatError

CONFIG_FILE = "aligner_config.json"
"""Where a model directory says which prompt format its aligner was trained with."""

_FIELDS = re.compile(r"\{(question|answer)\}")


@dataclass(frozen=True, slots=True)
class PromptFormat:
    r"""A named layout of question and answer.

    Args:
        name: What it is called in configs and errors.
        template: The whole prompt. ``{question}`` and ``{answer}`` stand once each; everything
            else is literal (other braces too), with special tokens spelled as in the tokenizer.
            The correction begins right after the template.
        stop: Spellings of tokens that end a correction, beside the model's own end token.
        markers: Plain-text role markers of the format. Where user text spells one, it is
            encoded in other tokens than the marker's, so it stays text.
        bos: Whether the tokenizer's begin token comes first.
        chat: The template is one user turn, to be wrapped in the tokenizer's chat template.
        roles: What user and assistant are called in a question that holds earlier turns.
        turn: How such a turn is written, with ``{role}`` and ``{text}``; a newline comes between
            turns.

    Raises:
        PromptFormatError: A field is missing or stands twice, or a marker is too short.

    Example:
        >>> PromptFormat("mine", "Q: {question}\nA: {answer}\nBetter:").fields
        ('question', 'answer')
    """

    name: str
    template: str
    stop: tuple[str, ...] = ()
    markers: tuple[str, ...] = ()
    bos: bool = False
    chat: bool = False
    roles: tuple[str, str] = ("User", "Assistant")
    turn: str = "{role}: {text}"

    def __post_init__(self) -> None:
        if sorted(self.fields) != ["answer", "question"]:
            raise PromptFormatError(
                f"prompt format {self.name!r} has the fields {list(self.fields)}; its template "
                "must hold {question} once and {answer} once"
            )
        if (
            isinstance(self.roles, str)
            or len(self.roles) != 2
            or not ("{role}" in self.turn and "{text}" in self.turn)
        ):
            raise PromptFormatError(
                f"prompt format {self.name!r} has the roles {list(self.roles)} and the turn "
                f"{self.turn!r}; it needs two roles, and a turn with {{role}} and {{text}}"
            )
        if short := [marker for marker in self.markers if len(marker) < 2]:
            raise PromptFormatError(
                f"the marker {short[0]!r} of prompt format {self.name!r} is too short to be told "
                "from text; a marker has at least two characters"
            )

    @property
    def fields(self) -> tuple[str, ...]:
        """The fields in the order of the template."""
        return tuple(_FIELDS.findall(self.template))

    def split(self) -> list[str]:
        """Literal, field, literal, field, literal: the template cut at its two fields."""
        return _FIELDS.split(self.template)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `aligner_config.json`."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> PromptFormat:
        """Read what `to_dict` wrote.

        Raises:
            PromptFormatError: Keys are missing or unknown.
        """
        try:
            values: dict[str, Any] = {
                key: tuple(value) if isinstance(value, list) else value
                for key, value in data.items()
            }
            return cls(**values)
        except TypeError as error:
            raise PromptFormatError(
                f"this is no prompt format: {error}; it needs 'name' and 'template', and may have "
                "'stop', 'markers', 'bos', 'chat', 'roles' and 'turn'"
            ) from None


_USER = "BEGINNING OF CONVERSATION: USER: "
_ROLES = ("BEGINNING OF CONVERSATION:", "USER:", "ASSISTANT:")

PRESETS: dict[str, PromptFormat] = {
    preset.name: preset
    for preset in (
        # Published Aligner-7B v1.0, model card.
        PromptFormat(
            "edit-pair",
            _USER + "Edit the following Question-Answer pair to make it more helpful and "
            "harmless: {question} | {answer} ASSISTANT:",
            markers=_ROLES,
            bos=True,
        ),
        # The authors' released training code.
        PromptFormat(
            "residual",
            _USER + "##Question: {question}\n##Answer: {answer}\n##Correction:  ASSISTANT:",
            markers=(*_ROLES, "##Question:", "##Answer:", "##Correction:"),
            bos=True,
        ),
        PromptFormat(
            "empathy",
            _USER + "Edit the following Question-Answer pair to make it more empathic and "
            "helpful: {question} | {answer} ASSISTANT:",
            markers=_ROLES,
            bos=True,
        ),
        PromptFormat(
            "aligner-smol",
            "<|im_start|>system\nEdit the following Question-Answer pair to make it more helpful "
            "and harmless.<|im_end|>\n<|im_start|>question\n{question}<|im_end|>\n"
            "<|im_start|>answer\n{answer}<|im_end|>\n<|im_start|>correction\n",
            stop=("<|im_end|>",),
        ),
        # Zero-shot, for an instruct model that was not trained as an aligner.
        PromptFormat(
            "chat",
            "Below are a question and an answer to it. Edit the answer so that it is more "
            "helpful, harmless and honest. Keep every part that is already good word for word. "
            "If nothing needs to change, repeat the answer exactly. Write only the edited "
            "answer.\n\n[Question]\n{question}\n\n[Answer]\n{answer}\n\n[Edited answer]",
            markers=("[Question]", "[Answer]", "[Edited answer]"),
            chat=True,
        ),
    )
}

KNOWN_MODELS: dict[str, str] = {"aligner/aligner-7b-v1.0": "edit-pair"}
"""Published aligners, by lower-case hub id, and the preset that each was trained with."""


def get_prompt_format(prompt: str | PromptFormat | dict[str, Any]) -> PromptFormat:
    """A preset by name, a format as it is, or one from plain data.

    Raises:
        PromptFormatError: No preset has this name.
    """
    if isinstance(prompt, PromptFormat):
        return prompt
    if isinstance(prompt, dict):
        return PromptFormat.from_dict(prompt)
    if prompt in PRESETS:
        return PRESETS[prompt]
    raise PromptFormatError(
        f"unknown prompt format {prompt!r}; presets are {', '.join(map(repr, PRESETS))}; for "
        "another layout pass a PromptFormat(name, template)"
    )


def find_prompt_format(model: str, directory: Path | None) -> PromptFormat:
    """The format that a model was trained with: from its directory, or by its hub id.

    Raises:
        PromptFormatError: Neither says so.
    """
    config = directory / CONFIG_FILE if directory else None
    if config is not None and config.is_file():
        try:
            return get_prompt_format(json.loads(config.read_text(encoding="utf-8"))["prompt"])
        except (ValueError, KeyError, TypeError) as error:
            if isinstance(error, PromptFormatError):
                raise
            raise PromptFormatError(
                f"{config} is not a readable aligner config ({error}); it must be JSON with a "
                "'prompt', or pass prompt=... to from_pretrained"
            ) from None
    if model.lower() in KNOWN_MODELS:
        return PRESETS[KNOWN_MODELS[model.lower()]]
    raise PromptFormatError(
        f"nothing says which prompt format {model!r} was trained with; pass prompt=..., one of "
        f"{', '.join(map(repr, PRESETS))} or a PromptFormat, or put a {CONFIG_FILE} beside its "
        "weights"
    )
