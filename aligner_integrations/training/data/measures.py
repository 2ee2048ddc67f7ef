"""What one example measures: lengths, and how much of the answer the correction keeps."""

from __future__ import annotations

import re
from dataclasses import dataclass

from rapidfuzz.distance import Indel, LCSseq

from aligner_integrations.correction import find_edits
from aligner_integrations.training.data.triples import Triple

# A character of a script without spaces is a word of its own.
_WORDS = re.compile(
    r"[\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"
    r"|(?:(?![\u0e00-\u0e7f\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af])\w)+(?:['’]\w+)?"
)

_COMPARED = 50_000
"""Characters from a text's beginning that are compared: time and memory grow with the square."""


@dataclass(frozen=True, slots=True)
class Measures:
    """Figures of one example.

    Attributes:
        question_words: Words of the question.
        answer_words: Words of the answer.
        correction_words: Words of the correction.
        similarity: Levenshtein (Indel) ratio of answer and correction, by character; 1 for equal.
        copied: Share of the correction's words that stand in the same order in the answer.
        edits: Places at which they differ; see `find_edits`.
    """

    question_words: int
    answer_words: int
    correction_words: int
    similarity: float
    copied: float
    edits: int


def measure(triple: Triple) -> Measures:
    """Measure one example.

    Example:
        >>> m = measure(Triple("Eggs?", "Boil them, fool.", "Boil them."))
        >>> m.edits, m.copied
        (1, 1.0)
    """
    words = (
        len(split_words(triple.question)),
        len(split_words(triple.answer)),
        len(split_words(triple.correction)),
    )
    if triple.is_identity:
        return Measures(*words, 1.0, 1.0, 0)
    answer, correction = triple.answer[:_COMPARED], triple.correction[:_COMPARED]
    kept = split_words(correction)
    return Measures(
        *words,
        float(Indel.normalized_similarity(answer, correction)),
        LCSseq.similarity(split_words(answer), kept) / len(kept) if kept else 0.0,
        max(1, sum(1 for _ in find_edits(answer, correction))),
    )


def split_words(text: str) -> list[str]:
    """The words of a text, without punctuation.

    Example:
        >>> split_words("Don't boil 东西!")
        ["Don't", 'boil', '东', '西']
    """
    return _WORDS.findall(text)
