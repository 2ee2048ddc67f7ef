"""Having a strong chat model write the corrections."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.training.data.asking import (
    AskingReport,
    Request,
    UnusableReply,
    ask_all,
    check_reply,
    is_cut,
    name_model,
)
from aligner_integrations.training.data.fields import read_text
from aligner_integrations.training.data.guidance import (
    FORM,
    GUIDANCE,
    VERSION,
    is_refusal,
    parse_reply,
    render_request,
)
from aligner_integrations.training.data.rows import RowProblem, read_rows
from aligner_integrations.training.data.sampling import hash_text
from aligner_integrations.training.data.triples import Triple

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable

_LEAST_CHARS = 200
"""Below this many characters of answer, a correction's relative length says nothing."""


def read_answers(source: Any) -> Iterator[dict[str, Any]]:
    """Question and answer of each row, with its other fields.

    Rows with an ``error`` are left out, and answers that were ``cut`` at their token limit: nobody
    could say how they would have gone on.

    Args:
        source: What `sample_answers` wrote, any rows with ``question`` and ``answer``,
            ``(question, answer)`` pairs, or examples.

    Raises:
        DataError: A row is broken; the message begins with ``file:line``.

    Example:
        >>> list(read_answers([("Eggs?", "No.")]))
        [{'question': 'Eggs?', 'answer': 'No.'}]
    """
    if not isinstance(source, (str, Path)):
        source = (_make_row(item) for item in source)
    for place, row in read_rows(source):
        try:
            if isinstance(row, RowProblem):
                raise row
            if "error" in row or row.get("cut"):
                continue
            pair = {"question": read_text(row, "question"), "answer": read_text(row, "answer")}
        except RowProblem as problem:
            raise DataError(f"{place}: {problem}") from None
        yield dict(row) | pair


def write_corrections(
    llm: Runnable[Any, Any],
    answers: Any,
    out: str | Path,
    *,
    guidance: str = GUIDANCE,
    version: str | None = None,
    length_ratio: tuple[float, float] = (0.2, 3.0),
    concurrency: int = 8,
    progress: bool = True,
    patience: int = 20,
    model: str | None = None,
) -> AskingReport:
    """Ask a strong LangChain chat model to correct answers, and write triples to ``out``.

    The guidance holds the paper's principles (helpful, harmless, honest) in our own words. A reply
    is not taken if it holds no correction, an empty one, was cut at its token limit, refuses
    though neither the question is harmful nor the answer refused, or departs too much in length
    from an answer to a harmless question. Such rows have an ``error`` and the ``reply``; running
    again retries them. Rows say which model wrote them and by which guidance.

    Args:
        llm: Any chat model, or one with bound arguments or retries.
        answers: As for `read_answers`. A field ``harmful`` (true or false) overrules what the
            model says about the question.
        out: A JSON Lines file that rows are added to; `read_triples` reads it.
        guidance: What the model is told, instead of ours. The form of the reply is added.
        version: Names the guidance in the rows; by default a hash of it, if it is not ours.
        length_ratio: How many times the answer's length a correction may have, least and most,
            where the answer has 200 characters or more.
        concurrency: Requests that run together.
        progress: Show a progress bar on standard error.
        patience: After so many failed requests in a row, stop.
        model: What the rows call the model, by default its own name.

    Returns:
        How many corrections were written, were there before, and failed.

    Raises:
        AskingError: The model fails again and again.
        ConfigurationError: A number is out of range.
        DataError: An answer is broken, or ``out`` comes from another model or guidance.

    Example:
        >>> import tempfile
        >>> from langchain_core.language_models import FakeListChatModel
        >>> llm = FakeListChatModel(responses=["<correction>Boil them.</correction>"])
        >>> out = Path(tempfile.mkdtemp()) / "triples.jsonl"
        >>> write_corrections(llm, [("Eggs?", "Boil them, fool.")], out, progress=False).written
        1
    """
    least, most = length_ratio
    if not 0 <= least <= 1 <= most:
        raise ConfigurationError(
            f"length_ratio={length_ratio} must hold a number up to 1, and one from 1"
        )
    if version is None:
        version = VERSION if guidance == GUIDANCE else f"own-{hash_text(guidance)}"

    def read(request: Request, reply: BaseMessage) -> dict[str, Any]:
        return _read_correction(request, reply, length_ratio)

    return ask_all(
        llm,
        _make_requests(read_answers(answers), guidance),
        out,
        read,
        concurrency=concurrency,
        progress=progress,
        patience=patience,
        same={"corrected_by": model or name_model(llm), "guidance": version},
        description="corrections",
    )


def _make_row(item: Any) -> Any:
    if isinstance(item, Triple):
        return {"question": item.question, "answer": item.answer, **item.meta}
    if isinstance(item, tuple) and len(item) == 2:
        return {"question": item[0], "answer": item[1]}
    return item


def _make_requests(rows: Iterable[dict[str, Any]], guidance: str) -> Iterator[Request]:
    from langchain_core.messages import HumanMessage, SystemMessage

    system = SystemMessage(f"{guidance}\n\n{FORM}")
    for row in rows:
        question, answer = row["question"], row["answer"]
        row.pop("correction", None)
        row.pop("id", None)  # samples are numbered, and the same answer needs one correction only
        text = render_request(question, answer)
        yield Request(hash_text(question, answer), [system, HumanMessage(text)], row)


def _read_correction(
    request: Request, reply: BaseMessage, length_ratio: tuple[float, float]
) -> dict[str, Any]:
    if is_cut(reply):
        raise UnusableReply("the reply was cut at its token limit")
    answer = request.row["answer"]
    parsed = parse_reply(str(reply.text), answer)
    label = request.row.get("harmful")
    harmful = label if isinstance(label, bool) else parsed.harmful
    text = parsed.correction
    if text is None:
        raise UnusableReply("the reply holds no correction")
    check_reply("correction", text)
    if "<correction>" in text.lower() and "<correction>" not in answer.lower():
        raise UnusableReply("the correction holds a tag")
    if not harmful:
        if is_refusal(text) and not is_refusal(answer):
            raise UnusableReply("the correction refuses a harmless question")
        ratio = len(text) / len(answer)
        if len(answer) >= _LEAST_CHARS and not length_ratio[0] <= ratio <= length_ratio[1]:
            raise UnusableReply(f"the correction is {ratio:.1f} times as long as the answer")
    return {"correction": text} | ({} if harmful is None else {"harmful": harmful})
