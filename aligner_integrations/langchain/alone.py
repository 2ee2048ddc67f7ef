"""Calling the wrapped model so that no callback of ours hears of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Iterator
from typing import Any

from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.tracers import context

from aligner_integrations.langchain.generations import as_chunk

ALONE: RunnableConfig = {"callbacks": [], "tags": ["nostream"]}
"""Config of calls to the wrapped model: ours would stream its raw tokens, and count them twice."""


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Leave out the callbacks that LangChain takes from the context, too.

    Such as `get_usage_metadata_callback`, which would count the wrapped model's tokens and then
    those of our answer, which are the same. Around one call or one step of a stream.
    """
    hooks = getattr(context, "_configure_hooks", [])
    tokens = [(hook[0], hook[0].set(None)) for hook in hooks]
    try:
        yield
    finally:
        for variable, token in tokens:
            variable.reset(token)


def stream_alone(llm: Runnable[Any, Any], messages: Any, **kwargs: Any) -> Iterator[AIMessageChunk]:
    """What the wrapped model streams."""
    chunks = llm.stream(messages, ALONE, **kwargs)
    try:
        while True:
            with unheard():
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield as_chunk(chunk)
    finally:
        chunks.close()  # type: ignore[attr-defined]


async def astream_alone(
    llm: Runnable[Any, Any], messages: Any, **kwargs: Any
) -> AsyncGenerator[AIMessageChunk, None]:
    """`stream_alone`, without blocking the event loop."""
    chunks = llm.astream(messages, ALONE, **kwargs)
    try:
        while True:
            with unheard():
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            yield as_chunk(chunk)
    finally:
        await chunks.aclose()  # type: ignore[attr-defined]
