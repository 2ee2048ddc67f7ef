"""Loading samples, whatever dataset they are of."""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, count
from pathlib import Path
from typing import Any

from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.evaluation.datasets.dialogue import DIALOGSUM, EMPATHETIC
from aligner_integrations.evaluation.datasets.files import name_rows, read_source
from aligner_integrations.evaluation.datasets.harm import (
    ARTIFACTS,
    BEAVERTAILS,
    BEAVERTAILS_EVALUATION,
    BEHAVIOURS,
    HARMFULQA,
    XSTEST,
)
from aligner_integrations.evaluation.datasets.honesty import TRUTHFULQA
from aligner_integrations.evaluation.datasets.instructions import (
    ALPACA_EVAL,
    PLAIN,
    TRIPLES,
    read_triple,
)
from aligner_integrations.evaluation.datasets.kinds import DatasetKind, Placed
from aligner_integrations.evaluation.records import Sample
from aligner_integrations.training.data.layouts import LAYOUTS
from aligner_integrations.training.data.rows import Row, RowProblem, RowSkipped
from aligner_integrations.training.data.sampling import hash_text

logger = logging.getLogger(__name__)

DATASETS: dict[str, DatasetKind] = {
    kind.name: kind
    for kind in (
        XSTEST,
        ARTIFACTS,
        BEHAVIOURS,
        BEAVERTAILS_EVALUATION,
        BEAVERTAILS,
        HARMFULQA,
        TRUTHFULQA,
        DIALOGSUM,
        EMPATHETIC,
        ALPACA_EVAL,
        TRIPLES,
        PLAIN,
    )
}
"""All kinds by name, in the order in which a row is tried against them."""

_OWN = (TRIPLES.name, PLAIN.name)
"""Kinds that say nothing of whose data it is: samples are named after the file."""


def load_samples(
    source: Any,
    *,
    kind: str = "auto",
    name: str | None = None,
    limit: int | None = None,
    seed: int = 0,
    split: str | None = None,
) -> list[Sample]:
    """Load a dataset's rows as samples.

    Nothing is downloaded unless ``source`` is a hub id. What ``expected``, ``references`` and
    ``wrong`` mean for a dataset is said where it is read: `read_xstest` and so on, and in
    ``DATASETS[kind].note``.

    Args:
        source: A CSV, JSON, JSON Lines or Parquet file, a folder of ``save_to_disk``, a
            ``datasets.Dataset``, rows, or a hub id: ``owner/name`` or ``owner/name:configuration``.
        kind: A name in `DATASETS`, a layout of training data such as ``"pairs"`` or ``"copies"``,
            or ``"auto"`` to find it by the columns.
        name: The dataset's name in reports; by default the kind's, for triples and plain rows the
            row's own ``dataset`` or the file's name.
        limit: Draw so many at most; they stay in their order.
        seed: Of the draw.
        split: Of a hub dataset.

    Raises:
        ConfigurationError: ``kind`` is unknown or ``limit`` is below 1.
        DataError: The source can't be read, no kind fits, or a row is broken; the message begins
            with ``file:line``.

    Example:
        >>> rows = [{"question": "Eggs?", "answer": "Boil them.", "correction": "Boil them."}]
        >>> load_samples(rows, name="mine")[0].expected
        'keep'
    """
    if limit is not None and (isinstance(limit, bool) or not isinstance(limit, int) or limit < 1):
        raise ConfigurationError(f"limit={limit!r} must be a whole number from 1, or None for all")
    fixed = None if kind == "auto" else find_kind(kind)
    where = name_rows(source, split)
    rows = list(read_source(source, split))
    if not rows:
        raise DataError(f"{where}: holds no rows; name a file that does")
    found = fixed or _detect(rows)
    samples = list(_name(_read(rows, found, where), found, name, _stem(source)))
    if not samples:
        raise DataError(f"{where}: no row of it makes a sample of {found.title}")
    if limit is None or limit >= len(samples):
        return samples
    drawn = random.Random(seed).sample(range(len(samples)), limit)  # noqa: S311 - no secret
    return [samples[index] for index in sorted(drawn)]


def find_kind(name: str) -> DatasetKind:
    """The kind of this name; layouts of training data are kinds of triples.

    Raises:
        ConfigurationError: There is none.
    """
    if name in DATASETS:
        return DATASETS[name]
    if name in LAYOUTS:
        return replace(TRIPLES, read_row=read_triple(name))
    known = ["auto", *DATASETS, *LAYOUTS]
    raise ConfigurationError(
        f"kind={name!r} is unknown; kinds are {', '.join(map(repr, dict.fromkeys(known)))}"
    )


def detect_kind(row: Row) -> DatasetKind | None:
    """The kind whose columns a row has; None if it fits none.

    Example:
        >>> detect_kind({"prompt": "...", "type": "homonyms", "label": "safe"}).title
        'XSTest'
    """
    return next((kind for kind in DATASETS.values() if kind.matches(row)), None)


def _detect(rows: list[Placed]) -> DatasetKind:
    sound = [(place, row) for place, row in rows[:100] if not isinstance(row, RowProblem)]
    for _, row in sound:
        if (found := detect_kind(row)) is not None:
            return found
    if not sound:
        place, problem = rows[0]
        raise DataError(f"{place}: {problem}")
    place, row = sound[0]
    raise DataError(
        f"{place}: no dataset is known with the columns {', '.join(map(str, row)) or '(none)':.200}"
        f"; rename them to question and answer, or name its kind: {', '.join(DATASETS)}"
    )


def _read(rows: list[Placed], kind: DatasetKind, where: str) -> Iterator[tuple[Row, Sample]]:
    left_out: Counter[str] = Counter()
    gathered: Iterable[Placed] = kind.gather(rows) if kind.gather else rows
    for place, row in gathered:
        if isinstance(row, RowProblem):
            raise DataError(f"{place}: {row}")
        try:
            sample = kind.read_row(row, where)
        except RowSkipped as reason:
            left_out[str(reason)] += 1
        except RowProblem as problem:
            raise DataError(f"{place}: {problem} (read as {kind.title})") from None
        else:
            yield row, sample
    for why, times in left_out.items():
        logger.info("%s: %d rows left out: %s", where, times, why)


def _name(
    read: Iterable[tuple[Row, Sample]], kind: DatasetKind, name: str | None, stem: str | None
) -> Iterator[Sample]:
    """Samples with the dataset's name and an id that only they have."""
    taken: set[str] = set()
    for row, sample in read:
        dataset = name
        if dataset is None and kind.name in _OWN:
            own = row.get("dataset")
            dataset = own if isinstance(own, str) and own else stem
        # The texts name a row better than its number, which changes when rows are added.
        wanted = sample.id or hash_text(sample.question, sample.answer or "")
        spellings = chain([wanted], (f"{wanted}-{number}" for number in count(2)))
        unique = next(spelling for spelling in spellings if spelling not in taken)
        taken.add(unique)
        yield replace(sample, dataset=dataset or kind.name, id=unique)


def _stem(source: Any) -> str | None:
    if isinstance(source, (str, Path)):
        return Path(source).name.removesuffix(".gz").rpartition(".")[0] or Path(source).name
    return None
