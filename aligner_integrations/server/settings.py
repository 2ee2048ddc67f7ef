"""`GatewaySettings`: where the gateway forwards to, who may ask, and how much."""

from __future__ import annotations

from dataclasses import dataclass, field
from urllib.parse import urlsplit

from aligner_integrations.conversation import History, check_history
from aligner_integrations.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class GatewaySettings:
    """What a gateway does besides correcting; a `CorrectionStep` says how it corrects.

    Args:
        upstream: Base URL of an OpenAI-compatible API, which usually ends with ``/v1``.
        model: The one upstream model that is served: asked for where a request names none, and
            requests for another get 404. By default requests go on with the model they name.
        upstream_key: API key for the upstream. Without one, and without ``api_keys``, the client's
            ``Authorization`` header goes on to the upstream.
        api_keys: Keys of which a client must send one; without any, everybody may ask.
        allowed_hosts: Names, without port, of which a request's ``Host`` must be one; without any,
            it may be anything. They keep web pages out that give a name of theirs our address.
        history: Which turns the question holds: ``"last"`` (the user's last message), ``"all"``,
            or a function of the request's messages.
        max_body: Most bytes of a request's body.
        timeout: Seconds without a byte from the upstream after which a request fails.
        max_concurrent: Most requests that are worked on at the same time.
        max_waiting: Most requests that wait for their turn; those beyond get 429.
        keep_alive: Seconds of silence after which a stream gets a comment, so that no proxy
            thinks it dead.
        page: Serve the web page at ``/``.
        trace_upstream: Tell the upstream the trace that a request belongs to, with the headers
            ``traceparent`` and ``tracestate``. Not without being asked: ids of traces and what
            others wrote into ``tracestate`` are nothing for somebody else's API.

    Raises:
        ConfigurationError: A value cannot work.

    Example:
        >>> GatewaySettings("http://127.0.0.1:8000/v1/").upstream
        'http://127.0.0.1:8000/v1'
    """

    upstream: str
    model: str | None = None
    upstream_key: str | None = field(default=None, repr=False)
    api_keys: tuple[str, ...] = field(default=(), repr=False)
    allowed_hosts: tuple[str, ...] = ()
    history: History = "last"
    max_body: int = 16 * 1024 * 1024
    timeout: float = 120.0
    max_concurrent: int = 32
    max_waiting: int = 64
    keep_alive: float = 10.0
    page: bool = True
    trace_upstream: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "upstream", _check_url(self.upstream))
        if isinstance(self.api_keys, str):
            raise ConfigurationError("api_keys must be a list of keys, not one str")
        object.__setattr__(self, "api_keys", tuple(self.api_keys))
        if isinstance(self.allowed_hosts, str):
            raise ConfigurationError("allowed_hosts must be a list of names, not one str")
        hosts = tuple(host.strip("[]").lower() for host in self.allowed_hosts)
        object.__setattr__(self, "allowed_hosts", hosts)
        for name, keys in (("upstream_key", (self.upstream_key,)), ("api_keys", self.api_keys)):
            if any(key is not None and not _is_key(key) for key in keys):
                raise ConfigurationError(
                    f"{name} holds a key that is empty or has spaces or characters beyond ASCII, "
                    "which no HTTP header can hold"
                )
        if self.model is not None and not self.model.strip():
            raise ConfigurationError(f"model={self.model!r} is empty; name a model, or give none")
        check_history(self.history)
        for name, least in (("max_body", 1), ("max_concurrent", 1), ("max_waiting", 0)):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < least:
                raise ConfigurationError(f"{name}={value!r} must be an int of at least {least}")
        for name in ("timeout", "keep_alive"):
            value = getattr(self, name)
            if not isinstance(value, (int, float)) or not 0 < value < float("inf"):
                raise ConfigurationError(f"{name}={value!r} must be a number of seconds above 0")

    @property
    def forwards_client_key(self) -> bool:
        """Whether the client's own key goes on to the upstream."""
        return self.upstream_key is None and not self.api_keys


def _check_url(url: str) -> str:
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname)
        _ = parts.port
    except ValueError:
        usable = False
    if not usable:
        raise ConfigurationError(
            f"upstream={url!r:.200} is no http(s) URL; write it like http://127.0.0.1:8000/v1"
        )
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ConfigurationError(
            "upstream must be a URL without user, password, query or fragment, because URLs are "
            "logged; give the key as upstream_key (--upstream-key)"
        )
    return url.rstrip("/")


def _is_key(key: object) -> bool:
    return isinstance(key, str) and key.isascii() and key.isprintable() and key.split() == [key]
