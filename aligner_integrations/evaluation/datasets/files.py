"""Rows of the files in which datasets are published, of hub datasets, and of objects in memory."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

from aligner_integrations.errors import DataError
from aligner_integrations.evaluation.datasets.kinds import Placed
from aligner_integrations.imports import require
from aligner_integrations.training.data.rows import RowProblem, name_source, read_rows

_HUB_ID = re.compile(r"(?P<id>[\w.-]+/[\w.-]+)(?::(?P<config>[\w.-]+))?")
_SUFFIXES = (".csv", ".json", ".jsonl", ".parquet", ".gz", ".tsv", ".txt")
_FIELD_LIMIT = 10_000_000
"""Characters of one CSV field; Python's own limit is 131072, which long answers pass."""


def read_source(source: Any, split: str | None = None) -> Iterator[Placed]:
    """Rows of a source with their places.

    Args:
        source: A CSV, JSON, JSON Lines (``.gz`` too) or Parquet file, a folder that
            ``Dataset.save_to_disk`` wrote, a ``datasets.Dataset``, any iterable of dicts, or a hub
            id, ``owner/name`` or ``owner/name:configuration``, which is downloaded.
        split: Of a hub dataset or a ``DatasetDict``.

    Yields:
        ``file:line`` and the row, or what is wrong with it. Where a file has no lines of rows
        (JSON arrays, Parquet) the line is the row's number, from 1.

    Raises:
        DataError: The source can't be read.
    """
    if isinstance(source, (str, Path)):
        path = Path(source)
        if path.exists():
            return _read_path(path, split)
        hub = _HUB_ID.fullmatch(str(source))
        if hub and isinstance(source, str) and path.suffix not in _SUFFIXES:
            return read_rows(_load(hub["id"], hub["config"], split))
        raise DataError(
            f"{source}: no such file, and no hub id (owner/name or owner/name:configuration)"
        )
    return read_rows(_choose(source, split, name_source(source)))


def name_rows(source: Any, split: str | None = None) -> str:
    """What a source is called in messages, with its split."""
    return f"{name_source(source)}[{split}]" if split else name_source(source)


def _read_path(path: Path, split: str | None) -> Iterator[Placed]:
    if path.is_dir() and split is not None:
        require("datasets", "eval")
        from datasets import load_from_disk

        return read_rows(_choose(load_from_disk(str(path)), split, str(path)))
    if split is not None:
        raise DataError(f"{path}: is one file and has no split {split!r}; leave split out")
    if path.suffix == ".csv":
        return _read_csv(path)
    if path.suffix == ".json":
        return _read_json(path)
    return read_rows(path)


def _choose(loaded: Any, split: str | None, name: str) -> Any:
    if not isinstance(loaded, Mapping):
        return loaded
    if split is None and len(loaded) == 1:
        return next(iter(loaded.values()))
    if split not in loaded:
        raise DataError(
            f"{name}: has no split {split!r}; pass split= with one of "
            f"{', '.join(map(repr, loaded)) or '(none)'}"
        )
    return loaded[split]


def _load(name: str, config: str | None, split: str | None) -> Any:
    require("datasets", "eval")
    import datasets

    try:
        loaded = datasets.load_dataset(name, config)
    # It raises what the network, the hub, its own builders and pyarrow raise.
    except Exception as error:
        raise DataError(
            f"{name}: is no file, and can't be loaded from the hub: {type(error).__name__}: "
            f"{error!s:.300}; download its file and name that"
        ) from error
    return _choose(loaded, split, name)


def _read_csv(path: Path) -> Iterator[Placed]:
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            header = file.readline()
            file.seek(0)
            # EmpatheticDialogues writes its commas in words and quotes nothing.
            bare = "utterance_idx" in header
            reader = csv.reader(file, quoting=csv.QUOTE_NONE if bare else csv.QUOTE_MINIMAL)
            limit = csv.field_size_limit(_FIELD_LIMIT)
            try:
                yield from _read_fields(path, reader, bare)
            finally:
                csv.field_size_limit(limit)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: can't be read as CSV: {error}") from error


def _read_fields(path: Path, reader: Any, bare: bool) -> Iterator[Placed]:
    names = [name.strip() for name in next(reader, [])]
    line = reader.line_num + 1
    for values in reader:
        place, line = f"{path}:{line}", reader.line_num + 1
        if not values:
            continue
        if len(values) > len(names) and not bare:
            yield (
                place,
                RowProblem(
                    "too many fields",
                    f"{len(values)} where the header names {len(names)}; quote texts with commas",
                ),
            )
            continue
        yield place, dict(zip_longest(names, values[: len(names)]))


def _read_json(path: Path) -> Iterator[Placed]:
    """A JSON array, or an object that holds one, as JailbreakBench's; else JSON Lines."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: can't be read as JSON: {error}") from error
    try:
        data = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data" and text.lstrip().startswith("{"):
            yield from read_rows(path)
            return
        raise DataError(f"{path}:{error.lineno}: invalid JSON: {error.msg}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"{path}: invalid JSON: {error}") from error
    for place, row in read_rows(_find_rows(path, data)):
        yield f"{path}:{place.rpartition(':')[2]}", row


def _find_rows(path: Path, data: Any) -> list[Any]:
    if isinstance(data, list):
        return data
    if isinstance(data, dict) and isinstance(rows := data.get("jailbreaks"), list):
        about = data.get("parameters")
        about = about if isinstance(about, dict) else {}
        shared = {name: about[name] for name in ("method", "model") if name in about}
        return [shared | row if isinstance(row, dict) else row for row in rows]
    if isinstance(data, dict):
        return [data]  # JSON Lines of a single line
    raise DataError(f"{path}: holds {data!r:.60}; it must be an array of objects")
