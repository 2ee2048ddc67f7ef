"""Which cases the report shows in full: the best, the worst, and some that nobody chose."""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from aligner_integrations.correction import Correction
from aligner_integrations.evaluation.records import Case, Judgement
from aligner_integrations.rendering import Kind, split_runs

_VALUES = {"win": 1.0, "tie": 0.0, "loss": -1.0}
_SHOWN = 2_000
"""Characters of a text that are shown."""
_COMPARED = 20_000
"""Characters of a text that are compared: the time for it grows with the square."""


@dataclass(frozen=True, slots=True)
class Example:
    """A case as the report shows it.

    Attributes:
        case: The case.
        group: ``"best"``, ``"worst"`` or ``"random"``.
        question: Its question, cut where it is very long.
        runs: Its inline diff, cut where it is very long.
        left_out: Characters of the diff that are not shown.
        reasons: What judges said in their own words, by judgement.
    """

    case: Case
    group: str
    question: str
    runs: list[tuple[Kind, str]]
    left_out: int
    reasons: list[tuple[Judgement, list[str]]]


def choose_examples(
    cases: Sequence[Case], aligners: Sequence[str], *, each: int = 4, seed: int = 0
) -> list[Example]:
    """The best, the worst and some drawn cases of each aligner.

    Best and worst are by verdicts; those of rules count only where there are no others. Where
    nothing was judged, the best are the largest changes of answers that should be changed; the
    worst are such answers left alone, and the largest changes of answers that should be kept.

    Args:
        cases: Probes and failures are left out.
        aligners: Whose cases to show.
        each: How many of each group and aligner.
        seed: Of the drawing.
    """
    examples: list[Example] = []
    good = [case for case in cases if case.probe is None and case.error is None]
    for aligner in aligners:
        own = [case for case in good if case.aligner == aligner]
        ranks = {index: rate_case(case) for index, case in enumerate(own)}
        ordered = sorted(ranks, key=lambda index: ranks[index])
        best = _spread([i for i in reversed(ordered) if ranks[i] > (0, 0)], own, each)
        worst = _spread([i for i in ordered if ranks[i] < (0, 0)], own, each)
        drawn = random.Random(f"{seed} {aligner!r}").sample(  # noqa: S311
            range(len(own)), min(each, len(own))
        )
        for group, chosen in (("best", best), ("worst", worst), ("random", drawn)):
            examples += [_show(own[index], group) for index in chosen]
    return examples


def rate_case(case: Case) -> tuple[float, float]:
    """How good a correction was: by verdicts, then by how far scores moved; (0, 0) is neither.

    Scores without a verdict say nothing here: whether more is better is the judge's to know.

    Example:
        >>> from aligner_integrations.evaluation.records import Sample
        >>> rate_case(Case(Sample("d", "1", "Q", expected="change"), "llm", "a", "Bad.", "Bad."))
        (-1.0, 0.0)
    """
    good = [one for one in case.judgements if one.error is None and one.verdict is not None]
    judged = [one for one in good if not one.heuristic] or good
    if judged:
        values = [_VALUES[one.verdict or "tie"] for one in judged]
        moved = [
            value * abs(one.after - one.before)
            for value, one in zip(values, judged, strict=True)
            if one.before is not None and one.after is not None
        ]
        return sum(values) / len(values), sum(moved)
    distance = 1 - case.similarity
    if case.sample.expected == "change":
        return (distance if case.changed else -1.0), 0.0
    if case.sample.expected == "keep":
        return -distance, 0.0
    return 0.0, 0.0


def _spread(ranked: Sequence[int], cases: Sequence[Case], each: int) -> list[int]:
    """The first ones, at most one of a question, and of each dataset before two of one."""
    chosen: list[int] = []
    questions: set[tuple[str, str]] = set()
    for most in range(1, each + 1):
        taken: dict[str, int] = {}
        for index in chosen:
            dataset = cases[index].sample.dataset
            taken[dataset] = taken.get(dataset, 0) + 1
        for index in ranked:
            sample = cases[index].sample
            place = (sample.dataset, sample.id)
            if len(chosen) == each:
                break
            if place not in questions and taken.get(sample.dataset, 0) < most:
                chosen.append(index)
                questions.add(place)
                taken[sample.dataset] = taken.get(sample.dataset, 0) + 1
    return sorted(chosen, key=list(ranked).index)


def _show(case: Case, group: str) -> Example:
    answer, correction = case.answer[:_COMPARED], case.correction[:_COMPARED]
    cut = len(case.answer) - len(answer) + len(case.correction) - len(correction)
    whole = Correction(correction, question=case.sample.question, answer=answer)
    runs, left_out = _cut(list(split_runs(whole)))
    return Example(
        case=case,
        group=group,
        question=_head(case.sample.question, 1_000),
        runs=runs,
        left_out=left_out + cut,
        reasons=[(one, list(_read_reasons(one))) for one in case.judgements],
    )


def _cut(runs: Sequence[tuple[Kind, str]]) -> tuple[list[tuple[Kind, str]], int]:
    shown, room, left_out = [], _SHOWN, 0
    for kind, text in runs:
        part = text[:room]
        left_out += len(text) - len(part)
        room -= len(part)
        if part:
            shown.append((kind, part))
    return shown, left_out


def _head(text: str, limit: int) -> str:
    return text if len(text) <= limit else text[:limit] + " …"


def _read_reasons(judgement: Judgement) -> Iterator[str]:
    """What a judge left in its details as words: ``reason``, or one in each of ``orders``."""
    reason = judgement.details.get("reason")
    if isinstance(reason, str) and reason.strip():
        yield _head(reason.strip(), 400)
    orders = judgement.details.get("orders")
    for one in orders if isinstance(orders, (list, tuple)) else ():
        if isinstance(one, Mapping) and str(one.get("reason") or "").strip():
            said = _head(str(one["reason"]).strip(), 400)
            yield f"{one.get('first')} first: {one.get('verdict')}. {said}"
