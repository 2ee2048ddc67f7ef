"""What is known of a request while it is worked on: its id, and what became of it."""

from __future__ import annotations

import re
import sys
import uuid
from collections.abc import Mapping
from contextvars import ContextVar, Token
from typing import Any

from starlette.datastructures import Headers
from starlette.types import Scope

from aligner_integrations.correction import Correction
from aligner_integrations.server.settings import GatewaySettings

ID_HEADER = "x-request-id"
TRACE_HEADERS = ("traceparent", "tracestate")

_SAFE_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,64}")
_UNTRACED = frozenset({"/health", "/metrics"})  # asked every few seconds, by machines

CURRENT: ContextVar[Record | None] = ContextVar("aligner_request", default=None)
"""The request that is worked on in this context."""


class UpstreamRecord:
    """A request's question to the upstream. This one tells nobody of it."""

    def add_trace(self, headers: dict[str, str]) -> None:
        """Put the trace that the upstream is to continue into its headers."""

    def read(self, part: Mapping[str, Any]) -> None:
        """The completion, or a chunk of it."""

    def end(self, error: BaseException | None = None) -> None:
        """The answer is whole, or failed, or nobody waits for it any longer. Once is enough."""


class Record:
    """One request; in its ``with`` block it is the current one.

    Args:
        scope: ASGI's description of the request.

    Attributes:
        id: The client's ``X-Request-ID``, if it is a short plain token, else one of our own.
        method: HTTP method.
        route: The path as the application spells it, or "other".
        status: HTTP status; 499 where the client went away before there was one, 0 until then.
        seconds: From the request to the end of its response.
        upstream_seconds: From the request to the end of the upstream's answer.
        upstream_id: The upstream's own id for its part.
        outcomes: `Correction.outcome` of each answer.
        tokens: The aligner's.
        code: The error's, where the request failed.
        trace_id: The trace that it belongs to.
    """

    def __init__(self, scope: Scope) -> None:
        self.id = read_id(Headers(scope=scope).get(ID_HEADER)) or uuid.uuid4().hex
        self.method: str = scope["method"]
        self.route = "other"
        self.status = 0
        self.seconds = 0.0
        self.upstream_seconds: float | None = None
        self.upstream_id: str | None = None
        self.outcomes: list[str] = []
        self.tokens = {"prompt": 0, "output": 0, "copied": 0}
        self.code: str | None = None
        self.trace_id: str | None = None
        self._token: Token[Record | None] | None = None

    def __enter__(self) -> Record:
        self._token = CURRENT.set(self)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._token is not None:
            CURRENT.reset(self._token)

    def note(self, correction: Correction) -> None:
        """A correction."""
        self.outcomes.append(correction.outcome)
        self.tokens["prompt"] += correction.stats.prompt_tokens
        self.tokens["output"] += correction.stats.output_tokens
        self.tokens["copied"] += correction.stats.copied_tokens

    def ask_upstream(self, settings: GatewaySettings, model: str | None) -> UpstreamRecord:
        """The upstream is about to be asked for a completion."""
        return UpstreamRecord()

    def end(self) -> None:
        """The response has ended."""

    @property
    def outcome(self) -> str | None:
        """What became of the answers, each kind once."""
        return ",".join(dict.fromkeys(self.outcomes)) or None

    def describe(self) -> str:
        """Outcome, tokens and error in a few words."""
        tokens = f"{self.tokens['prompt']}+{self.tokens['output']} tokens"
        known = (self.outcome, tokens if any(self.tokens.values()) else None, self.code)
        return " ".join(filter(None, known)) or "-"

    def fields(self) -> dict[str, Any]:
        """For the log. No text, no key, no path that somebody else chose."""
        known = {
            "method": self.method,
            "path": self.route,
            "status": self.status,
            "seconds": round(self.seconds, 4),
            "upstream_seconds": self.upstream_seconds and round(self.upstream_seconds, 4),
            "upstream_request_id": self.upstream_id,
            "outcome": self.outcome,
            "error": self.code,
        }
        if any(self.tokens.values()):
            known |= {f"{kind}_tokens": count for kind, count in self.tokens.items()}
        return {name: value for name, value in known.items() if value is not None}


def follow(scope: Scope) -> Record:
    """A record for a request, with a span where OpenTelemetry is in use."""
    path = scope["path"].removeprefix(scope.get("root_path", ""))
    if "opentelemetry.trace" in sys.modules and path not in _UNTRACED:
        from aligner_integrations.server.tracing import TracedRecord

        return TracedRecord(scope)
    return Record(scope)


def read_id(given: str | None) -> str | None:
    """An id that somebody else gave, unless that might break a log or hold anything."""
    return given if given and _SAFE_ID.fullmatch(given) else None


def current_id() -> str | None:
    """The id of the request that is worked on in this context."""
    record = CURRENT.get()
    return None if record is None else record.id
