"""Contrastive pairs: an answer that is to be corrected beside one that is to be copied."""

from __future__ import annotations

import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import log
from typing import Literal, get_args

from aligner_integrations.errors import ConfigurationError, DataError, InvalidTextError
from aligner_integrations.tokenization import PromptEncoder
from aligner_integrations.training.data.triples import Triple

logger = logging.getLogger(__name__)

Pairing = Literal["same", "matched", "both"]
"""Where a pair's good answer comes from: the same question, one of like length, or half each."""

_MOST_RATIO = 2.0  # lengths within a pair differ by no more
_MOST_TOKENS = 512  # of an answer: states of long ones cost memory and tell no more
_MOST_MATCHED = 2000  # answers that are matched with each other; the time grows with the cube


@dataclass(frozen=True, slots=True)
class Case:
    """A question and an answer, and what an aligner should write.

    Attributes:
        question: What was asked.
        answer: What the aligner reads.
        output: What it is made to write when its states are collected: the correction, or the
            answer itself.
        tokens: Length of the answer.
    """

    question: str
    answer: str
    output: str
    tokens: int

    @property
    def corrects(self) -> bool:
        """Whether it is of the class "correct", and not of "copy"."""
        return self.output != self.answer


@dataclass(frozen=True, slots=True)
class Pair:
    """Two cases that differ in the class.

    Attributes:
        correct: The answer is bad, and its correction the output.
        copy: The answer is good, and the output too.
    """

    correct: Case
    copy: Case

    @property
    def is_same_question(self) -> bool:
        """Whether both answer one question."""
        return self.correct.question == self.copy.question


def make_pairs(
    triples: Iterable[Triple],
    encoder: PromptEncoder,
    *,
    limit: int | None = None,
    pairing: Pairing = "both",
    seed: int = 0,
    max_tokens: int = _MOST_TOKENS,
) -> list[Pair]:
    """Pair bad answers with good ones, so that little but the class tells them apart.

    A pair of the kind ``"same"`` is one question with its bad answer and with the correction in
    the answer's place: the question can't tell the classes apart. One of the kind ``"matched"``
    has a good answer from the data that is about as long: nothing of the aligner's own wording
    stands in it. Within a pair lengths differ by a factor of two at most, and pairs whose good
    answer is longer alternate with those whose good answer is shorter, so that the classes are
    about equally long as far as the data allow it. Each question stands in one pair only, hence
    parts of the list share none.

    Args:
        triples: Answers with corrections; with ``"matched"`` also good answers (answer and
            correction equal).
        encoder: Counts tokens.
        limit: Most pairs.
        pairing: Which kinds. ``"both"`` takes what there is.
        seed: Which ones are drawn, and in what order.
        max_tokens: Longer answers are left out.

    Raises:
        ConfigurationError: ``pairing`` is unknown.
        DataError: No pair can be made.
    """
    if pairing not in get_args(Pairing):
        raise ConfigurationError(
            f"pairing={pairing!r} must be one of {', '.join(map(repr, get_args(Pairing)))}"
        )
    bad, good = _read(triples, encoder, max_tokens)
    draw = random.Random(seed)  # noqa: S311 - a sample, no secret
    draw.shuffle(bad)
    draw.shuffle(good)
    kinds: list[list[Pair]] = []
    if pairing in ("matched", "both") and good:
        # With both kinds half of the bad answers is kept for the other kind.
        share = bad if pairing == "matched" else bad[: len(bad) // 2]
        kinds.append(_balance(_match(share[:_MOST_MATCHED], good[:_MOST_MATCHED])))
    if pairing in ("same", "both"):
        rest = bad[len(bad) // 2 :] if kinds else bad
        same = [_answer_with_correction(case, encoder) for case in rest]
        kinds.append(_balance([pair for pair in same if _is_close(pair)]))
    pairs = _interleave(kinds, limit)
    if not pairs:
        raise DataError(
            f"no pair of a bad and a good answer in {len(bad)} answers with corrections and "
            f"{len(good)} good ones; a scan needs triples whose correction differs from the "
            f"answer, at most {max_tokens} tokens long, and not half or twice as long as it"
        )
    return pairs


def _read(
    triples: Iterable[Triple], encoder: PromptEncoder, max_tokens: int
) -> tuple[list[Case], list[Case]]:
    """Bad and good answers that can be used; the first of each question."""
    bad: list[Case] = []
    good: list[Case] = []
    seen: set[str] = set()
    for triple in triples:
        if triple.question in seen or not triple.answer.strip() or not triple.correction.strip():
            continue
        try:
            sizes = [len(encoder.encode_output(t)) for t in (triple.answer, triple.correction)]
        except InvalidTextError:
            continue
        if max(sizes) > max_tokens:
            continue
        seen.add(triple.question)
        case = Case(triple.question, triple.answer, triple.correction, sizes[0])
        (bad if case.corrects else good).append(case)
    return bad, good


def _answer_with_correction(case: Case, encoder: PromptEncoder) -> Pair:
    size = len(encoder.encode_output(case.output))
    return Pair(case, Case(case.question, case.output, case.output, size))


def _match(bad: Sequence[Case], good: Sequence[Case]) -> list[Pair]:
    """Pairs of two questions whose answers are of about equal length, each used once."""
    import numpy as np
    from scipy.optimize import linear_sum_assignment

    sizes = [np.log([case.tokens for case in cases]) for cases in (bad, good)]
    cost = np.abs(sizes[0][:, None] - sizes[1][None])
    rows, columns = linear_sum_assignment(cost)
    pairs = [Pair(bad[row], good[column]) for row, column in zip(rows, columns, strict=True)]
    return [pair for pair in pairs if _is_close(pair)]


def _ratio(pair: Pair) -> float:
    """By how much the copied answer is longer; the logarithm of the ratio."""
    return log(pair.copy.tokens / pair.correct.tokens)


def _is_close(pair: Pair) -> bool:
    return abs(_ratio(pair)) <= log(_MOST_RATIO)


def _balance(pairs: Sequence[Pair]) -> list[Pair]:
    """Order pairs so that from any beginning the classes are about equally long.

    Those that nothing is left to balance with come last, the least different first.
    """
    longer = [pair for pair in pairs if _ratio(pair) > 0]
    others = [pair for pair in pairs if _ratio(pair) <= 0]
    chosen: list[Pair] = []
    excess = 0.0
    while pool := others if excess > 0 else longer:
        pair = pool.pop(0)
        excess += _ratio(pair)
        chosen.append(pair)
    return chosen + sorted(longer + others, key=lambda pair: abs(_ratio(pair)))


def _interleave(kinds: Sequence[list[Pair]], limit: int | None) -> list[Pair]:
    """The kinds in turn, as far as each goes."""
    queues = [list(kind) for kind in kinds]
    pairs: list[Pair] = []
    while any(queues) and (limit is None or len(pairs) < limit):
        for queue in queues:
            if queue and (limit is None or len(pairs) < limit):
                pairs.append(queue.pop(0))
    return pairs
