"""Edit examples from good answers: put a defect in, the correction is what was there before."""

from __future__ import annotations

import logging
import random
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.training.data.boundaries import find_boundaries
from aligner_integrations.training.data.fields import read_text
from aligner_integrations.training.data.rows import RowProblem, read_rows
from aligner_integrations.training.data.triples import Triple

logger = logging.getLogger(__name__)

BUNDLED = Path(__file__).with_name("defects.jsonl")
"""Some sixty English sentences of seven kinds, written for this project."""


@dataclass(frozen=True, slots=True)
class Defect:
    """A sentence that no good answer holds.

    Attributes:
        kind: What is wrong with it.
        text: The sentence.
    """

    kind: str
    text: str


def read_defects(source: Any = BUNDLED, kinds: Collection[str] = ()) -> list[Defect]:
    """Defect sentences: rows of ``{"kind": "...", "text": "..."}``.

    Args:
        source: A file or rows; by default the bundled ones.
        kinds: Only these kinds; by default all.

    Raises:
        ConfigurationError: A kind does not occur.
        DataError: A row is broken; the message begins with ``file:line``.

    Example:
        >>> sorted({defect.kind for defect in read_defects()})[:3]
        ['demeaning', 'dismissive', 'false claim']
    """
    defects = []
    for place, row in read_rows(source):
        try:
            if isinstance(row, RowProblem):
                raise row
            defects.append(Defect(read_text(row, "kind"), read_text(row, "text").strip()))
        except RowProblem as problem:
            raise DataError(f"{place}: {problem}") from None
    if unknown := set(kinds) - {defect.kind for defect in defects}:
        known = ", ".join(repr(kind) for kind in sorted({defect.kind for defect in defects}))
        raise ConfigurationError(f"no defect is of kind {min(unknown)!r}; kinds are {known}")
    return [defect for defect in defects if not kinds or defect.kind in kinds]


def insert_defects(
    answers: Iterable[Triple],
    defects: Sequence[Defect] | None = None,
    *,
    seed: int = 0,
    per_answer: int = 1,
    copies: bool = False,
) -> Iterator[Triple]:
    """Make an edit example of each good answer.

    A defect goes in at a sentence boundary, never into code, a list or a table. The correction is
    the original, to the character. What is put in where depends on the seed and the texts alone,
    not on the order of the answers. ``meta`` tells the span of each defect in the answer.

    Args:
        answers: Examples whose `correction` is good.
        defects: What to put in; by default the bundled sentences.
        seed: Another seed makes other examples.
        per_answer: How many defects each answer gets, where it has room for so many.
        copies: Also give out each answer as it was, to be copied: without them a model learns
            that there is always something to take out.

    Yields:
        The examples; answers without a place for a defect are left out, and their number logged.

    Raises:
        ConfigurationError: There are no defects, or ``per_answer`` is below 1.

    Example:
        >>> good = Triple("Eggs?", "Boil them. Cool them.", "Boil them. Cool them.")
        >>> [made] = insert_defects([good], [Defect("insult", "You fool.")], seed=1)
        >>> made.answer, made.kind
        ('Boil them. You fool. Cool them.', 'defect:insult')
    """
    chosen = list(read_defects() if defects is None else defects)
    if not chosen or per_answer < 1:
        raise ConfigurationError(f"{len(chosen)} defects and {per_answer=} must be 1 or more")
    return _insert(answers, chosen, seed, per_answer, copies)


def _insert(
    answers: Iterable[Triple], defects: list[Defect], seed: int, per_answer: int, copies: bool
) -> Iterator[Triple]:
    left_out = 0
    for triple in answers:
        text = triple.correction
        # A str seeds by its bytes, so in every process alike.
        rng = random.Random(f"{seed}\0{triple.question}\0{text}")  # noqa: S311 - no secret
        places = find_boundaries(text)
        fitting = [defect for defect in defects if defect.text not in text]
        count = min(per_answer, len(places), len(fitting))
        if not count:
            left_out += 1
            continue
        put = sorted(rng.sample(places, count))
        yield _spoil(triple, list(zip(put, rng.sample(fitting, count), strict=True)))
        if copies:
            yield Triple(triple.question, text, text, "copy", triple.meta, triple.place)
    if left_out:
        logger.info("%d answers have no place for a defect and are left out", left_out)


def _spoil(triple: Triple, puts: list[tuple[int, Defect]]) -> Triple:
    text = triple.correction
    parts: list[str] = []
    spans: list[list[int]] = []
    done = length = 0
    for place, defect in puts:
        parts.append(text[done:place])
        length += place - done
        # In front of a sentence the space comes after the defect, at a paragraph's end before it.
        at_end = place > 0 and not text[place - 1].isspace()
        piece = f" {defect.text}" if at_end else f"{defect.text} "
        spans.append([length + at_end, length + at_end + len(defect.text)])
        parts.append(piece)
        length += len(piece)
        done = place
    parts.append(text[done:])
    kinds = "+".join(sorted({defect.kind for _, defect in puts}))
    meta = {**triple.meta, "defect_spans": spans}
    return Triple(triple.question, "".join(parts), text, f"defect:{kinds}", meta, triple.place)
