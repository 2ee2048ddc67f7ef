"""Values as JSON and as fields of CSV."""

from __future__ import annotations

import base64
import datetime
import json
from typing import Any

from aligner_integrations.bulk.rows import Columns, Outcome, SourceRow


def encode_outcome(outcome: Outcome, columns: Columns) -> bytes:
    """What a row gets, as a line of JSON."""
    return _dump({columns.correction: outcome.text, columns.record: outcome.record}) + b"\n"


def encode_row(row: SourceRow, outcome: Outcome, columns: Columns) -> bytes:
    """A row with what it gets, as a line of JSON.

    What was JSON stays as it was written, to the last digit.
    """
    added = encode_outcome(outcome, columns)
    raw = row.raw or _dump(dict(row.fields))
    head = raw[: raw.rindex(b"}")].rstrip()
    return head + (b"" if head.endswith(b"{") else b", ") + added[1:]


def encode_value(value: Any) -> Any:
    """What JSON has no form for: times in ISO 8601, bytes in base64, all else as a text."""
    if isinstance(value, (datetime.date, datetime.time)):
        return value.isoformat()
    if isinstance(value, (bytes, bytearray)):
        return base64.b64encode(value).decode("ascii")
    return str(value)


def encode_field(value: Any) -> str:
    """A value as a field of CSV: texts as they are, nothing for null, all else as JSON has it."""
    if value is None or isinstance(value, str):
        return value or ""
    if isinstance(value, (bool, int, float, list, dict)):
        return json.dumps(value, ensure_ascii=False, default=encode_value)
    return str(encode_value(value))


def _dump(value: Any) -> bytes:
    try:
        return json.dumps(value, ensure_ascii=False, default=encode_value).encode()
    except UnicodeEncodeError:  # half a character, which only an escape can hold
        return json.dumps(value, default=encode_value).encode("ascii")
