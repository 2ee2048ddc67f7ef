"""Safe tokenisation: user text becomes tokens that can never be prompt structure.

Literals of the prompt format are encoded with special tokens recognised; question and answer are
encoded apart from them with every special token spelled out as plain text.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import zip_longest
from typing import Any

from tokenizers import Tokenizer
from tokenizers.normalizers import NFC

from aligner_integrations.errors import InvalidTextError, PromptFormatError
from aligner_integrations.prompts import PromptFormat

_LEAD = "a"
_ANCHORS = ("\n", _LEAD)
_LOW_LINE = "▁"
_BROKEN = "\ufffd"


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
        if isinstance(self._tokenizer.normalizer, NFC):  # it would rewrite what users wrote
            self._tokenizer.normalizer = None
        self._lead: list[int] = self._tokenizer.encode(_LEAD, add_special_tokens=False).ids
        self._anchors = self._find_anchors()
        self._low_line = self._find_low_line()
        self._unsettled = self._find_unsettled()

        self._tokenizer.encode_special_tokens = False
        literals, self._spaces = self._split_literals(self.prompt)
        self._literals = [
            self._encode(text, first=index == 0) for index, text in enumerate(literals)
        ]
        if self.prompt.bos and tokenizer.bos_token_id is not None:
            self._literals[0] = [tokenizer.bos_token_id, *self._literals[0]]
        self.own_stop_ids = frozenset(self._token_id(stop) for stop in self.prompt.stop)
        self.stop_ids = self.own_stop_ids | eos_ids
        self._tokenizer.encode_special_tokens = True
        self._markers = self._break_markers()

    @property
    def opening(self) -> list[int]:
        """The tokens that every prompt begins with."""
        return list(self._literals[0])

    def encode(self, question: str, answer: str) -> EncodedPrompt:
        """Lay out one pair.

        Raises:
            InvalidTextError: A text holds a lone surrogate, or a character without tokens.
        """
        texts = {"question": question, "answer": answer}
        for name, text in texts.items():
            check_text(name, text)
        ids = list(self._literals[0])
        answer_span = (0, 0)
        for index, name in enumerate(self.prompt.fields):
            start = len(ids)
            ids += self._encode_text(self._spaces[index] + texts[name])
            self._check_exact(name, texts[name], ids[start:], self._spaces[index])
            if name == "answer":
                answer_span = (start, len(ids))
            ids += self._literals[index + 1]
        return EncodedPrompt(ids, answer_span, self.encode_output(answer))

    def encode_beginning(self, question: str, answer: str) -> list[int]:
        """A prompt whose answer has only begun, up to the answer's end.

        The last tokens may still change as the answer goes on. Nothing where the format has the
        answer before the question.

        Raises:
            InvalidTextError: A text holds a lone surrogate.
        """
        if self.prompt.fields[0] != "question":
            return list(self._literals[0])
        texts = {"question": question, "answer": answer}
        ids = list(self._literals[0])
        for index, name in enumerate(self.prompt.fields):
            check_text(name, texts[name])
            ids += self._encode_text(self._spaces[index] + texts[name])
            if name == "answer":
                break
            ids += self._literals[index + 1]
        return ids

    def encode_output(self, text: str) -> list[int]:
        """Tokens of a text as the correction would hold them, right after the prompt."""
        check_text("answer", text)
        return self._encode_text(text)

    def decode(self, ids: list[int]) -> str:
        """Text of output tokens, special tokens left out."""
        # Decoders drop a space at the very front; with a letter there, none of the text's is lost.
        text = str(self._tokenizer.decode([*self._lead, *ids], skip_special_tokens=True))
        return text[len(_LEAD) :]

    def find_ends(self, ids: list[int]) -> list[int]:
        """Where in the text each token's characters end; a character's last token ends it."""
        # Of a text that was encoded no byte is astray, so what is decoded is settled at once.
        stream, ends, end = TextStream(self.decode, frozenset()), [], 0
        for token in ids:
            end += len(stream.push([token]))
            ends.append(end)
        return ends

    def decode_stream(self) -> TextStream:
        """A decoder for output tokens that arrive one by one."""
        return TextStream(self.decode, self._unsettled)

    def _check_exact(self, name: str, text: str, ids: list[int], space: str) -> None:
        """Raise `InvalidTextError` unless the tokens hold the text to the character."""
        held = self.decode(ids).removeprefix(space)
        if held == text:
            return
        at = next(i for i, (a, b) in enumerate(zip_longest(held, text)) if a != b)
        raise InvalidTextError(
            f"the {name} holds {text[at : at + 1]!a} at character {at}, for which the aligner's "
            "tokenizer has no token; remove it first"
        )

    def _encode(self, text: str, *, first: bool = False) -> list[int]:
        if first:
            return list(self._tokenizer.encode(text, add_special_tokens=False).ids)
        run, *runs = text.split(_LOW_LINE) if self._low_line else [text]
        ids = self._encode_run(run)
        for run in runs:
            ids += self._low_line + self._encode_run(run)
        return ids

    def _encode_run(self, text: str) -> list[int]:
        for anchor, head in self._anchors:
            ids = self._tokenizer.encode(anchor + text, add_special_tokens=False).ids
            if ids[: len(head)] == head:
                return list(ids[len(head) :])
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def _encode_text(self, text: str) -> list[int]:
        pieces = [text]
        for marker, cut in self._markers.items():
            pieces = [part for piece in pieces for part in _cut_markers(piece, marker, cut)]
        return [token for piece in pieces for token in self._encode(piece)]

    def _find_anchors(self) -> list[tuple[str, list[int]]]:
        """Texts to encode a segment behind, where the tokenizer puts a space before each text.

        Llama-2's does so. There are two, because a segment may join its first letter to one.
        """
        anchors = []
        for anchor in _ANCHORS:
            head = self._tokenizer.encode(anchor, add_special_tokens=False).ids
            behind = self._tokenizer.encode(anchor + ":", add_special_tokens=False).ids
            alone = self._tokenizer.encode(":", add_special_tokens=False).ids
            if behind[: len(head)] == head and behind[len(head) :] != alone:
                anchors.append((anchor, list(head)))
        return anchors

    def _find_low_line(self) -> list[int]:
        """Byte tokens of the character that this tokenizer writes spaces with, if it does."""
        tokens = [self._tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in _LOW_LINE.encode()]
        same = [
            self._tokenizer.encode(f"a{space}b", add_special_tokens=False).ids
            for space in (" ", _LOW_LINE)
        ]
        return [t for t in tokens if t is not None] if same[0] == same[1] else []

    def _find_unsettled(self) -> frozenset[int]:
        """Tokens behind which a text may still change: single bytes, and specials between them."""
        spelled = (self._tokenizer.token_to_id(f"<0x{byte:02X}>") for byte in range(256))
        added = self._tokenizer.get_added_tokens_decoder()
        specials = {i for i, token in added.items() if token.special}
        return frozenset(specials | {i for i in spelled if i is not None})

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
        # Unigram vocabularies hold their special tokens as ordinary pieces too.
        spelled = {
            token.content
            for i, token in added.items()
            if (i in self._encode(token.content) if token.special else i in structure)
        }
        cuts = {}
        for marker in sorted({*self.prompt.markers, *spelled}, key=len, reverse=True):
            places = range(1, len(marker))
            cut = next((cut for cut in places if self._cut_changes_tokens(marker, cut)), None)
            if cut is None:
                raise PromptFormatError(
                    f"this tokenizer spells the marker {marker!r} of prompt format "
                    f"{self.prompt.name!r} character by character, so text that holds it can't "
                    "be told from it; choose another marker"
                )
            cuts[marker] = cut
        return cuts

    def _cut_changes_tokens(self, marker: str, cut: int) -> bool:
        # A space in front may join the marker's first letters, hence the three prefixes.
        left, right = marker[:cut], marker[cut:]
        return all(
            self._encode(prefix + left) + self._encode(right) != self._encode(prefix + marker)
            for prefix in ("", " ", "\n")
        )


class TextStream:
    """Decodes one request's tokens as they come, holding back unfinished characters.

    Args:
        decode: Text of token ids.
        unsettled: Tokens behind which the text so far may still change.
    """

    def __init__(self, decode: Callable[[list[int]], str], unsettled: frozenset[int]) -> None:
        self._decode = decode
        self._unsettled = unsettled
        self._pieces: list[str] = []
        self._held: list[int] = []

    def push(self, ids: list[int]) -> str:
        """Text that these tokens complete; may be empty."""
        self._held += ids
        if not ids or ids[-1] in self._unsettled:
            return ""
        piece = self._decode(self._held)
        if piece.endswith(_BROKEN):
            return ""
        self._held = []
        self._pieces.append(piece)
        return piece

    def finish(self) -> tuple[str, str]:
        """What was held back, and the whole text."""
        rest = self._decode(self._held)
        return rest, "".join(self._pieces) + rest


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


def _cut_markers(text: str, marker: str, cut: int) -> list[str]:
    """Cut a text within every spelling of a marker."""
    pieces, start = [], 0
    while (found := text.find(marker, start)) >= 0:
        pieces.append(text[start : found + cut])
        start = found + cut
    return [*pieces, text[start:]]


def _expand_chat(prompt: PromptFormat, tokenizer: Any) -> PromptFormat:
    if not getattr(tokenizer, "chat_template", None):
        raise PromptFormatError(
            f"prompt format {prompt.name!r} needs a chat template, and this tokenizer has none; "
            "choose the format that the model was trained with"
        )
    turn = {"role": "user", "content": prompt.template}
    try:
        rendered = tokenizer.apply_chat_template([turn], tokenize=False, add_generation_prompt=True)
    except Exception as error:  # whatever a template raises, in Jinja's sandbox
        raise PromptFormatError(
            f"the tokenizer's chat template can't be rendered: {type(error).__name__}: "
            f"{error!s:.200}; correct its chat_template"
        ) from error
    return replace(prompt, template=rendered, bos=False, chat=False)
