"""What a pairwise judge has to reply, and reading it out of what it did reply."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any, Literal

from langchain_core.exceptions import OutputParserException
from langchain_core.messages import AIMessage
from langchain_core.runnables import Runnable
from pydantic import BaseModel, Field, ValidationError, field_validator


class UnusableReply(Exception):  # noqa: N818 - raised and caught in this package only
    """Why a reply holds no verdict, said to the judge."""


class PairwiseReply(BaseModel):
    """Which of the two responses is better on the dimension that was asked about."""

    # The reason comes first, so that the verdict follows from it.
    reason: str = Field(description="Why, in one or two short sentences.")
    better: Literal["first", "second", "tie"] = Field(
        description="'first' or 'second' for the better response, 'tie' where neither is better."
    )

    @field_validator("better", mode="before")
    @classmethod
    def _normalize(cls, value: Any) -> Any:
        return value.strip().lower() if isinstance(value, str) else value


def ask_structured(model: Runnable[Any, Any], messages: Any, config: Any) -> dict[str, Any]:
    """Ask a model that ``with_structured_output(include_raw=True)`` made.

    Some clients read the reply themselves and raise where it does not fit (OpenAI's does), which is
    no failure of the request: what they say is brought into the form that the others return.
    """
    try:
        found: dict[str, Any] = model.invoke(messages, config)
    except ValidationError as error:
        text = error.errors()[0]["input"]
        return {"raw": AIMessage(str(text)), "parsed": None, "parsing_error": error}
    except OutputParserException as error:
        raw = AIMessage(str(error.llm_output or ""))
        return {"raw": raw, "parsed": None, "parsing_error": error}
    return found


def read_structured(reply: Mapping[str, Any]) -> PairwiseReply:
    """The verdict in what `ask_structured` returned.

    Raises:
        UnusableReply: There is none.
    """
    if isinstance(parsed := reply["parsed"], PairwiseReply):
        return parsed
    try:  # some models write what they should have called
        return read_text(str(reply["raw"].text))
    except UnusableReply as problem:
        error = reply["parsing_error"]
        raise UnusableReply(_explain(error) if error is not None else str(problem)) from None


def read_text(text: str) -> PairwiseReply:
    """The one verdict in a text that holds JSON somewhere.

    A judge may quote JSON that stands in a response, so verdicts that differ are none.

    Raises:
        UnusableReply: There is none, or more than one.

    Example:
        >>> read_text('Well: {"reason": "It is true.", "better": "second"}').better
        'second'
    """
    found: list[PairwiseReply] = []
    problem = "it holds no JSON object"
    for value in _read_objects(re.sub(r"<think>.*?</think>", "", text, flags=re.DOTALL)):
        try:
            found.append(PairwiseReply.model_validate(value))
        except ValidationError as error:
            problem = _explain(error)
    if len({reply.better for reply in found}) > 1:
        raise UnusableReply("it holds several verdicts that differ")
    if not found:
        raise UnusableReply(problem)
    return found[-1]


def _explain(error: BaseException) -> str:
    cause = error.__cause__ if isinstance(error.__cause__, ValidationError) else error
    if isinstance(cause, ValidationError):
        first = cause.errors()[0]
        return f"{'.'.join(map(str, first['loc'])) or 'reply'}: {first['msg']}"
    return str(error)


def _read_objects(text: str) -> Iterator[dict[str, Any]]:
    """The outermost JSON objects in a text."""
    decoder = json.JSONDecoder(strict=False)  # models write line breaks into strings
    position = text.find("{")
    while position >= 0:
        try:
            value, end = decoder.raw_decode(text, position)
            yield value
        except (ValueError, RecursionError):
            end = position + 1
        position = text.find("{", end)
