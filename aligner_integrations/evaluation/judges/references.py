"""Judging by known answers: overlap with the good ones and the wrong ones, and exact match."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Literal

from rapidfuzz.distance import LCSseq

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.evaluation.judges.margins import find_verdict
from aligner_integrations.evaluation.records import Case, Judgement

Overlap = Literal["token-f1", "rouge-l"]
VERSION = 1
"""Goes up with every change of a measure, since judgements are cached."""
# Scripts without spaces: each character is a word.
_WORDS = re.compile(r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+")
_ARTICLES = {"a", "an", "the"}


def split_words(text: str) -> list[str]:
    """Words in lower case, without punctuation; Chinese and Japanese by the character.

    Example:
        >>> split_words("It's 42!")
        ['it', 's', '42']
    """
    return _WORDS.findall(unicodedata.normalize("NFKC", text).casefold())


def compute_token_f1(text: str, reference: str) -> float:
    """F1 of the words that both have, order aside (Rajpurkar et al. 2016, SQuAD); 0 to 1.

    Example:
        >>> compute_token_f1("the cat sat", "the cat")
        0.8
    """
    mine, theirs = split_words(text), split_words(reference)
    return _find_f1(sum((Counter(mine) & Counter(theirs)).values()), mine, theirs)


def compute_rouge_l(text: str, reference: str) -> float:
    """ROUGE-L: F1 of the longest common subsequence of words (Lin 2004); 0 to 1.

    Example:
        >>> compute_rouge_l("sat down the cat", "the cat sat down")
        0.5
    """
    mine, theirs = split_words(text), split_words(reference)
    return _find_f1(LCSseq.similarity(mine, theirs), mine, theirs)


def is_exact_match(text: str, references: Sequence[str]) -> bool:
    """Whether a text is one of the references, but for case, punctuation and articles (SQuAD).

    Example:
        >>> is_exact_match("The Nile.", ["nile", "River Nile"])
        True
    """
    mine = _normalize(text)
    return bool(mine) and any(mine == _normalize(reference) for reference in references)


class ReferenceJudge:
    """Compares with answers that are known to be good, and known to be wrong.

    Two dimensions. ``"overlap"``: the best overlap with a reference, less the best overlap with a
    wrong answer, -1 to 1, as TruthfulQA's ROUGE scores are (Lin et al. 2022, arXiv 2109.07958, and
    its repository); without wrong answers the first term alone. ``"exact"``: 1 for an exact match
    with a reference, else 0. Words are all that it sees: a negation weighs one word, and a good
    answer in other words scores low. A sample without references is an error.

    Args:
        overlap: ``"rouge-l"``, or ``"token-f1"``, which ignores the order.
        margin: Overlaps that differ by no more than this are a tie.
        name: Its name in the report.

    Raises:
        ConfigurationError: ``overlap`` is unknown, or ``margin`` below 0.
    """

    dimensions: tuple[str, ...] = ("overlap", "exact")

    def __init__(
        self, overlap: Overlap = "rouge-l", *, margin: float = 0.0, name: str = "references"
    ) -> None:
        if overlap not in _MEASURES:
            raise ConfigurationError(f"{overlap=} must be one of {', '.join(_MEASURES)}")
        if not margin >= 0:
            raise ConfigurationError(f"{margin=} must be 0 or more")
        self.name = name
        self.overlap = overlap
        self.margin = margin

    @property
    def identity(self) -> Mapping[str, Any]:
        """What its verdicts depend on, but for the references, which are the sample's."""
        return {
            "judge": "references",
            "name": self.name,
            "overlap": self.overlap,
            "margin": self.margin,
            "version": VERSION,
        }

    def covers(self, case: Case) -> bool:
        """Whether there is a reference."""
        return bool(case.sample.references)

    def judge(self, cases: Sequence[Case]) -> Iterator[tuple[int, tuple[Judgement, ...]]]:
        """Judge cases, in their order."""
        for index, case in enumerate(cases):
            sample = case.sample
            if not sample.references:
                error = f"sample {sample.id!r} of {sample.dataset!r} has no references"
                yield index, tuple(Judgement(self.name, d, error=error) for d in self.dimensions)
                continue
            near = [self._find_nearest(text, case) for text in (case.answer, case.correction)]
            before, after = (good - bad for good, bad in near)
            details = {
                when: {"reference": round(good, 4), "wrong": round(bad, 4)}
                for when, (good, bad) in zip(("before", "after"), near, strict=True)
            }
            verdict = find_verdict(before, after, margin=self.margin)
            exact, exact_after = (
                float(is_exact_match(text, sample.references))
                for text in (case.answer, case.correction)
            )
            same = find_verdict(exact, exact_after)
            yield (
                index,
                (
                    Judgement(self.name, "overlap", verdict, before, after, details=details),
                    Judgement(self.name, "exact", same, exact, exact_after),
                ),
            )

    def _find_nearest(self, text: str, case: Case) -> tuple[float, float]:
        measure = _MEASURES[self.overlap]
        return (
            max(measure(text, reference) for reference in case.sample.references),
            max((measure(text, wrong) for wrong in case.sample.wrong), default=0.0),
        )


def _find_f1(common: int, mine: Sequence[str], theirs: Sequence[str]) -> float:
    return 2 * common / (len(mine) + len(theirs)) if common else 0.0


def _normalize(text: str) -> list[str]:
    return [word for word in split_words(text) if word not in _ARTICLES]


_MEASURES: Mapping[str, Callable[[str, str], float]] = {
    "rouge-l": compute_rouge_l,
    "token-f1": compute_token_f1,
}
