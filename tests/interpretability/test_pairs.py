"""Pairs: little but the class tells them apart."""

from __future__ import annotations

import random
import re

import pytest

from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.interpretability.pairs import make_pairs
from aligner_integrations.prompts import PRESETS
from aligner_integrations.tokenization import PromptEncoder
from aligner_integrations.training.data.triples import Triple
from tests.tiny import make_byte_level_tokenizer


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return PromptEncoder(PRESETS["aligner-smol"], make_byte_level_tokenizer(), {2})


def make_rows(count: int = 40) -> list[Triple]:
    """Bad answers, half of them longer than their corrections, and good answers."""
    draw = random.Random(1)
    rows = []
    for index in range(count):
        answer, other = "ab " * draw.randint(5, 30), "cd " * draw.randint(5, 30)
        rows.append(Triple(f"bad {index}", answer, other))
        rows.append(Triple(f"good {index}", other, other))
    return rows


def test_questions_stand_in_one_pair_only(encoder: PromptEncoder) -> None:
    pairs = make_pairs([*make_rows(), *make_rows()], encoder)
    questions = [q for p in pairs for q in {p.correct.question, p.copy.question}]
    assert len(questions) == len(set(questions))
    assert all(pair.correct.corrects and not pair.copy.corrects for pair in pairs)
    assert 0.3 < sum(pair.is_same_question for pair in pairs) / len(pairs) < 0.7


def test_a_pair_of_one_question_has_the_correction_for_its_good_answer(
    encoder: PromptEncoder,
) -> None:
    for pair in make_pairs(make_rows(), encoder, pairing="same"):
        assert pair.is_same_question
        assert pair.copy.answer == pair.copy.output == pair.correct.output


@pytest.mark.parametrize("pairing", ["same", "matched", "both"])
def test_lengths_tell_nothing(encoder: PromptEncoder, pairing: str) -> None:
    pairs = make_pairs(make_rows(200), encoder, limit=40, pairing=pairing)  # type: ignore[arg-type]
    assert len(pairs) == 40
    sizes = [[one.tokens for one in side] for side in zip(*((p.correct, p.copy) for p in pairs))]  # noqa: B905
    assert abs(sum(sizes[0]) / sum(sizes[1]) - 1) < 0.05
    assert all(0.5 <= bad / good <= 2 for bad, good in zip(*sizes, strict=True))


def test_lopsided_data_give_pairs_all_the_same(encoder: PromptEncoder) -> None:
    """Corrections that are always shorter can't be balanced."""
    rows = [Triple(f"q {n}", "ab " * (10 + n % 5), "ab " * (8 + n % 5)) for n in range(20)]
    assert len(make_pairs(rows, encoder)) == 20


def test_seed(encoder: PromptEncoder) -> None:
    rows = make_rows()
    assert make_pairs(rows, encoder, seed=1) == make_pairs(rows, encoder, seed=1)
    assert make_pairs(rows, encoder, seed=1) != make_pairs(rows, encoder, seed=2)


def test_answers_that_can_not_be_used(encoder: PromptEncoder) -> None:
    rows = [
        Triple("blank", " ", "x"),
        Triple("long", "ab " * 300, "cd " * 300),
        Triple("broken", "\ud800", "x"),
    ]
    with pytest.raises(DataError, match="no pair of a bad and a good answer in 0 answers"):
        make_pairs(rows, encoder, max_tokens=100)


def test_unknown_pairing(encoder: PromptEncoder) -> None:
    with pytest.raises(ConfigurationError, match=re.escape("pairing='other' must be one of")):
        make_pairs([], encoder, pairing="other")  # type: ignore[arg-type]
