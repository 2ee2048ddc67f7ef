"""Reading examples from files and data sets."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from itertools import chain, islice
from typing import Any, Literal

from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.training.data.dialogues import Turns
from aligner_integrations.training.data.layouts import (
    LayoutOptions,
    Preference,
    detect_layout,
    find_layout,
)
from aligner_integrations.training.data.rows import (
    RowProblem,
    RowSkipped,
    name_source,
    read_rows,
)
from aligner_integrations.training.data.triples import Triple

logger = logging.getLogger(__name__)

_LOOK_AT = 100
"""Rows that are looked at to find the layout; the first may be broken."""

Outcome = Triple | RowProblem | RowSkipped


def read_triples(
    source: Any,
    layout: str = "auto",
    *,
    on_error: Literal["raise", "skip"] = "raise",
    turns: Turns = "all",
    preference: Preference = "better",
) -> Iterator[Triple]:
    """Read examples one after the other; nothing but the current row is held.

    Args:
        source: A JSON Lines file (``.gz`` too), a Parquet file, a folder that
            ``Dataset.save_to_disk`` wrote, a ``datasets.Dataset`` or ``IterableDataset``, or any
            iterable of dicts.
        layout: A name in `LAYOUTS`; ``"auto"`` finds it from the fields.
        on_error: What to do with a broken row: raise, or leave it out and log how many.
        turns: Turns of a dialogue that the question holds: ``"all"`` or the ``"last"``.
        preference: For PKU-SafeRLHF, which label picks the chosen answer.

    Raises:
        ConfigurationError: An option is unknown.
        DataError: A row is broken, or the source can't be read. The message begins with the
            place, ``file:line``.

    Example:
        >>> rows = [{"prompt": "Eggs?", "chosen": "Boil them.", "rejected": "No."}]
        >>> next(read_triples(rows)).answer
        'No.'
    """
    if on_error not in ("raise", "skip"):
        raise ConfigurationError(f"on_error={on_error!r} must be 'raise' or 'skip'")
    if layout != "auto":
        find_layout(layout)
    return _read(source, layout, on_error, LayoutOptions(turns, preference))


def _read(source: Any, layout: str, on_error: str, options: LayoutOptions) -> Iterator[Triple]:
    left_out: Counter[str] = Counter()
    for place, outcome in read_outcomes(source, layout, options):
        if isinstance(outcome, Triple):
            yield outcome
        elif isinstance(outcome, RowSkipped):
            left_out[str(outcome)] += 1
        elif on_error == "raise":
            raise DataError(f"{place}: {outcome}")
        else:
            left_out[outcome.kind] += 1
    for reason, count in left_out.items():
        logger.info("%s: %d rows left out: %s", name_source(source), count, reason)


def read_outcomes(
    source: Any, layout: str = "auto", options: LayoutOptions | None = None
) -> Iterator[tuple[str, Outcome]]:
    """What became of each row: an example, a problem, or a row that the layout leaves out.

    Raises:
        DataError: The source can't be read, holds no rows, or no layout fits.
    """
    rows = read_rows(source)
    head = list(islice(rows, _LOOK_AT))
    if not head:
        raise DataError(f"{name_source(source)}: holds no rows; name a file that does")
    sound = [row for _, row in head if not isinstance(row, RowProblem)]
    if layout == "auto":
        found = next(filter(None, map(detect_layout, sound)), None)
        if found is None and sound:
            raise DataError(
                f"{head[0][0]}: no layout fits the fields "
                f"{', '.join(map(str, sound[0])) or '(none)'}; name one as layout ('copies' for "
                "good answers without a correction), or rename the fields to question, answer and "
                "correction"
            )
        # Without a sound row there is nothing to convert, only problems to name.
        layout = found or "triples"
    convert = find_layout(layout)
    for place, row in chain(head, rows):
        if isinstance(row, RowProblem):
            yield place, row
            continue
        try:
            triple = convert(row, options or LayoutOptions())
        except (RowProblem, RowSkipped) as reason:
            yield place, reason
        else:
            yield place, _put(triple, place)


def _put(triple: Triple, place: str) -> Triple:
    return Triple(
        triple.question, triple.answer, triple.correction, triple.kind, triple.meta, place
    )
