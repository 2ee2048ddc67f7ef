"""AlpacaEval, the triples of training, and plain questions and answers."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator
from typing import get_args

from aligner_integrations.evaluation.datasets.kinds import (
    DatasetKind,
    Placed,
    find_text,
    has_fields,
    make_sample,
    read_texts,
)
from aligner_integrations.evaluation.records import Expectation, Sample
from aligner_integrations.training.data.fields import read_text
from aligner_integrations.training.data.layouts import LayoutOptions, detect_layout, find_layout
from aligner_integrations.training.data.rows import Row, RowProblem

logger = logging.getLogger(__name__)

ALIGNER_WARNING = (
    "public AlpacaEval entries called aligner-2b are no evidence of how an aligner edits: about "
    "three quarters of their text repeats other models' published answers"
)


def read_alpaca_eval(row: Row, source: str) -> Sample:
    """AlpacaEval: an instruction and one model's output, in the eval set and all model outputs.

    The output is the recorded answer, of unknown quality; in the eval set it is text-davinci-003's
    or GPT-4's. The category is the instruction's source.
    """
    return make_sample(
        read_text(row, "instruction"),
        read_text(row, "output"),
        category=find_text(row, "dataset") or "",
    )


def warn_of_aligners(rows: Iterable[Placed]) -> Iterator[Placed]:
    """The rows as they are; logs a warning for each generator that calls itself an aligner."""
    warned: set[str] = set()
    for place, row in rows:
        generator = "" if isinstance(row, RowProblem) else str(row.get("generator"))
        if "aligner" in generator.lower() and generator not in warned:
            warned.add(generator)
            logger.warning("%s: %r: %s", place, generator, ALIGNER_WARNING)
        yield place, row


def read_triple(layout: str) -> Callable[[Row, str], Sample]:
    """Triples of training in one layout, ``"auto"`` for the one that each row has.

    An answer that is its own correction is to be kept, any other changed, and the correction is
    the reference. The category is the triple's kind.

    Raises:
        ConfigurationError: The layout is unknown.
    """
    fixed = None if layout == "auto" else find_layout(layout)

    def read_row(row: Row, source: str) -> Sample:
        convert = fixed
        if convert is None:
            if (found := detect_layout(row)) is None:
                raise RowProblem(
                    "no layout", f"no layout of triples fits {', '.join(map(str, row))}"
                )
            convert = find_layout(found)
        triple = convert(row, LayoutOptions())
        return make_sample(
            triple.question,
            triple.answer,
            name=triple.meta.get("id"),
            expected="keep" if triple.is_identity else "change",
            references=[triple.correction],
            category=triple.kind,
        )

    return read_row


def read_plain(row: Row, source: str) -> Sample:
    """Questions with or without answers, and samples as JSON.

    ``question`` or ``prompt``, and optionally ``id``, ``answer`` or ``response``, ``expected``,
    ``references`` (a text or a list), ``wrong``, and ``category`` or ``kind``.
    """
    expected: Expectation | None = None
    if (said := find_text(row, "expected")) is not None:
        if said not in get_args(Expectation):
            raise RowProblem("unknown label", f"'expected' is {said!r:.40}; keep or change")
        expected = "keep" if said == "keep" else "change"
    return make_sample(
        read_text(row, "question", "prompt"),
        find_text(row, "answer", "response"),
        name=row.get("id"),
        expected=expected,
        references=read_texts(row, "references") or read_texts(row, "reference"),
        wrong=read_texts(row, "wrong"),
        category=find_text(row, "category") or str(row.get("kind") or ""),
    )


ALPACA_EVAL = DatasetKind(
    "alpaca-eval",
    "AlpacaEval",
    "CC-BY-NC-4.0",
    "https://github.com/tatsu-lab/alpaca_eval",
    "alpaca_eval.json of tatsu-lab/alpaca_eval on the hub (its card says NC, its script "
    f"CC BY 4.0), or results/MODEL/model_outputs.json: 805 instructions. "
    f"Warning: {ALIGNER_WARNING}.",
    has_fields("instruction", "output", "generator"),
    read_alpaca_eval,
    warn_of_aligners,
)
TRIPLES = DatasetKind(
    "triples",
    "Triples (question, answer, correction)",
    "as its source",
    "",
    "Any layout that training reads; see aligner_integrations.training.data.layouts. Preference "
    "pairs are noisy: the chosen answer is only the better one of two.",
    lambda row: detect_layout(row) is not None,
    read_triple("auto"),
)
PLAIN = DatasetKind(
    "plain",
    "Questions and answers",
    "as its source",
    "",
    "JSON Lines with a question or prompt, and whatever else a sample has.",
    lambda row: bool({"question", "prompt"} & set(row)),
    read_plain,
)
