"""Datasets of dialogues: DialogSum and EmpatheticDialogues."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from aligner_integrations.evaluation.datasets.kinds import (
    DatasetKind,
    Placed,
    find_text,
    has_fields,
    make_sample,
)
from aligner_integrations.evaluation.records import Sample
from aligner_integrations.training.data.fields import read_text
from aligner_integrations.training.data.rows import Row, RowProblem, RowSkipped

_SUMMARIES = ("summary", "summary1", "summary2", "summary3")
_TOPICS = ("topic", "topic1")
_SUMMARISE = "Summarize this dialogue in one or two sentences.\n\n"


def read_dialogsum(row: Row, source: str) -> Sample:
    """DialogSum: a dialogue to be summarised; the references are people's summaries.

    The question asks for a summary in words of ours. The test file has three summaries,
    ``summary1`` to ``summary3``.
    """
    summaries = [text for name in _SUMMARIES if (text := find_text(row, name))]
    if not summaries:
        raise RowProblem("missing field", "no summary: the hidden test's rows have none to compare")
    return make_sample(
        _SUMMARISE + read_text(row, "dialogue"),
        name=find_text(row, "fname", "id"),
        references=summaries,
        category=find_text(row, *_TOPICS) or "",
    )


def gather_conversations(rows: Iterable[Placed]) -> Iterator[Placed]:
    """Rows of EmpatheticDialogues, one for each utterance, as one row for each conversation.

    Its place is that of its first utterance. Broken rows pass through.
    """
    conversations: dict[Any, tuple[str, dict[str, Any]]] = {}
    for place, row in rows:
        if isinstance(row, RowProblem):
            yield place, row
            continue
        try:
            number = int(row["utterance_idx"])
            said = read_text(row, "utterance")
        except RowProblem as problem:
            yield place, problem
            continue
        except (KeyError, TypeError, ValueError):
            yield (
                place,
                RowProblem(
                    "wrong type",
                    f"'utterance_idx' is {row.get('utterance_idx')!r:.40}; it must be a number",
                ),
            )
            continue
        start = (place, {**row, "utterances": {}})
        conversations.setdefault(row.get("conv_id"), start)[1]["utterances"][number] = said
    yield from conversations.values()


def read_conversation(row: Row, source: str) -> Sample:
    """EmpatheticDialogues: what someone tells, and what a listener replied.

    The question is the first utterance, the reference the listener's first reply, the category the
    emotion. Its commas are written ``_comma_``.
    """
    said: dict[int, str] = row["utterances"]
    first, *rest = (said[number] for number in sorted(said))
    if not rest:
        raise RowSkipped("nobody replies in this conversation")
    return make_sample(
        _unescape(first),
        name=row.get("conv_id"),
        references=[_unescape(rest[0])],
        category=find_text(row, "context") or "",
    )


def _unescape(text: str) -> str:
    return text.replace("_comma_", ",").strip()


DIALOGSUM = DatasetKind(
    "dialogsum",
    "DialogSum",
    "CC-BY-NC-SA-4.0",
    "https://github.com/cylnlp/dialogsum",
    "DialogSum_Data/dialogsum.*.jsonl, or the CSV of knkarthick/dialogsum on the hub, whose card "
    "says MIT where the authors say CC-BY-NC-SA-4.0.",
    lambda row: "dialogue" in row and bool({"summary", "summary1", "fname"} & set(row)),
    read_dialogsum,
)
EMPATHETIC = DatasetKind(
    "empathetic-dialogues",
    "EmpatheticDialogues",
    "CC-BY-NC-4.0",
    "https://github.com/facebookresearch/EmpatheticDialogues",
    "test.csv of empatheticdialogues.tar.gz, or facebook/empathetic_dialogues on the hub; crowd "
    "workers' short replies are no model of a good assistant's answer.",
    has_fields("conv_id", "utterance_idx", "utterance"),
    read_conversation,
    gather_conversations,
)
