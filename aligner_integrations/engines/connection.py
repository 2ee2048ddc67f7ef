"""How a server is asked: where it is, with which key, how often and for how long."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

from aligner_integrations.errors import ConfigurationError

KEY_VARIABLE = "ALIGNER_SERVER_KEY"
"""Environment variable that holds the servers' key where none is passed."""

PromptAs = Literal["ids", "text"]
"""How a prompt is sent: as token ids, or as escaped text."""

OWN_FIELDS = ("model", "prompt", "max_tokens", "stream", "n", "temperature", "top_p", "seed")
"""Fields of a request that are not the caller's to set."""


@dataclass(frozen=True, slots=True)
class Connection:
    """What `Aligner.from_server` says of the servers; its docstring has the fields.

    Raises:
        ConfigurationError: A value cannot work.
    """

    server: str | Sequence[str]
    model: str
    api_key: str | None = field(default=None, repr=False)
    prompt_as: PromptAs = "ids"
    timeout: float = 120.0
    silence: float = 30.0
    retries: int = 4
    max_concurrency: int = 16
    max_waiting: int = 1024
    breaker_failures: int = 5
    breaker_seconds: float = 10.0
    prediction: bool = False
    trace_server: bool = False
    extra_body: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not isinstance(self.model, str) or not self.model:
            raise ConfigurationError(
                f"model={self.model!r:.80} must be the name that the server gives the model"
            )
        if self.prompt_as not in get_args(PromptAs):
            raise ConfigurationError(
                f"prompt_as={self.prompt_as!r:.80} must be 'ids' or, for servers that take no "
                "token ids, 'text'"
            )
        for name in ("max_concurrency", "max_waiting", "breaker_failures"):
            check_int(name, getattr(self, name), 1)
        check_int("retries", self.retries, 0)
        for name in ("timeout", "silence", "breaker_seconds"):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not value > 0:
                raise ConfigurationError(f"{name}={value!r} must be a number of seconds above 0")
        if taken := [name for name in self.extra_body if name in OWN_FIELDS]:
            raise ConfigurationError(
                f"extra_body can't set {taken[0]!r}, which comes from the prompt or the options"
            )
        key = self.api_key if self.api_key is not None else os.environ.get(KEY_VARIABLE)
        if key is not None and not (isinstance(key, str) and key.isascii() and key.isprintable()):
            raise ConfigurationError("api_key must be printable ASCII, as it goes into a header")
        object.__setattr__(self, "api_key", key or None)
        given = [self.server] if isinstance(self.server, str) else list(self.server)
        if not given:
            raise ConfigurationError("server=[] names no server; give at least one URL")
        object.__setattr__(self, "server", tuple(dict.fromkeys(map(read_url, given))))

    @property
    def urls(self) -> list[str]:
        """Each replica's API, without a slash at the end."""
        return list(self.server)


def read_url(url: Any) -> str:
    """A server's URL, checked; one without a path gets ``/v1``.

    Raises:
        ConfigurationError: It is none, or holds a key, a query or a fragment.

    Example:
        >>> read_url("http://localhost:8000/")
        'http://localhost:8000/v1'
    """
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
        valid = parts is not None and parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port if parts is not None else None
    except ValueError:
        valid = False
    if not valid or parts is None:
        shown = f"{url!r:.80}" if "@" not in str(url) else "..."
        raise ConfigurationError(
            f"server={shown} must be a URL such as 'http://localhost:8000/v1', or a list of them"
        )
    if parts.username is not None or parts.password is not None:  # it would stand in every log
        raise ConfigurationError(
            f"the URL of the server at {parts.hostname!r} holds a user or a password; pass a key "
            "as api_key=..."
        )
    if parts.query or parts.fragment:
        raise ConfigurationError(
            f"the URL of the server at {parts.hostname!r} has a query or a fragment; leave it out"
        )
    path = parts.path.rstrip("/") or "/v1"
    return f"{parts.scheme}://{parts.netloc}{path.removesuffix('/completions')}"


def check_int(name: str, value: Any, least: int) -> None:
    """Raise `ConfigurationError` unless this is an int of at least so much."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise ConfigurationError(f"{name}={value!r} must be a whole number of at least {least}")
