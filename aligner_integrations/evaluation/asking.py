"""Asking a LangChain runnable many things at once."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, cast

if TYPE_CHECKING:
    from langchain_core.runnables import Runnable


def ask_together(
    runnable: Runnable[Any, Any], inputs: Sequence[Any], concurrency: int
) -> Iterator[tuple[int, Any]]:
    """Outputs as they come, each with its input's index; an error stands in its output's place.

    Closing the iterator cancels what has not begun.

    Args:
        runnable: A chat model, or anything that runs.
        inputs: What it is given.
        concurrency: How many run together.

    Example:
        >>> from langchain_core.runnables import RunnableLambda
        >>> sorted(ask_together(RunnableLambda(str.upper), ["a", "b"], 2))
        [(0, 'A'), (1, 'B')]
    """
    size = 16 * concurrency  # a batch makes a task of each of its inputs at once
    for start in range(0, len(inputs), size):
        replies = runnable.batch_as_completed(
            list(inputs[start : start + size]),
            {"max_concurrency": concurrency},
            return_exceptions=True,
        )
        with contextlib.closing(cast("Generator[Any, None, None]", replies)):
            for index, reply in replies:
                yield start + index, reply
