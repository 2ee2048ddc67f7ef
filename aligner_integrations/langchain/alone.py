"""Calling the wrapped model so that no callback of ours hears of it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any, TypeVar

from langchain_core.callbacks import CallbackManager
from langchain_core.messages import AIMessageChunk
from langchain_core.runnables import Runnable, RunnableConfig
from langchain_core.runnables.config import var_child_runnable_config
from langchain_core.tracers import context

from aligner_integrations.langchain.generations import as_chunk

ALONE: RunnableConfig = {"callbacks": [], "tags": ["nostream"]}
"""Config of calls to the wrapped model: ours would stream its raw tokens, and count them twice."""

_TOLD = ("__pregel_stream", "__pregel_checkpointer")
"""What a LangGraph around us hands down to graphs within, which would tell it their raw state."""

_T = TypeVar("_T")


@contextlib.contextmanager
def unheard() -> Iterator[None]:
    """Leave out the callbacks that LangChain takes from the context, too.

    Such as `get_usage_metadata_callback`, which would count the wrapped model's tokens and then
    those of our answer, which are the same; those of the run around us, which a wrapped model that
    asks models of its own would hand on to them; and the stream and the checkpointer of a LangGraph
    around us, which a wrapped graph would write to. Around one call or one step of a stream.
    """
    hooks = getattr(context, "_configure_hooks", [])
    tokens = [(hook[0], hook[0].set(None)) for hook in hooks]
    known = var_child_runnable_config.get() or {}
    # It keeps its place in the run tree: custom events must have one, heard or not.
    parent = getattr(known.get("callbacks"), "parent_run_id", None)
    values = known.get("configurable", {})
    alone: RunnableConfig = {
        **known,
        "callbacks": CallbackManager([], parent_run_id=parent),
        "configurable": {key: values[key] for key in values if key not in _TOLD},
    }
    token = var_child_runnable_config.set(alone)
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)
        for variable, hook_token in tokens:
            variable.reset(hook_token)


@contextlib.contextmanager
def configured(config: RunnableConfig | None) -> Iterator[None]:
    """Let the wrapped runnable know what a call's config configures; chat models are not told."""
    values = (config or {}).get("configurable")
    if not values:
        yield
        return
    known = var_child_runnable_config.get() or {}
    merged = {**known.get("configurable", {}), **values}
    token = var_child_runnable_config.set({**known, "configurable": merged})
    try:
        yield
    finally:
        var_child_runnable_config.reset(token)


def iterate_within(
    within: Callable[[], AbstractContextManager[None]], start: Callable[[], Iterator[_T]]
) -> Iterator[_T]:
    """Iterate with each step, and nothing else, in a context."""
    with within():
        chunks = start()
    try:
        while True:
            with within():
                chunk = next(chunks, None)
            if chunk is None:
                return
            yield chunk
    finally:
        if hasattr(chunks, "close"):  # not every iterator is a generator
            chunks.close()


async def aiterate_within(
    within: Callable[[], AbstractContextManager[None]], start: Callable[[], AsyncIterator[_T]]
) -> AsyncGenerator[_T, None]:
    """`iterate_within`, without blocking the event loop."""
    with within():
        chunks = start()
    try:
        while True:
            with within():
                chunk = await anext(chunks, None)
            if chunk is None:
                return
            yield chunk
    finally:
        if hasattr(chunks, "aclose"):
            await chunks.aclose()


def stream_alone(llm: Runnable[Any, Any], messages: Any, **kwargs: Any) -> Iterator[AIMessageChunk]:
    """What the wrapped model streams."""
    for chunk in iterate_within(unheard, lambda: llm.stream(messages, ALONE, **kwargs)):
        yield as_chunk(chunk)


async def astream_alone(
    llm: Runnable[Any, Any], messages: Any, **kwargs: Any
) -> AsyncGenerator[AIMessageChunk, None]:
    """`stream_alone`, without blocking the event loop."""
    chunks = aiterate_within(unheard, lambda: llm.astream(messages, ALONE, **kwargs))
    async with contextlib.aclosing(chunks):
        async for chunk in chunks:
            yield as_chunk(chunk)
