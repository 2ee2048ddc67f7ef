"""`evaluate`: upstreams x aligners x datasets, judged, summed up and reported."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aligner_integrations import __version__
from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.evaluation.aligners import load_corrector
from aligner_integrations.evaluation.config import (
    NONE,
    DatasetConfig,
    EvaluationConfig,
    check_unique,
)
from aligner_integrations.evaluation.correcting import Corrector
from aligner_integrations.evaluation.datasets import load_samples
from aligner_integrations.evaluation.guards import PROBES, measure_guards
from aligner_integrations.evaluation.judges import measure_position_bias
from aligner_integrations.evaluation.judging import Judge
from aligner_integrations.evaluation.panel import load_judges
from aligner_integrations.evaluation.phases import (
    Bench,
    answer_samples,
    correct_cases,
    derive_cases,
    judge_cases,
)
from aligner_integrations.evaluation.records import Case, Sample
from aligner_integrations.evaluation.report import write_report
from aligner_integrations.evaluation.store import Store
from aligner_integrations.evaluation.summary import Summary, summarise
from aligner_integrations.evaluation.upstreams import Upstream, hide_secrets, load_upstream
from aligner_integrations.imports import require
from aligner_integrations.training.data.triples import encode_row, replacing

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Evaluation:
    """An evaluation that was done.

    Attributes:
        output: Its directory.
        cases: Every answer, correction and judgement; probes too.
        summary: What they add up to.
    """

    output: Path
    cases: tuple[Case, ...]
    summary: Summary

    @property
    def report(self) -> Path:
        """The report, one HTML file."""
        return self.output / "report.html"

    @property
    def evaluated(self) -> int:
        """Answers that were there and could be corrected, probes left out."""
        return sum(case.error is None and case.probe is None for case in self.cases)

    @property
    def failures(self) -> dict[str, int]:
        """Why answers, corrections and judgements are missing, and how many for each reason."""
        reasons = [case.error for case in self.cases if case.error]
        reasons += [
            f"{one.judge}, {one.dimension}: {one.error}"
            for case in self.cases
            for one in case.judgements
            if one.error
        ]
        return dict(Counter(reasons).most_common())


def evaluate(
    config: EvaluationConfig,
    *,
    models: Mapping[str, Any] | None = None,
    judges: Iterable[Judge] = (),
    resume: bool = True,
    progress: bool = True,
) -> Evaluation:
    """Evaluate aligners behind upstreams on datasets.

    Every answer, correction and judgement is kept in ``results.sqlite`` in the output directory as
    soon as it is there, by the content of all that it depends on. A run that was stopped, however
    it was, goes on without doing anything twice; one with another judge or aligner does only what
    is new. What failed is tried again.

    Args:
        config: What to evaluate.
        models: LangChain chat models and aligners by the names that the config calls them, in place
            of those that it would load. What they answer is kept by name and parameters, so give
            another model another name.
        judges: More judges than the config names.
        resume: False forgets what an earlier run found out.
        progress: Show bars on standard error.

    Returns:
        The evaluation; ``cases.jsonl``, ``summary.json``, ``settings.json`` and ``report.html`` are
        in the output directory.

    Raises:
        ConfigurationError: The config asks for something that cannot work.
        DataError: A dataset is broken, or a result can't be kept.
        MissingExtraError: A package of the extra ``eval`` is missing.
        ModelNotFoundError: There is no such model.
    """
    for package in ("jinja2", "scipy", "statsmodels"):
        require(package, "eval")
    given = dict(models or {})
    loaded = _load_all(config)
    samples = [sample for _, part in loaded for sample in part]
    upstreams: list[Upstream] = [
        load_upstream(one, models=given, concurrency=config.concurrency, seed=config.seed)
        for one in config.upstreams
    ]
    asked = {one.name: _select(loaded, one.name) for one in upstreams}
    if not any(one.covers(sample) for one in upstreams for sample in asked[one.name]):
        raise ConfigurationError(
            "no sample brings an answer along, so there is nothing to correct; name an upstream "
            "that answers"
        )
    correctors: list[Corrector] = [
        load_corrector(
            one,
            models=given,
            options=config.correct,
            batch_size=config.batch_size,
            concurrency=config.concurrency,
            seed=config.seed,
        )
        for one in config.aligners
    ]
    panel: list[Judge] = [
        judge
        for one in config.judges
        for judge in load_judges(one, models=given, concurrency=config.concurrency)
    ]
    panel += judges
    check_unique(
        "judges of one dimension", [f"{j.name}: {d}" for j in panel for d in j.dimensions] or [""]
    )
    settings = {
        "version": __version__,
        "config": config.to_dict(),
        "upstreams": [{"name": one.name, "identity": one.identity} for one in upstreams],
        "aligners": [{"name": one.name, "identity": one.identity} for one in correctors],
        "judges": [{"name": one.name, "identity": one.identity} for one in panel],
    }
    output = Path(config.output)
    with Store(output / "results.sqlite") as store:
        if not resume:
            store.clear()
        bench = Bench(store, config.patience, progress)
        cases = _work(bench, asked, upstreams, correctors, panel, config.probes)
        cases = _sort(cases, samples, upstreams, correctors)
    summary = summarise(
        cases,
        guards=measure_guards(cases),
        bias=measure_position_bias(cases, confidence=config.confidence),
        seed=config.seed,
        confidence=config.confidence,
    )
    done = Evaluation(output, tuple(cases), summary)
    _write(done, config, hide_secrets(settings))
    return done


_Loaded = list[tuple[DatasetConfig, list[Sample]]]


def _load_all(config: EvaluationConfig) -> _Loaded:
    loaded = [
        (
            one,
            load_samples(
                one.source,
                kind=one.kind,
                name=one.name,
                limit=one.limit,
                seed=config.seed,
                split=one.split,
            ),
        )
        for one in config.datasets
    ]
    samples = [sample for _, part in loaded for sample in part]
    if not samples:
        raise DataError(f"{', '.join(one.source for one in config.datasets)}: no samples in it")
    # One file may hold several datasets, and two files parts of one: only rows must be unique.
    check_unique("samples", [f"{sample.dataset} {sample.id}" for sample in samples])
    return loaded


def _select(loaded: _Loaded, upstream: str) -> list[Sample]:
    """What an upstream answers."""
    return [
        sample
        for dataset, samples in loaded
        if dataset.upstreams is None or upstream in dataset.upstreams
        for sample in samples
    ]


def _work(
    bench: Bench,
    asked: Mapping[str, Sequence[Sample]],
    upstreams: Sequence[Upstream],
    correctors: Sequence[Corrector],
    judges: list[Judge],
    probes: Sequence[str],
) -> list[Case]:
    answered = [case for one in upstreams for case in answer_samples(bench, asked[one.name], one)]
    cases: list[Case] = []
    for corrector in correctors:
        try:
            corrected = correct_cases(bench, answered, corrector)
            derived = derive_cases(corrected, [PROBES[name] for name in probes])
            cases += corrected
            cases += correct_cases(bench, derived, corrector)
        finally:
            corrector.close()
    while judges:
        cases = judge_cases(bench, cases, judges.pop(0))  # which frees the weights that it holds
    return cases


def _sort(
    cases: Sequence[Case],
    samples: Sequence[Sample],
    upstreams: Sequence[Upstream],
    correctors: Sequence[Corrector],
) -> list[Case]:
    """In an order that the config decides: dataset, sample, upstream, aligner, probe."""
    places = {(sample.dataset, sample.id): index for index, sample in enumerate(samples)}
    first = {one.name: index for index, one in enumerate(upstreams)}
    second = {one.name: index for index, one in enumerate(correctors)}

    def rank(case: Case) -> tuple[int, int, int, bool]:
        name = case.sample.id
        if case.probe is not None:
            name = name.rpartition(f"#{case.probe}:")[0]
        return (
            places[case.sample.dataset, name],
            first[case.upstream],
            second[case.aligner],
            case.probe is not None,
        )

    return sorted(cases, key=rank)


def _write(done: Evaluation, config: EvaluationConfig, settings: Mapping[str, Any]) -> None:
    with replacing(done.output / "cases.jsonl") as file:
        file.writelines(encode_row(case.to_dict()) for case in done.cases)
    with replacing(done.output / "summary.json") as file:
        file.write(done.summary.to_json().encode("utf-8"))
    with replacing(done.output / "settings.json") as file:
        plain = json.dumps({**settings, "failures": done.failures}, indent=2, ensure_ascii=False)
        file.write(f"{plain}\n".encode("utf-8", "backslashreplace"))
    write_report(
        done.summary,
        done.cases,
        done.report,
        title=config.title,
        limits=[*config.limits, *_find_limits(config)],
        settings=_shorten(settings["config"]),
    )


def _find_limits(config: EvaluationConfig) -> Iterator[str]:
    """What a reader must know that only the config says."""
    if config.batch_size > 1 and any(
        one.zero_shot or one.model not in (None, NONE) for one in config.aligners
    ):
        yield (
            f"Up to {config.batch_size} answers were corrected together, and their seconds include "
            "waiting for the others."
        )


def _shorten(config: Mapping[str, Any]) -> dict[str, Any]:
    """A config without what was left out, and without what the report shows elsewhere."""

    def is_said(value: Any) -> bool:
        return value is not None and value not in ({}, [])

    def prune(value: Any) -> Any:
        if isinstance(value, Mapping):
            return {key: prune(one) for key, one in value.items() if is_said(one)}
        return [prune(one) for one in value] if isinstance(value, list) else value

    shown = {"title", "limits", "seed", "confidence"}
    return {key: prune(value) for key, value in config.items() if key not in shown}
