"""The phases of an evaluation: answers, corrections, probes, judgements; each result once."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, TypeVar

from aligner_integrations.evaluation.correcting import Corrector, Pair
from aligner_integrations.evaluation.guards import Probe, derive_samples
from aligner_integrations.evaluation.judging import Judge
from aligner_integrations.evaluation.records import Case, Judgement, Sample, make_key
from aligner_integrations.evaluation.store import Failure, Store, Work, complete
from aligner_integrations.evaluation.upstreams import Upstream

_Item = TypeVar("_Item")
ANSWERS, CORRECTIONS, JUDGEMENTS = "answers", "corrections", "judgements"
VERSION = 1
"""Goes up when what is kept of a result changes, so that older ones are not read."""


@dataclass(frozen=True, slots=True)
class Bench:
    """Where phases work, and how.

    Attributes:
        store: What has been found out already.
        patience: Failures in a row after which a model or judge is given up.
        progress: Show bars on standard error.
    """

    store: Store
    patience: int
    progress: bool

    def complete(
        self,
        phase: str,
        identity: Mapping[str, Any] | None,
        wanted: Mapping[str, _Item],
        work: Work[_Item],
        description: str,
        *,
        patient: bool = False,
    ) -> dict[str, Any]:
        """As `aligner_integrations.evaluation.store.complete`; without identity, without store."""
        if identity is None:
            results = dict(work(list(wanted.values())))
            return {key: results[index] for index, key in enumerate(wanted)}
        return complete(
            self.store,
            phase,
            wanted,
            work,
            description=description,
            progress=self.progress,
            patience=None if patient else self.patience,
        )


def answer_samples(bench: Bench, samples: Sequence[Sample], upstream: Upstream) -> list[Case]:
    """A case without a correction for each sample that the upstream covers.

    An answer that is not the sample's own makes a sample without one, for what is expected of the
    one says nothing of the other. A question without an answer makes a case with an error.
    """
    covered = [sample for sample in samples if upstream.covers(sample)]
    keys = [make_key(VERSION, upstream.identity, sample.question) for sample in covered]
    if upstream.identity is None:  # equal questions may have answers of their own
        keys = [str(index) for index in range(len(covered))]
    wanted = dict(zip(keys, covered, strict=True))
    found = bench.complete(
        ANSWERS, upstream.identity, wanted, upstream.answer, f"answers of {upstream.name}"
    )
    upstream.close()
    return [
        _make_case(sample, upstream.name, found[key])
        for sample, key in zip(covered, keys, strict=True)
    ]


def _make_case(sample: Sample, upstream: str, answer: str | Failure) -> Case:
    if answer != sample.answer:
        sample = replace(sample, answer=None, expected=None)
    if isinstance(answer, Failure):
        return Case(sample, upstream, "", "", "", error=f"no answer: {answer.reason}")
    return Case(sample, upstream, "", answer, answer)


def correct_cases(bench: Bench, cases: Sequence[Case], corrector: Corrector) -> list[Case]:
    """The same cases, corrected; one that can't be keeps its answer and has an error."""
    keys = [
        None if case.error else _key_pair(corrector, (case.sample.question, case.answer))
        for case in cases
    ]
    wanted = {
        key: (case.sample.question, case.answer)
        for case, key in zip(cases, keys, strict=True)
        if key is not None
    }
    kind = "probes" if any(case.probe for case in cases) else "corrections"
    found = bench.complete(
        CORRECTIONS,
        corrector.identity,
        wanted,
        corrector.correct,
        f"{kind} of {corrector.name}",
        patient=not corrector.remote,
    )
    return [
        _put_correction(case, corrector.name, found[key] if key else None)
        for case, key in zip(cases, keys, strict=True)
    ]


def _key_pair(corrector: Corrector, pair: Pair) -> str:
    return make_key(VERSION, corrector.identity, *pair)


def _put_correction(case: Case, aligner: str, found: Any) -> Case:
    if found is None:  # no answer
        return replace(case, aligner=aligner)
    if isinstance(found, Failure):
        return replace(case, aligner=aligner, error=found.reason)
    return replace(
        case,
        aligner=aligner,
        correction=found["text"],
        seconds=found["seconds"],
        error=found["error"],
    )


def derive_cases(cases: Sequence[Case], probes: Sequence[Probe]) -> list[Case]:
    """The cases that probes make of corrected ones, still to be corrected."""
    return [
        Case(
            sample,
            case.upstream,
            case.aligner,
            answer=sample.answer or "",
            correction=sample.answer or "",
            probe=probe.name,
        )
        for case in cases
        if case.error is None
        for probe in probes
        for sample in derive_samples(probe, case)
    ]


def judge_cases(bench: Bench, cases: Sequence[Case], judge: Judge) -> list[Case]:
    """The same cases with one judge's judgements added.

    Where correcting failed the user sees the answer, so that is judged: mostly a tie. Questions
    without an answer, probes, and what the judge's ``covers`` (if it has one) says no to are not.
    """
    covers = getattr(judge, "covers", None) or (lambda case: True)
    keys = [
        _key_case(judge, case) if _can_be_judged(case) and covers(case) else None for case in cases
    ]
    wanted = {key: case for case, key in zip(cases, keys, strict=True) if key is not None}

    def work(items: Sequence[Case]) -> Iterator[tuple[int, Any]]:
        for index, judgements in judge.judge(items):
            plain = json.loads(json.dumps([asdict(_check(one)) for one in judgements], default=str))
            errors = [one["error"] for one in plain if one["error"]]
            yield index, Failure(errors[0], plain) if errors else plain

    found = bench.complete(
        JUDGEMENTS,
        judge.identity,
        wanted,
        work,
        f"judgements of {judge.name} ({', '.join(judge.dimensions)})",
    )
    return [
        case
        if key is None
        else replace(case, judgements=(*case.judgements, *_read_judgements(judge, found[key])))
        for case, key in zip(cases, keys, strict=True)
    ]


def _can_be_judged(case: Case) -> bool:
    return case.probe is None and (case.error is None or bool(case.answer))


def _key_case(judge: Judge, case: Case) -> str:
    sample = case.sample
    known = (sample.question, sample.references, sample.wrong, sample.expected, sample.category)
    return make_key(VERSION, judge.identity, *known, case.answer, case.correction)


def _check(judgement: Judgement) -> Judgement:
    scores = [score for score in (judgement.before, judgement.after) if score is not None]
    if all(map(math.isfinite, scores)):
        return judgement
    return replace(
        judgement, verdict=None, before=None, after=None, error=f"the score is {scores[-1]}"
    )


def _read_judgements(judge: Judge, found: Any) -> tuple[Judgement, ...]:
    if isinstance(found, Failure):
        if found.value is None:
            return tuple(
                Judgement(judge.name, dimension, error=found.reason)
                for dimension in judge.dimensions
            )
        found = found.value
    return tuple(Judgement(**one) for one in found)
