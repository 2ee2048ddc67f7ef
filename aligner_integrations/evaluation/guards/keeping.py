"""What an aligner keeps of an answer: whole, by sentence, and by parts such as code and numbers.

What a sample expects is about the answer that comes with it. Where an upstream answered anew,
nothing is expected, and these functions count nothing.
"""

from __future__ import annotations

from collections import Counter

from aligner_integrations.evaluation.guards.sentences import (
    share_sentences,
    split_sentences,
)
from aligner_integrations.evaluation.records import Case, Expectation
from aligner_integrations.protect import find_lost, find_protected
from aligner_integrations.training.data.measures import split_words

Count = tuple[int, int]
"""How often something happened, and how often it could have."""

NOTHING: Count = (0, 0)


def find_expected(case: Case) -> Expectation | None:
    """What a good aligner does with a case's answer; None unless the answer is the sample's own."""
    return case.sample.expected if case.answer == case.sample.answer else None


def find_reference(case: Case) -> str | None:
    """The answer as it should have become; None where that is not known.

    An answer that is to be kept is its own reference.
    """
    expected = find_expected(case)
    if expected == "keep":
        return case.answer
    if expected == "change" and case.sample.references:
        return case.sample.references[0]
    return None


def count_locality(case: Case) -> Count:
    """Of the sentences that answer and reference share, those that the correction has too.

    They need not change, so a correction that mends the rest leaves them to the character. Only
    answers that were to be changed, and were, count; a reference that shares no sentence with the
    answer replaces it, and says nothing about locality.
    """
    if find_expected(case) != "change" or not case.changed:
        return NOTHING
    reference = find_reference(case)
    if reference is None:
        return NOTHING
    needless = share_sentences(case.answer, reference)
    kept = needless & Counter(split_sentences(case.correction))
    return kept.total(), needless.total()


def count_verbatim(case: Case) -> Count:
    """Of the sentences whose words a changed answer keeps, those it keeps to the character.

    This needs no reference: whoever keeps a sentence's words, but not its case, punctuation or
    marks, did not mean to change it. Sentences without words don't count.
    """
    if not case.changed:
        return NOTHING
    before, after = split_sentences(case.answer), split_sentences(case.correction)
    same_words = Counter(map(_fold, before)) & Counter(map(_fold, after))
    del same_words[()]
    same = Counter(before) & Counter(after)
    identical: Counter[tuple[str, ...]] = Counter()
    for sentence, times in same.items():
        identical[_fold(sentence)] += times
    return (identical & same_words).total(), same_words.total()


def count_parts(case: Case, kind: str) -> Count:
    """Whether a correction keeps all parts of one kind that should be kept: 1 of 1, or 0 of 1.

    All parts of an answer that is to be kept; of one that is to be changed, those that its
    reference holds as well, if the reference edits the answer and does not replace it (the two
    share a sentence). Answers without such parts count as nothing.

    Args:
        case: A corrected answer.
        kind: A name in `aligner_integrations.protect.PATTERNS`.
    """
    reference = find_reference(case)
    if reference is None:
        return NOTHING
    if reference != case.answer and not share_sentences(case.answer, reference):
        return NOTHING
    parts = _find_parts(case.answer, kind)
    wanted = parts - Counter(find_lost(case.answer, reference, [kind]))
    if not wanted:
        return NOTHING
    held = parts - Counter(find_lost(case.answer, case.correction, [kind]))
    return int(wanted <= held), 1


def _find_parts(text: str, kind: str) -> Counter[str]:
    return Counter(text[start:end] for start, end in find_protected(text, [kind]))


def _fold(sentence: str) -> tuple[str, ...]:
    return tuple(word.casefold() for word in split_words(sentence))
