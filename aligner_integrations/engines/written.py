"""A prompt as text, for servers that take no token ids.

Such a server finds special tokens wherever a text spells them. So question and answer are escaped:
a zero-width space goes behind the first character of everything in them that spells a special
token, or a role marker of the prompt format. What comes back is cleared of these again. As a last
check the text is read the way the server will read it; where that finds more structure than the
prompt format has, the text is refused.
"""

from __future__ import annotations

from tokenizers import Tokenizer

from aligner_integrations.errors import ConfigurationError, InvalidTextError
from aligner_integrations.tokenization import PromptEncoder, check_text

BREAK = "\u200b"
"""What is put into a marker, so that it is none any more."""


class PromptWriter:
    """Turns (question, answer) into one text that the server reads as the format has it.

    Args:
        encoder: The prompt format, over the server's tokenizer.
        tokenizer: The same tokenizer, reading special tokens.

    Raises:
        ConfigurationError: The server's tokenizer would begin prompts differently.
    """

    def __init__(self, encoder: PromptEncoder, tokenizer: Tokenizer) -> None:
        self._encoder = encoder
        self._tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self._special = {i for i, token in added.items() if token.special}
        spelled = {token.content for token in added.values() if len(token.content) > 1}
        markers = sorted({*encoder.prompt.markers, *spelled}, key=len, reverse=True)
        self._broken = {marker: marker[0] + BREAK + marker[1:] for marker in markers}
        self._lead = ""
        wanted, found = self._find_structure("a", "b")
        if encoder.prompt.bos and [*encoder.opening[:1], *found] == wanted:
            # The server's tokenizer puts no begin token before a text; then it is spelled.
            self._lead = added[wanted[0]].content
            wanted, found = self._find_structure("a", "b")
        if wanted != found:
            raise ConfigurationError(
                f"prompt format {encoder.prompt.name!r} as text is read by the tokenizer with the "
                f"special tokens {found}, not {wanted}; use prompt_as='ids', on a server that "
                "takes token ids"
            )

    def write(self, question: str, answer: str) -> str:
        """The prompt as text.

        Raises:
            InvalidTextError: A text holds a lone surrogate, or special tokens in a spelling that
                escaping does not break.
        """
        check_text("question", question)
        check_text("answer", answer)
        wanted, found = self._find_structure(question, answer)
        if wanted != found:
            raise InvalidTextError(
                "question or answer hold special tokens of the aligner that can't be escaped in a "
                "prompt of text; remove them, or use prompt_as='ids' on a server that takes token "
                "ids"
            )
        return self._lay_out(question, answer)

    def restore(self) -> Restorer:
        """For the text that comes back."""
        return Restorer({broken: marker for marker, broken in self._broken.items()})

    def _lay_out(self, question: str, answer: str) -> str:
        texts = {"question": self._escape(question), "answer": self._escape(answer)}
        parts = self._encoder.prompt.split()
        return self._lead + "".join(
            texts[part] if index % 2 else part for index, part in enumerate(parts)
        )

    def _escape(self, text: str) -> str:
        for marker, broken in self._broken.items():
            while marker in text:  # spellings that overlap need more than one turn
                text = text.replace(marker, broken)
        return text

    def _find_structure(self, question: str, answer: str) -> tuple[list[int], list[int]]:
        """Special tokens that the prompt should have, and those that the server will find."""
        wanted = self._encoder.encode(question, answer).ids
        found = self._tokenizer.encode(self._lay_out(question, answer)).ids
        return (
            [i for i in wanted if i in self._special],
            [i for i in found if i in self._special],
        )


class Restorer:
    """Takes the breaks out of text as it comes.

    Args:
        markers: What each broken marker stands for.
    """

    def __init__(self, markers: dict[str, str]) -> None:
        self._markers = markers
        self._held = ""

    def push(self, text: str) -> str:
        """Add text; returns what is settled by now."""
        text = self._held + text
        for broken, marker in self._markers.items():
            text = text.replace(broken, marker)
        keep = max((self._count_begun(text, broken) for broken in self._markers), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def finish(self) -> str:
        """What was held back."""
        held, self._held = self._held, ""
        return held

    @staticmethod
    def _count_begun(text: str, broken: str) -> int:
        """How many characters at the end may be the beginning of a broken marker."""
        return next(
            (n for n in range(min(len(text), len(broken) - 1), 0, -1) if text.endswith(broken[:n])),
            0,
        )
