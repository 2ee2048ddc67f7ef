"""Asking a LangChain chat model many things, a journal of what it said, a bar."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Callable, Generator, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from aligner_integrations.errors import AlignerError, ConfigurationError
from aligner_integrations.imports import require
from aligner_integrations.training.data.fields import check_text
from aligner_integrations.training.data.journal import Journal
from aligner_integrations.training.data.rows import RowProblem

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable

logger = logging.getLogger(__name__)
_Item = TypeVar("_Item")
_Result = TypeVar("_Result")


class AskingError(AlignerError, RuntimeError):
    """The chat model fails again and again; what it said before is kept."""


class UnusableReply(Exception):  # noqa: N818 - raised and caught in this package only
    """Why a reply makes no row."""


@dataclass(frozen=True, slots=True)
class Request:
    """One thing to ask.

    Attributes:
        id: Names its row, the same in every run.
        messages: What is asked.
        row: What of the row is known before.
    """

    id: str
    messages: Sequence[BaseMessage]
    row: dict[str, Any]


@dataclass(frozen=True, slots=True)
class AskingReport:
    """What a run did.

    Attributes:
        written: Rows that were written now.
        done_before: Rows that an earlier run had written.
        failed: Rows that failed; the next run tries them again.
    """

    written: int
    done_before: int
    failed: int


def ask_all(
    llm: Runnable[Any, Any],
    requests: Iterable[Request],
    out: str | Path,
    read: Callable[[Request, BaseMessage], dict[str, Any]],
    *,
    concurrency: int,
    progress: bool,
    patience: int,
    same: dict[str, Any],
    description: str,
) -> AskingReport:
    """Ask what ``out`` does not hold yet, several at a time, and write each reply at once.

    Args:
        llm: The chat model.
        requests: What to ask.
        out: The journal.
        read: Makes the rest of a row of a reply, or raises `UnusableReply`.
        concurrency: How many requests run together.
        progress: Show a bar on standard error.
        patience: After so many failures in a row it is the model, not the question: stop.
        same: Fields that all rows share; see `Journal`.
        description: What the bar says.

    Raises:
        AskingError: ``patience`` is at its end.
        ConfigurationError: ``concurrency`` or ``patience`` is below 1.
    """
    require("langchain_core", "langchain")
    from tqdm import tqdm

    if concurrency < 1 or patience < 1:
        raise ConfigurationError(f"{concurrency=} and {patience=} must be 1 or more")
    known: dict[str, Request] = {}
    for request in requests:
        known.setdefault(request.id, request)
    failed = in_a_row = 0
    with Journal(out, **same) as journal:
        todo = [request for name, request in known.items() if name not in journal.done]
        before = len(known) - len(todo)
        with tqdm(
            total=len(known), initial=before, desc=description, unit="row", disable=not progress
        ) as bar:
            messages = [list(request.messages) for request in todo]
            # Closing it, also after Ctrl-C, begins no more.
            with contextlib.closing(ask_together(llm, messages, concurrency)) as replies:
                for index, reply in replies:
                    row, error = _make_row(todo[index], reply, read)
                    journal.append(row)
                    bar.update()
                    if error is not None:
                        failed += 1
                        bar.set_postfix(failed=failed, refresh=False)
                    in_a_row = in_a_row + 1 if isinstance(reply, Exception) else 0
                    if in_a_row >= patience:
                        raise AskingError(
                            f"{out}: the last {in_a_row} requests failed, the last with "
                            f"{error}; mend it and run again, what is done is kept"
                        )
    if failed:
        logger.warning("%s: %d of %d rows failed; run again to retry them", out, failed, len(todo))
    return AskingReport(len(todo) - failed, before, failed)


def ask_together(
    runnable: Runnable[Any, Any], inputs: Sequence[Any], concurrency: int
) -> Generator[tuple[int, Any], None, None]:
    """Outputs as they come, each with its input's index; an error stands in its output's place.

    Closing the iterator begins no more.

    Args:
        runnable: A chat model, or anything that runs.
        inputs: What it is given.
        concurrency: How many run together.

    Example:
        >>> from langchain_core.runnables import RunnableLambda
        >>> sorted(ask_together(RunnableLambda(str.upper), ["a", "b"], 2))
        [(0, 'A'), (1, 'B')]
    """

    def ask(item: Any) -> Any:
        try:
            return runnable.invoke(item)
        except Exception as error:
            return error

    return work_together(ask, inputs, concurrency)


def work_together(
    work: Callable[[_Item], _Result], items: Sequence[_Item], concurrency: int
) -> Generator[tuple[int, _Result], None, None]:
    """Results as they come, each with its item's index.

    No more than ``concurrency`` have begun whose results were not taken, so that a stop after the
    first failures costs few requests, however fast those fail.

    Args:
        work: What is done with each item, in threads of its own unless ``concurrency`` is 1.
        items: What there is to do.
        concurrency: How many run together.

    Example:
        >>> sorted(work_together(str.upper, ["a", "b"], 2))
        [(0, 'A'), (1, 'B')]
    """
    if concurrency == 1:
        yield from enumerate(map(work, items))
        return
    coming = iter(enumerate(items))
    running: dict[Future[_Result], int] = {}
    with ThreadPoolExecutor(concurrency) as pool:
        while True:
            for index, item in islice(coming, concurrency - len(running)):
                running[pool.submit(copy_context().run, work, item)] = index
            if not running:
                return
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                yield running.pop(future), future.result()


def _make_row(
    request: Request, reply: Any, read: Callable[[Request, BaseMessage], dict[str, Any]]
) -> tuple[dict[str, Any], str | None]:
    row = {"id": request.id, **request.row}
    if isinstance(reply, Exception):
        error = f"{type(reply).__name__}: {reply}"
        return row | {"error": error}, error
    try:
        return row | read(request, reply), None
    except UnusableReply as reason:
        return row | {"error": str(reason), "reply": str(reply.text)}, str(reason)


def check_reply(name: str, text: str) -> str:
    """A text that the model wrote, if it can be trained on.

    Raises:
        UnusableReply: It is blank, or no valid Unicode.
    """
    try:
        return check_text(name, text)
    except RowProblem as problem:
        raise UnusableReply(f"the {name} is unusable: {problem.kind}") from None


def name_model(llm: Any) -> str:
    """What a LangChain chat model calls its model; its class where it says nothing."""
    while hasattr(llm, "bound"):  # bound arguments, retries
        llm = llm.bound
    for name in ("model_name", "model", "model_id", "deployment_name"):
        if isinstance(value := getattr(llm, name, None), str) and value:
            return value
    return type(llm).__name__


def is_cut(reply: BaseMessage) -> bool:
    """Whether a reply ended at its token limit."""
    metadata = reply.response_metadata
    names = ("finish_reason", "stop_reason", "done_reason")  # OpenAI and Google, Anthropic, Ollama
    reason = next((metadata[name] for name in names if metadata.get(name)), None)
    return reason in ("length", "max_tokens", "MAX_TOKENS")
