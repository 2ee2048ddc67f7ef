"""Sampling an upstream model's answers: the raw material of corrections."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.training.data.asking import (
    AskingReport,
    Request,
    ask_all,
    check_reply,
    is_cut,
    name_model,
)
from aligner_integrations.training.data.fields import read_text
from aligner_integrations.training.data.rows import RowProblem, read_rows

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable


def read_questions(source: Any) -> Iterator[dict[str, Any]]:
    """Questions to ask, each once, with the other fields of its row.

    Args:
        source: Rows with a ``question`` or a ``prompt``: any source that `read_triples` reads, or
            texts.

    Raises:
        DataError: A row is broken; the message begins with ``file:line``.

    Example:
        >>> [row["question"] for row in read_questions(["Eggs?", {"prompt": "Rice?"}, "Eggs?"])]
        ['Eggs?', 'Rice?']
    """
    if not isinstance(source, (str, Path)):
        source = ({"question": row} if isinstance(row, str) else row for row in source)
    seen = set()
    for place, row in read_rows(source):
        if isinstance(row, RowProblem):
            raise DataError(f"{place}: {row}")
        try:
            question = read_text(row, "question", "prompt")
        except RowProblem as problem:
            raise DataError(f"{place}: {problem}") from None
        if question not in seen:
            seen.add(question)
            kept = ("id", "kind", "category", "harmful", "source", "licence")
            yield {"question": question} | {name: row[name] for name in kept if name in row}


def sample_answers(
    llm: Runnable[Any, Any],
    questions: Any,
    out: str | Path,
    *,
    samples: int = 1,
    system: str | None = None,
    concurrency: int = 8,
    progress: bool = True,
    patience: int = 20,
    model: str | None = None,
) -> AskingReport:
    """Ask a LangChain chat model every question and write its answers to ``out``.

    Rows are ``{"id", "question", "answer", "model", "sample"}`` and what the question's row said
    about kind and source. Run it again after a kill and it goes on where it was; questions that
    failed have an ``error`` in their row and are asked again.

    Args:
        llm: Any chat model, or one with bound arguments or retries.
        questions: As for `read_questions`.
        out: A JSON Lines file that rows are added to.
        samples: Answers to each question; set a temperature in the model.
        system: A system message before each question.
        concurrency: Requests that run together.
        progress: Show a progress bar on standard error.
        patience: After so many failures in a row, stop.
        model: What the rows call the model, by default its own name.

    Returns:
        How many answers were written, were there before, and failed.

    Raises:
        AskingError: The model fails again and again.
        ConfigurationError: A number is below 1.
        DataError: A question is broken, or ``out`` holds answers of another model.

    Example:
        >>> import tempfile
        >>> from langchain_core.language_models import FakeListChatModel
        >>> llm = FakeListChatModel(responses=["Boil them."])
        >>> out = Path(tempfile.mkdtemp()) / "answers.jsonl"
        >>> sample_answers(llm, ["Eggs?"], out, progress=False).written
        1
        >>> sample_answers(llm, ["Eggs?"], out, progress=False)
        AskingReport(written=0, done_before=1, failed=0)
    """
    if samples < 1:
        raise ConfigurationError(f"samples={samples} must be 1 or more")
    return ask_all(
        llm,
        _make_requests(read_questions(questions), samples, system),
        out,
        _read_answer,
        concurrency=concurrency,
        progress=progress,
        patience=patience,
        same={"model": model or name_model(llm)},
        description="answers",
    )


def _make_requests(
    questions: Iterable[dict[str, Any]], samples: int, system: str | None
) -> Iterator[Request]:
    from langchain_core.messages import HumanMessage, SystemMessage

    for row in questions:
        name = row.pop("id", None)
        if not isinstance(name, (str, int)):
            name = hash_text(row["question"])
        messages: list[BaseMessage] = [HumanMessage(row["question"])]
        if system:
            messages.insert(0, SystemMessage(system))
        for sample in range(samples):
            yield Request(f"{name}-{sample}", messages, row | {"sample": sample})


def _read_answer(_: Request, reply: BaseMessage) -> dict[str, Any]:
    answer = check_reply("answer", str(reply.text))
    return {"answer": answer} | ({"cut": True} if is_cut(reply) else {})


def hash_text(*texts: str) -> str:
    """A short name that the texts alone decide."""
    joined = "\0".join(texts).encode("utf-8", "surrogatepass")
    return hashlib.blake2b(joined, digest_size=8).hexdigest()
