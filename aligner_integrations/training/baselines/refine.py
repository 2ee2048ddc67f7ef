"""Self-refine: a model criticises an answer and rewrites it by its own critique; no training.

After Madaan et al. 2023 (arXiv 2303.17651). It needs two calls of a model that can criticise, where
an aligner needs one pass of a small one.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.training.data.asking import (
    AskingError,
    AskingReport,
    UnusableReply,
    check_reply,
    name_model,
    work_together,
)
from aligner_integrations.training.data.corrections import read_answers
from aligner_integrations.training.data.journal import Journal
from aligner_integrations.training.data.sampling import hash_text

logger = logging.getLogger(__name__)
_SLOT = re.compile(r"\{(question|answer|critique)\}")


@dataclass(frozen=True, slots=True)
class RefinePrompts:
    """What the model is told.

    Args:
        critique: With ``{question}`` and ``{answer}``.
        rewrite: With ``{question}``, ``{answer}`` and ``{critique}``.
        fine: A critique that begins so finds nothing wrong, and the answer stays.

    Raises:
        ConfigurationError: A text lacks a slot.

    Example:
        >>> RefinePrompts(critique="Q: {question} A: {answer} Faults?").fine
        'NOTHING TO CHANGE'
    """

    critique: str = (
        "Here are a question and an answer to it.\n\nQuestion:\n{question}\n\nAnswer:\n{answer}\n\n"
        "Say what is wrong with the answer: where it is unhelpful, harmful or untrue. Be specific "
        "and brief, and do not write a new answer. If nothing is wrong, reply with NOTHING TO "
        "CHANGE and no more."
    )
    rewrite: str = (
        "Here are a question, an answer to it, and a critique of the answer.\n\nQuestion:\n"
        "{question}\n\nAnswer:\n{answer}\n\nCritique:\n{critique}\n\nWrite the answer again so "
        "that the critique no longer applies, and keep what is right. Reply with the answer only."
    )
    fine: str = "NOTHING TO CHANGE"

    def __post_init__(self) -> None:
        slots = {"critique": ("question", "answer"), "rewrite": ("question", "answer", "critique")}
        for name, needed in slots.items():
            for slot in needed:
                if f"{{{slot}}}" not in getattr(self, name):
                    raise ConfigurationError(f"the prompt {name!r} has no {{{slot}}}; put it in")


@dataclass(frozen=True, slots=True)
class Refined:
    """An answer that its own model went over.

    Attributes:
        question: The question.
        answer: The answer.
        critiques: What was wrong, in each round that changed something.
        text: The new answer; the old one where nothing was found.
    """

    question: str
    answer: str
    critiques: tuple[str, ...]
    text: str


def refine(
    model: Any,
    question: str,
    answer: str,
    *,
    prompts: RefinePrompts | None = None,
    rounds: int = 1,
) -> Refined:
    """Have a model criticise an answer and rewrite it.

    Args:
        model: A function from prompt to reply, or a LangChain chat model.
        question: The question.
        answer: The answer, by this model or another.
        prompts: What it is told.
        rounds: Critiques at most; it ends before where nothing is found.

    Raises:
        ConfigurationError: ``rounds`` is below 1, or ``model`` can't be called.

    Example:
        >>> replies = iter(["It is rude.", "Boil them."])
        >>> refine(lambda prompt: next(replies), "Eggs?", "Boil them, fool.").text
        'Boil them.'
    """
    if rounds < 1:
        raise ConfigurationError(f"rounds={rounds} must be 1 or more")
    prompts, ask = prompts or RefinePrompts(), _make_callable(model)
    critiques: list[str] = []
    text = answer
    for _ in range(rounds):
        known = {"question": question, "answer": text}
        critique = ask(_fill(prompts.critique, known)).strip()
        if not critique or critique.lstrip("*\"'` ").startswith(prompts.fine):
            break
        critiques.append(critique)
        text = ask(_fill(prompts.rewrite, known | {"critique": critique})).strip()
    return Refined(question, answer, tuple(critiques), text)


def refine_answers(
    model: Any,
    answers: Any,
    out: str | Path,
    *,
    prompts: RefinePrompts | None = None,
    rounds: int = 1,
    concurrency: int = 1,
    progress: bool = True,
    patience: int = 20,
    name: str | None = None,
) -> AskingReport:
    """Refine many answers, and write triples to ``out``; a second run goes on where one ended.

    Args:
        model: As for `refine`.
        answers: As for `read_answers`: files or rows of question and answer.
        out: A JSON Lines file that rows are added to; `read_triples` reads it.
        prompts: What the model is told.
        rounds: Critiques at most.
        concurrency: Answers that are worked on together; leave it at 1 for a local model.
        progress: Show a progress bar on standard error.
        patience: After so many failures in a row, stop.
        name: What the rows call the model, by default its own name.

    Raises:
        AskingError: The model fails again and again.
        ConfigurationError: A number is below 1.
        DataError: An answer is broken, or ``out`` comes from another model or other prompts.
    """
    from tqdm import tqdm

    if min(concurrency, patience, rounds) < 1:
        raise ConfigurationError(f"{concurrency=}, {patience=} and {rounds=} must be 1 or more")
    prompts, ask = prompts or RefinePrompts(), _make_callable(model)
    same = {
        "model": name or name_model(model),
        "prompts": hash_text(*asdict(prompts).values(), str(rounds)),
    }
    rows = {hash_text(row["question"], row["answer"]): row for row in read_answers(answers)}

    def work(identity: str) -> dict[str, Any]:
        row = {"id": identity, **{key: rows[identity][key] for key in ("question", "answer")}}
        try:
            done = refine(ask, row["question"], row["answer"], prompts=prompts, rounds=rounds)
            text = check_reply("rewrite", done.text)
        except Exception as error:  # whatever a provider raises; the row is tried again
            reason = str(error) if isinstance(error, UnusableReply) else f"{error!r}"
            return row | {"error": reason}
        return row | {"critiques": list(done.critiques), "correction": text}

    failed = in_a_row = 0
    with Journal(out, **same) as journal:
        todo = [identity for identity in rows if identity not in journal.done]
        before = len(rows) - len(todo)
        with tqdm(
            total=len(rows), initial=before, desc="refined", unit="row", disable=not progress
        ) as bar:
            for _, row in work_together(work, todo, concurrency):
                journal.append(row)
                bar.update()
                failed += "error" in row
                in_a_row = in_a_row + 1 if "error" in row else 0
                if in_a_row >= patience:
                    raise AskingError(
                        f"{out}: the last {in_a_row} answers failed, the last with {row['error']}; "
                        "mend it and run again, what is done is kept"
                    )
    if failed:
        logger.warning("%s: %d of %d rows failed; run again to retry them", out, failed, len(todo))
    return AskingReport(len(todo) - failed, before, failed)


def _make_callable(model: Any) -> Callable[[str], str]:
    if hasattr(model, "invoke"):  # LangChain

        def ask(prompt: str) -> str:
            reply = model.invoke(prompt)
            return reply if isinstance(reply, str) else str(reply.text)

        return ask
    if not callable(model):
        raise ConfigurationError(
            f"{type(model).__name__} is neither a function from str to str nor a LangChain model"
        )
    return model  # type: ignore[no-any-return]


def _fill(template: str, values: dict[str, str]) -> str:
    """Put texts into their slots at once, so that a text with a slot in it stays as it is."""
    return _SLOT.sub(lambda slot: values.get(slot[1], slot[0]), template)
