"""Safe tokenisation: user text becomes tokens that can never be prompt structure.

Literals of the prompt format are encoded with special tokens recognised; question and answer are
encoded apart from them with every special token spelled out as plain text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

from aligner_integrations.errors import InvalidTextError, PromptFormatError
from aligner_integrations.prompts import PromptFormat


@dataclass(frozen=True, slots=True)
class EncodedPrompt:
    """Token ids of one prompt, and where the answer stands in them.

    Attributes:
        ids: The whole prompt; the correction's first token comes right after it.
        answer_span: ``(start, end)`` of the answer's tokens in ``ids``.
        answer_ids: The answer as the model would write it: tokenised in output context.
    """

    ids: list[int]
    answer_span: tuple[int, int]
    answer_ids: list[int]


class PromptEncoder:
    """Turns (question, answer) into an `EncodedPrompt`, and output ids into text.

    Immutable once built, so any number of threads may share it.

    Args:
        prompt: The layout.
        tokenizer: A fast Hugging Face tokenizer (anything with ``backend_tokenizer``). Its
            backend's settings are changed for good, so nobody else may use it.
        eos_ids: The model's own end tokens.

    Raises:
        PromptFormatError: The tokenizer lacks a token or a chat template that the format needs.
    """

    def __init__(self, prompt: PromptFormat, tokenizer: Any, eos_ids: set[int]) -> None:
        self.prompt = _expand_chat(prompt, tokenizer) if prompt.chat else prompt
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if not isinstance(backend, Tokenizer):
            raise PromptFormatError(
                f"{type(tokenizer).__name__} has no fast backend, which safe tokenisation needs; "
                "convert the tokenizer to a tokenizer.json"
            )
        # Tokenizers' settings are shared state; they are set once, here.
        self._tokenizer: Tokenizer = backend
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._anchor = self._find_anchor()

        self._tokenizer.encode_special_tokens = False
        literals, self._spaces = self._split_literals(self.prompt)
        self._literals = [
            self._encode(text, first=index == 0) for index, text in enumerate(literals)
        ]
        if self.prompt.bos and tokenizer.bos_token_id is not None:
            self._literals[0] = [tokenizer.bos_token_id, *self._literals[0]]
        self.stop_ids = frozenset(eos_ids | {self._token_id(stop) for stop in self.prompt.stop})
        self._tokenizer.encode_special_tokens = True
        self._markers = self._break_markers()

    def encode(self, question: str, answer: str) -> EncodedPrompt:
        """Lay out one pair.

        Raises:
            InvalidTextError: A text holds a lone surrogate.
        """
        texts = {"question": question, "answer": answer}
        for name, text in texts.items():
            check_text(name, text)
        ids = list(self._literals[0])
        answer_span = (0, 0)
        for index, name in enumerate(self.prompt.fields):
            start = len(ids)
            ids += self._encode_text(self._spaces[index] + texts[name])
            if name == "answer":
                answer_span = (start, len(ids))
            ids += self._literals[index + 1]
        return EncodedPrompt(ids, answer_span, self.encode_output(answer))

    def encode_output(self, text: str) -> list[int]:
        """Tokens of a text as the correction would hold them, right after the prompt."""
        check_text("answer", text)
        return self._encode(text)

    def decode(self, ids: list[int]) -> str:
        """Text of output tokens, special tokens left out."""
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

    def decode_stream(self) -> TextStream:
        """A decoder for output tokens that arrive one by one."""
        return TextStream(self._tokenizer)

    def _encode(self, text: str, *, first: bool = False) -> list[int]:
        if first or not self._anchor:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        anchored = self._tokenizer.encode("\n" + text, add_special_tokens=False).ids
        return list(anchored[len(self._anchor) :])

    def _encode_text(self, text: str) -> list[int]:
        if not self._markers:
            return self._encode(text)
        pieces = [text]
        for marker, cut in self._markers.items():
            broken = marker[:cut] + "\0" + marker[cut:]
            pieces = [p for piece in pieces for p in _split_keep(piece, marker, broken)]
        return [i for piece in pieces for i in self._encode(piece)] if text else []

    def _find_anchor(self) -> list[int]:
        """Tokens of a line feed, where the tokenizer would put a space before every segment.

        Llama-2's tokenizer begins each encoding with one; behind a line feed it does not.
        """
        alone = self._tokenizer.encode("a", add_special_tokens=False).ids
        anchor = self._tokenizer.encode("\n", add_special_tokens=False).ids
        behind = self._tokenizer.encode("\na", add_special_tokens=False).ids
        if behind[: len(anchor)] != anchor or behind[len(anchor) :] == alone:
            return []
        return list(anchor)

    def _split_literals(self, prompt: PromptFormat) -> tuple[list[str], list[str]]:
        """Literals, and the space that stands before each field.

        Tokenizers join a space to the word behind it, so it is encoded with the field.
        """
        literals = prompt.split()[::2]
        spaces = []
        for index, literal in enumerate(literals[:-1]):
            spaces.append(" " if literal.endswith(" ") else "")
            literals[index] = literal.removesuffix(" ")
        return literals, spaces

    def _token_id(self, token: str) -> int:
        token_id = self._tokenizer.token_to_id(token)
        if token_id is None:
            raise PromptFormatError(
                f"prompt format {self.prompt.name!r} needs the token {token!r}, which this "
                "tokenizer does not have; choose the format that the model was trained with"
            )
        return int(token_id)

    def _break_markers(self) -> dict[str, int]:
        """Where to cut each marker so that user text that spells it gets other tokens."""
        added = self._tokenizer.get_added_tokens_decoder()
        structure = {i for literal in self._literals for i in literal} | self.stop_ids
        spelled = {t.content for i, t in added.items() if i in structure and not t.special}
        cuts = {}
        for marker in sorted({*self.prompt.markers, *spelled}, key=len, reverse=True):
            cuts[marker] = next(
                (cut for cut in range(1, len(marker)) if self._cut_changes_tokens(marker, cut)), 1
            )
        return cuts

    def _cut_changes_tokens(self, marker: str, cut: int) -> bool:
        # A space in front may join the marker's first letters, hence the three prefixes.
        left, right = marker[:cut], marker[cut:]
        return all(
            self._encode(prefix + left) + self._encode(right) != self._encode(prefix + marker)
            for prefix in ("", " ", "\n")
        )


class TextStream:
    """Decodes one request's tokens as they come, holding back unfinished characters."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._stream = DecodeStream(skip_special_tokens=True)
        self._ids: list[int] = []
        self._sent = 0

    def push(self, ids: list[int]) -> str:
        """Text that these tokens complete; may be empty."""
        self._ids += ids
        piece = "".join(self._stream.step(self._tokenizer, token) or "" for token in ids)
        self._sent += len(piece)
        return piece

    def finish(self) -> tuple[str, str]:
        """What was held back, and the whole text."""
        text = str(self._tokenizer.decode(self._ids, skip_special_tokens=True))
        return text[self._sent :], text


def check_text(name: str, text: str) -> None:
    """Raise `InvalidTextError` for text that has no UTF-8 form."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise InvalidTextError(
            f"the {name} holds the lone surrogate U+{ord(text[error.start]):04X} at character "
            f"{error.start}, which no tokenizer can encode; clean it first, for example with "
            "text.encode('utf-8', 'replace').decode()"
        ) from None


def _split_keep(text: str, marker: str, broken: str) -> list[str]:
    left, right = broken.split("\0")
    pieces = re.split(re.escape(marker), text)
    result = [pieces[0]]
    for piece in pieces[1:]:
        result[-1] += left
        result.append(right + piece)
    return result


def _expand_chat(prompt: PromptFormat, tokenizer: Any) -> PromptFormat:
    if not getattr(tokenizer, "chat_template", None):
        raise PromptFormatError(
            f"prompt format {prompt.name!r} needs a chat template, and this tokenizer has none; "
            "choose the format that the model was trained with"
        )
    rendered = tokenizer.apply_chat_template(
        [{"role": "user", "content": prompt.template}], tokenize=False, add_generation_prompt=True
    )
    return PromptFormat(prompt.name, rendered, prompt.stop, prompt.markers)
