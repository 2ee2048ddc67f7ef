"""What is measured: an answer, and the correction that a model is made to write."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from aligner_integrations.benchmarking.texts import ANSWERS, WORDS
from aligner_integrations.tokenization import PromptEncoder


@dataclass(frozen=True, slots=True)
class Case:
    """One request.

    Attributes:
        name: The kind of correction.
        question: The question.
        answer: The upstream answer.
        prompt: Token ids of the prompt.
        draft: Token ids of the answer in output context.
        target: Token ids of the correction.
    """

    name: str
    question: str
    answer: str
    prompt: list[int]
    draft: list[int]
    target: list[int]


class CaseMaker:
    """Makes cases for a model's tokenizer; equal seeds make equal cases."""

    def __init__(self, encoder: PromptEncoder, seed: int = 0) -> None:
        self._encoder = encoder
        self._random = random.Random(seed)  # noqa: S311 - no secret

    def identical(self, tokens: int) -> Case:
        """An answer of about so many tokens, copied."""
        question, answer = self._answer(tokens)
        return self._make(f"identical, {tokens} tokens", question, answer, answer)

    def edited(self, share: float, tokens: int = 200) -> Case:
        """A share of the words replaced, dropped or put in, at random places."""
        question, answer = self._answer(tokens)
        edited = self._edit(answer, share)
        return self._make(f"{share:.0%} of words edited", question, answer, edited)

    def new_beginning(self, tokens: int = 200) -> Case:
        """Another first sentence, and the rest copied."""
        question, answer = self._answer(tokens)
        _, rest = answer.split(". ", 1)
        first = self._random.choice(ANSWERS)[1].replace("\n", " ").split(". ")[3]
        return self._make("new first sentence", question, answer, f"{first}. {rest}")

    def removed(self, tokens: int = 200) -> Case:
        """A sentence in the middle left out."""
        question, answer = self._answer(tokens)
        sentences = answer.split(". ")
        del sentences[len(sentences) // 2]
        return self._make("sentence removed", question, answer, ". ".join(sentences))

    def rewritten(self, tokens: int = 200) -> Case:
        """Another text of about the same length."""
        question, answer = self._answer(tokens)
        _, other = self._answer(tokens, avoid=question)
        return self._make("full rewrite", question, answer, other)

    def mix(self, count: int) -> list[Case]:
        """A natural mix: 90% copied, 7% with a tenth of the words edited, 3% rewritten.

        Lengths are spread from 40 to 240 tokens.
        """
        rewritten, edited = round(count * 0.03), round(count * 0.07)
        kinds = ["rewritten"] * rewritten + ["edited"] * edited
        kinds += ["identical"] * (count - len(kinds))
        self._random.shuffle(kinds)
        cases = []
        for kind in kinds:
            tokens = int(40 * 6 ** self._random.random())
            if kind == "rewritten":
                cases.append(self.rewritten(tokens))
            elif kind == "edited":
                cases.append(self.edited(0.1, tokens))
            else:
                cases.append(self.identical(tokens))
        return cases

    def _answer(self, tokens: int, avoid: str = "") -> tuple[str, str]:
        """A question, and the beginning of its answer; long answers go on with other ones."""
        order = [pair for pair in ANSWERS if pair[0] != avoid]
        self._random.shuffle(order)
        text = " ".join(" ".join(answer.split()) for _, answer in order)
        ids = self._encoder.encode_output(text)[:tokens]
        return order[0][0], self._encoder.decode(ids).strip()

    def _edit(self, text: str, share: float) -> str:
        words = text.split(" ")
        places = self._random.sample(range(len(words)), max(1, round(share * len(words))))
        for place in places:
            kind = self._random.choice(("replace", "replace", "drop", "put in"))
            word = self._random.choice(WORDS)
            words[place] = {"replace": word, "drop": "", "put in": f"{words[place]} {word}"}[kind]
        return " ".join(word for word in words if word)

    def _make(self, name: str, question: str, answer: str, correction: str) -> Case:
        encoded = self._encoder.encode(question, answer)
        target = self._encoder.encode_output(correction)
        return Case(name, question, answer, encoded.ids, encoded.answer_ids, target)


def make_cases(
    maker: CaseMaker, variants: int, lengths: Sequence[int], tokens: int
) -> Iterator[list[Case]]:
    """The table's rows.

    Args:
        maker: Makes the requests.
        variants: Requests of each kind.
        lengths: Tokens of the identical answers.
        tokens: Tokens of the others.
    """
    for length in lengths:
        yield [maker.identical(length) for _ in range(variants)]
    for share in (0.01, 0.05, 0.15):
        yield [maker.edited(share, tokens) for _ in range(variants)]
    yield [maker.new_beginning(tokens) for _ in range(variants)]
    yield [maker.removed(tokens) for _ in range(variants)]
    yield [maker.rewritten(tokens) for _ in range(variants)]
