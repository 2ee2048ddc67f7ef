"""The gateway's log: lines of text or of JSON, each with the id of the request that it is about."""

from __future__ import annotations

import json
import logging
from datetime import datetime, timezone
from typing import Any

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.server.records import CURRENT

FORMATS = ("text", "json")
_TEXT = "%(asctime)s %(levelname)s [%(request_id)s] %(message)s"


class RequestIdFilter(logging.Filter):
    """Gives each log record the ``request_id`` and ``trace_id`` of the current request, or "-".

    For a handler of your own; its format may then hold ``%(request_id)s``.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Never drops a record."""
        current = CURRENT.get()
        record.request_id = "-" if current is None else current.id
        record.trace_id = (current and current.trace_id) or "-"
        return True


class JsonFormatter(logging.Formatter):
    """One JSON object a line: time, level, logger, message, ids, and the fields of a request."""

    def format(self, record: logging.LogRecord) -> str:
        """See `logging.Formatter.format`."""
        time = datetime.fromtimestamp(record.created, timezone.utc)
        line: dict[str, Any] = {
            "time": time.isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
        }
        for name in ("request_id", "trace_id"):
            if (value := getattr(record, name, "-")) != "-":
                line[name] = value
        line |= getattr(record, "fields", {})
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def make_handler(kind: str) -> logging.Handler:
    """A handler for standard error.

    Args:
        kind: ``"text"`` or ``"json"``.

    Raises:
        ConfigurationError: It is neither.
    """
    if kind not in FORMATS:
        raise ConfigurationError(f"--log-format {kind!r} must be {' or '.join(FORMATS)}")
    handler = logging.StreamHandler()
    handler.addFilter(RequestIdFilter())
    handler.setFormatter(JsonFormatter() if kind == "json" else logging.Formatter(_TEXT))
    return handler
