"""Measures, statistics, the picture, filters and identities."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.training.data import (
    Triple,
    add_identities,
    compute_statistics,
    draw,
    keep_close,
    make_identity,
    measure,
)

COPY = Triple("Eggs?", "Boil them.", "Boil them.", "copy")
EDIT = Triple("Eggs?", "Boil them, you silly fool, now.", "Boil them now.", "edit")
REWRITE = Triple("Eggs?", "No way.", "Put eggs into hot water for eight minutes.", "rewrite")


def test_measures() -> None:
    assert (measure(COPY).edits, measure(COPY).similarity, measure(COPY).copied) == (0, 1.0, 1.0)
    edit = measure(EDIT)
    assert (edit.edits, edit.copied, edit.answer_words, edit.correction_words) == (1, 1.0, 6, 3)
    assert 0.5 < edit.similarity < 1
    rewrite = measure(REWRITE)
    assert rewrite.similarity < 0.5
    assert rewrite.copied == 0


@given(st.text(), st.text())
def test_measures_stay_in_range(answer: str, correction: str) -> None:
    measures = measure(Triple("q", answer, correction))
    assert 0 <= measures.similarity <= 1
    assert 0 <= measures.copied <= 1
    assert (measures.edits == 0) == (answer == correction)


def test_huge_texts_are_measured_in_time() -> None:
    huge = "Ei 🥚 kochen. " * 100_000
    measures = measure(Triple("q", huge, huge + "Ja."))
    assert (measures.answer_words, measures.edits) == (200_000, 1)


def test_statistics() -> None:
    statistics = compute_statistics([COPY, COPY, EDIT, REWRITE])
    data = statistics.to_dict()
    assert data["total"]["rows"] == 4
    assert data["total"]["identity_share"] == 0.5
    assert data["total"]["rewrite_share"] == 0.25
    assert data["total"]["edits"]["0"] == {"rows": 2, "share": 0.5}
    assert sum(edits["rows"] for edits in data["total"]["edits"].values()) == 4
    assert data["kinds"]["edit"]["answer_words"]["max"] == 6
    assert list(data["kinds"]) == ["copy", "edit", "rewrite"]
    assert json.loads(json.dumps(data)) == data


def test_tokens_and_other_kinds() -> None:
    def tokenizer(texts: list[str], *, add_special_tokens: bool) -> dict[str, Any]:
        assert not add_special_tokens
        return {"input_ids": [list(text) for text in texts]}

    statistics = compute_statistics([COPY, EDIT], tokenizer=tokenizer, by=lambda _: "all")
    assert list(statistics.kinds) == ["all"]
    assert statistics.total.tokens == [(10, 10), (31, 14)]
    assert statistics.to_dict()["total"]["answer_tokens"]["max"] == 31


def test_no_examples() -> None:
    with pytest.raises(DataError, match="holds no examples"):
        compute_statistics([])


def test_table() -> None:
    rows = [Triple("q", "a", "b", f"kind{n}") for n in range(30)]
    console = Console(width=80, record=True, file=io.StringIO())
    console.print(compute_statistics([COPY, *rows]).to_rich())
    text = console.export_text()
    assert "copy" in text
    assert "... 11 more kinds" in text
    assert "31" in text


@pytest.mark.parametrize("rows", [[COPY], [COPY, EDIT, REWRITE], [Triple("q", "...", "!")]])
def test_picture(tmp_path: Path, rows: list[Triple]) -> None:
    draw(compute_statistics(rows), tmp_path / "data.png", title="data")
    assert (tmp_path / "data.png").read_bytes().startswith(b"\x89PNG")


def test_keep_close() -> None:
    rows = [COPY, EDIT, REWRITE]
    assert list(keep_close(rows)) == rows
    assert list(keep_close(rows, max_length_ratio=3)) == [COPY, EDIT]
    assert list(keep_close(rows, min_similarity=0.9)) == [COPY]
    for wrong in ({"max_length_ratio": 0.5}, {"min_similarity": 2}):
        with pytest.raises(ConfigurationError, match="must be"):
            keep_close(rows, **wrong)  # type: ignore[arg-type]


def test_identities() -> None:
    assert make_identity(EDIT).is_identity
    assert make_identity(EDIT).kind == "edit:identity"
    rows = [Triple("q", f"a{n}", f"b{n}") for n in range(400)]
    made = [row for row in add_identities(rows, 0.25) if row.is_identity]
    assert 60 < len(made) < 140
    assert made == [row for row in add_identities(rows, 0.25) if row.is_identity]
    again = {row.answer for row in add_identities(reversed(rows), 0.25) if row.is_identity}
    assert again == {row.answer for row in made}
    assert list(add_identities([COPY], 1.0)) == [COPY]
    assert list(add_identities(rows, 0.0)) == rows
    with pytest.raises(ConfigurationError, match="share=2 of identities"):
        add_identities(rows, 2)
