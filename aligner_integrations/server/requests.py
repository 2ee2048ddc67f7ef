"""What the gateway needs to know of a request: only that is read and checked."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request

from aligner_integrations.conversation import History, Turn, find_question
from aligner_integrations.errors import QuestionNotFoundError
from aligner_integrations.server.content import read_text
from aligner_integrations.server.errors import ApiError
from aligner_integrations.step import CorrectionStep

_READ = frozenset({"messages", "metadata", "model", "response_format", "stream"})


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """A request for a chat completion.

    Attributes:
        content: The body for the upstream: the client's own bytes, but where a model was missing.
        model: The model's name, where there is one.
        messages: The conversation.
        stream: Whether the client wants a stream.
        is_json: Whether the client wants JSON, which is not corrected.
        tags: The values of the request's metadata, for a gate.
    """

    content: bytes
    model: str | None
    messages: list[dict[str, Any]]
    stream: bool
    is_json: bool
    tags: tuple[str, ...]

    def find_question(self, history: History, step: CorrectionStep) -> str:
        """The question that the messages end with; any last text, where no user said anything.

        Raises:
            QuestionNotFoundError: There is no text at all.
        """
        try:
            return find_question(self.messages, history, _read_turns, step.render)
        except QuestionNotFoundError:
            texts = [text for message in self.messages if (text := _text_of(message))]
            if not texts:
                raise QuestionNotFoundError(
                    f"the {len(self.messages)} messages hold no text, so there is no question "
                    "that an answer could be corrected for; send a message with text"
                ) from None
            return texts[-1]


def read_chat(content: bytes, model: str | None) -> ChatRequest:
    """A request's body.

    Args:
        content: The body.
        model: The model that is served; None for whichever the request names.

    Raises:
        ApiError: It is no request for a chat completion, or for another model.
    """
    body = read_object(content)
    _check_spelling(body)
    messages = body.get("messages")
    if not isinstance(messages, list) or not messages:
        raise ApiError(400, "messages must be a list with at least one message", param="messages")
    if not all(isinstance(message, dict) for message in messages):
        raise ApiError(400, "each of messages must be an object", param="messages")
    for name, kind in (("stream", bool), ("model", str), ("response_format", dict)):
        value = body.get(name)
        if value is not None and not isinstance(value, kind):
            raise ApiError(400, f"{name} has the wrong type {type(value).__name__}", param=name)
    if model is not None:
        check_model(body.get("model") or model, model)
        if not body.get("model"):
            content = _encode({**body, "model": model})
    metadata = body.get("metadata")
    return ChatRequest(
        content=content,
        model=body.get("model") or model,
        messages=messages,
        stream=bool(body.get("stream")),
        is_json=(body.get("response_format") or {}).get("type") in ("json_object", "json_schema"),
        tags=tuple(value for value in metadata.values() if isinstance(value, str))
        if isinstance(metadata, dict)
        else (),
    )


def check_model(name: str, served: str) -> None:
    """Raise the `ApiError` for a model that is not served."""
    if name != served:
        raise ApiError(
            404,
            f"the model {name!r:.200} is not served here; use {served!r}",
            code="model_not_found",
            param="model",
        )


def read_object(content: bytes) -> dict[str, Any]:
    """A body as a JSON object.

    Raises:
        ApiError: It is none, or other parsers might read something else in it.
    """
    try:
        body = json.loads(content.decode("utf-8"), object_pairs_hook=_read_pairs)
    except (ValueError, RecursionError) as error:
        raise ApiError(
            400, f"the body is not valid JSON: {error!s:.200}", code="invalid_json"
        ) from None
    if not isinstance(body, dict):
        raise ApiError(400, f"the body must be a JSON object, not a {type(body).__name__}")
    return body


async def read_limited(request: Request, limit: int) -> bytes:
    """A request's body, given up as soon as it is too large.

    Raises:
        ApiError: 413 where it is too large, 415 where it is not declared as JSON: a web page of
            somebody else can't declare that without asking the gateway first.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(
            415, f"the content type {kind!r:.80} must be application/json", code="not_json"
        )
    length = request.headers.get("content-length", "")
    size, parts = int(length) if length.isdecimal() else 0, list[bytes]()
    if size <= limit:
        size = 0
        async for part in request.stream():
            size += len(part)
            if size > limit:
                break
            parts.append(part)
    if size > limit:
        raise ApiError(
            413,
            f"the body has more than {limit} bytes; send less, or raise --max-body",
            code="request_too_large",
        )
    return b"".join(parts)


def _read_pairs(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        twice = next(name for name in names if names.count(name) > 1)
        raise ApiError(
            400,
            f"the body holds {twice!r:.80} twice in one object, of which parsers read one or the "
            "other; send it once",
            code="invalid_json",
        )
    return found


def _check_spelling(body: dict[str, Any]) -> None:
    """Some upstreams ignore the case of keys; those must not see what the gateway did not."""
    for name in body:
        if name not in _READ and name.casefold() in _READ:
            raise ApiError(
                400, f"{name!r:.80} must be written {name.casefold()!r}", param=name.casefold()
            )


def _encode(body: dict[str, Any]) -> bytes:
    try:
        return json.dumps(body).encode()
    except RecursionError:
        raise ApiError(400, "the body is nested too deeply", code="invalid_json") from None


def _read_turns(messages: Sequence[dict[str, Any]]) -> list[Turn]:
    return [
        Turn("user" if message["role"] == "user" else "assistant", text)
        for message in messages
        if message.get("role") in ("user", "assistant") and (text := _text_of(message))
    ]


def _text_of(message: dict[str, Any]) -> str:
    text = read_text(message.get("content")) or ""
    return text if text.strip() else ""
