"""The tools on real data, where ``ALIGNER_DATA`` names a folder with it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aligner_integrations.training.data import (
    compute_statistics,
    find_leaks,
    insert_defects,
    read_triples,
    split_triples,
    validate,
)

FOLDER = os.environ.get("ALIGNER_DATA")
pytestmark = pytest.mark.skipif(not FOLDER, reason="ALIGNER_DATA names no folder with data")


@pytest.mark.parametrize(
    ("name", "most_problems"),
    [
        ("light_edits", 0),
        ("short_harm", 0),
        ("hh_harmless_pairs", 5),
        ("hh_helpful_pairs", 5),
        ("dpo_en_demo_pairs", 0),
        ("truthfulqa_triples", 5),
    ],
)
def test_real_files(name: str, most_problems: int) -> None:
    path = Path(str(FOLDER)) / f"{name}.jsonl"
    assert validate(path).counts.total() <= most_problems
    triples = list(read_triples(path))
    parts = split_triples(triples)
    assert find_leaks(parts.train, parts.evaluation) == []
    assert compute_statistics(triples).to_dict()["total"]["rows"] == len(triples)


def test_defects_fit_into_most_good_answers() -> None:
    good = list(read_triples(Path(str(FOLDER)) / "keep_unchanged.jsonl", "copies"))
    assert len(list(insert_defects(good))) > 0.9 * len(good)


def test_light_edits_are_edits() -> None:
    figures = compute_statistics(read_triples(Path(str(FOLDER)) / "light_edits.jsonl")).to_dict()
    assert figures["total"]["rewrite_share"] == 0
    assert figures["total"]["copied_share"]["mean"] > 0.7
