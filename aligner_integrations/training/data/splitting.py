"""Splitting by question, so that evaluation measures what training has not seen."""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.training.data.duplicates import NearIndex, normalise
from aligner_integrations.training.data.filters import hash_to_unit
from aligner_integrations.training.data.triples import Triple

Words = frozenset[str]

# Words that say nothing about what a question asks.
_COMMON_TEXT = (
    "a about after all also am an and any are as at be been before but by can could did do "
    "does for from get give had has have he her him his how i i'm if in into is it its it's "
    "just let like make me more most much my no not of on or our out please she should so "
    "some tell than that the their them then there these they this those to up us was we were "
    "what what's when where which while who whom why will with would write you your"
)
_COMMON = frozenset(_COMMON_TEXT.split())


@dataclass(frozen=True, slots=True)
class Split:
    """Two splits that share no question.

    Attributes:
        train: Examples to train on.
        evaluation: Examples to measure on.
        dropped: Examples of neither: their question is too near to one of the evaluation's.
    """

    train: list[Triple]
    evaluation: list[Triple]
    dropped: list[Triple]


def find_content_words(text: str) -> Words:
    """The words that tell what a text is about; all its words where none does.

    Example:
        >>> sorted(find_content_words("How do I boil the eggs?"))
        ['boil', 'eggs']
    """
    words = frozenset(normalise(text))
    return (words - _COMMON) or words


def split_triples(
    triples: Iterable[Triple], *, share: float = 0.1, seed: int = 0, overlap: float = 0.8
) -> Split:
    """Split examples by question.

    A question is reduced to its set of content words, whose hash decides its side; so a question
    falls on the same side in every file and whatever else is split with it. A dialogue goes by its
    first turn. Then training examples are dropped whose question shares too many content words
    with one of the evaluation's, or in which `find_leaks` finds one.

    Args:
        triples: The examples.
        share: Share of the questions that go to evaluation, from 0 to 1.
        seed: Another seed makes another split.
        overlap: Share of the content words (of the longer question) from which two questions are
            the same.

    Raises:
        ConfigurationError: A share is out of range.
        MissingExtraError: datasketch is not installed.

    Example:
        >>> rows = [Triple(f"What is {n} plus 1?", "?", str(n + 1)) for n in range(100)]
        >>> parts = split_triples(rows, share=0.2)
        >>> {t.question for t in parts.train} & {t.question for t in parts.evaluation}
        set()
    """
    if not 0 < share < 1:
        raise ConfigurationError(f"share={share} of the evaluation must be between 0 and 1")
    if not 0 < overlap <= 1:
        raise ConfigurationError(f"overlap={overlap} must be above 0, and 1 at most")
    rest: list[tuple[Triple, Words]] = []
    evaluation = []
    held: dict[Words, None] = {}  # a dict keeps the order, a set of sets would not
    for triple in triples:
        words = find_content_words(triple.topic)
        if hash_to_unit(" ".join(sorted(words)), seed) < share:
            evaluation.append(triple)
            held[words] = None
            # The last turn is a question too: without this, one asked alone could be trained on.
            held[find_content_words(triple.question)] = None
        else:
            rest.append((triple, words))
    near = _Overlaps(held, overlap)
    index = NearIndex()
    for triple in evaluation:
        index.add(triple.question, triple.place)
    train: list[Triple] = []
    dropped: list[Triple] = []
    for triple, words in rest:
        leaks = (
            near.holds(words)
            or near.holds(find_content_words(triple.question))
            or index.find(triple.question) is not None
        )
        (dropped if leaks else train).append(triple)
    return Split(train, evaluation, dropped)


class _Overlaps:
    """Whether a set shares enough of its words with one of many sets; exact."""

    def __init__(self, sets: Iterable[Words], overlap: float) -> None:
        self._sets = list(sets)
        self._overlap = overlap
        self._counts = Counter(word for words in self._sets for word in words)
        self._holders: defaultdict[str, list[int]] = defaultdict(list)
        for number, words in enumerate(self._sets):
            for word in words:
                self._holders[word].append(number)
        self._known: dict[Words, bool] = {}

    def holds(self, words: Words) -> bool:
        if words not in self._known:
            self._known[words] = self._look(words)
        return self._known[words]

    def _look(self, words: Words) -> bool:
        needed = math.ceil(self._overlap * len(words) - 1e-9)
        # A set that shares ``needed`` words must share one of any ``len - needed + 1``: the rarest.
        rarest = sorted(words, key=lambda word: (self._counts[word], word))
        candidates = {
            number
            for word in rarest[: len(words) - needed + 1]
            for number in self._holders.get(word, ())
        }
        for number in candidates:
            other = self._sets[number]
            longer = max(len(words), len(other))
            if len(words & other) >= self._overlap * longer - 1e-9:
                return True
        return False
