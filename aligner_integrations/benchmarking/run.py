"""Running the benchmark: every way on every case in turn, in one process, several times."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, TypeVar

import torch

from aligner_integrations.aligner import Aligner
from aligner_integrations.benchmarking.cases import Case, CaseMaker, make_cases
from aligner_integrations.benchmarking.methods import OurWays, StockWays, clock, engine_of
from aligner_integrations.benchmarking.texts import ANSWERS, PAIRS

GREEDY = "plain loop"
OURS = "ours"
FLOOR = "floor"
APART = "ours, in turn"
PADDED = "generate, padded by 8"
TOGETHER = "ours, together"

Note = Callable[[str], None]
_Subject = TypeVar("_Subject")
Ways = dict[str, Callable[[_Subject], None]]
"""Ways to decode, by the name of their column."""


@dataclass(slots=True)
class Figures:
    """Seconds of one row of the table.

    Attributes:
        name: What is corrected.
        prompt_tokens: Of all its requests.
        output_tokens: Of all its requests.
        requests: How many.
        seconds: For each way, for each repeat, the seconds of each request.
    """

    name: str
    prompt_tokens: int
    output_tokens: int
    requests: int
    seconds: dict[str, list[list[float]]] = field(default_factory=dict)


@dataclass(slots=True)
class Report:
    """All that was measured; plain data."""

    machine: dict[str, Any]
    cases: list[Figures] = field(default_factory=list)
    real: list[Figures] = field(default_factory=list)
    batches: list[Figures] = field(default_factory=list)
    first_token: dict[str, Any] = field(default_factory=dict)
    memory: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Plan:
    """What to measure.

    Attributes:
        repeats: Runs of everything; medians count.
        variants: Requests of each kind.
        lengths: Tokens of the identical answers.
        tokens: Tokens of the other answers.
        mix: Requests in the natural mix, which is run once: they are many.
        batches: Sizes of the batches; those of more than 16 requests are run once, and not with
            transformers, which would take many minutes.
        only: Which tables are made: "cases", "real" (needs a trained aligner), "batches",
            "first-token", "memory".
    """

    repeats: int = 3
    variants: int = 1
    lengths: tuple[int, ...] = (60, 200, 500)
    tokens: int = 200
    mix: int = 20
    batches: tuple[int, ...] = (1, 4, 16, 64)
    only: frozenset[str] = frozenset(("cases", "real", "batches", "first-token", "memory"))


class Benchmark:
    """Measures one model.

    Args:
        aligner: The aligner, on a local engine.
        stock: Transformers' ways with the same weights.
        plan: What to measure.
        note: Told what is being measured.
    """

    def __init__(self, aligner: Aligner, stock: StockWays, plan: Plan, note: Note) -> None:
        self._aligner = aligner
        self._plan = plan
        self._note = note
        ours = self._ours = OurWays(engine_of(aligner))
        self._encoder = ours.engine.loaded.encoder
        self._device = ours.model.device
        self._ways: Ways[Case] = {
            GREEDY: stock.plain_loop,
            "generate": stock.generate,
            "prompt lookup": stock.prompt_lookup,
            OURS: ours.decode,
            FLOOR: ours.floor,
        }
        self._batch_ways: Ways[list[Case]] = {
            APART: ours.decode_in_turn,
            PADDED: stock.generate_padded,
            TOGETHER: ours.decode_together,
        }

    def run(self) -> Report:
        """Measure everything that is planned."""
        report = Report(describe_machine(self._ours))
        plan, maker = self._plan, CaseMaker(self._encoder)
        if "cases" in plan.only:
            for cases in make_cases(maker, plan.variants, plan.lengths, plan.tokens):
                report.cases.append(self._measure(cases[0].name, cases, plan.repeats))
            report.cases.append(self._measure("natural mix", maker.mix(plan.mix), 1))
        if "real" in plan.only:
            written = self._write()
            report.real.append(self._measure("its own corrections", written, plan.repeats))
        if "batches" in plan.only:
            report.batches = [self._measure_batch(size) for size in plan.batches]
        if "first-token" in plan.only:
            report.first_token = self._measure_first_token()
        return report

    def _measure(self, name: str, cases: list[Case], repeats: int) -> Figures:
        ways = self._ways
        figures = Figures(
            name,
            sum(len(case.prompt) for case in cases),
            sum(len(case.target) for case in cases),
            len(cases),
            {way: [] for way in ways},
        )
        for repeat in range(repeats):
            taken: dict[str, list[float]] = {way: [] for way in ways}
            for index, case in enumerate(cases):
                self._note(f"{name}: run {repeat + 1}, request {index + 1} of {len(cases)}")
                for way, run in _rotate(list(ways.items()), index + repeat):
                    taken[way].append(self._clock(run, case))
            for way, seconds in taken.items():
                figures.seconds[way].append(seconds)
        return figures

    def _measure_batch(self, size: int) -> Figures:
        cases = CaseMaker(self._encoder, seed=1).mix(size)
        tokens = sum(len(case.target) for case in cases)
        prompts = sum(len(case.prompt) for case in cases)
        figures = Figures(f"{size} of the mix", prompts, tokens, size)
        ways = {w: run for w, run in self._batch_ways.items() if size <= 16 or w != PADDED}
        figures.seconds = {way: [] for way in ways}
        for repeat in range(self._plan.repeats if size <= 16 else 1):
            for way, run in _rotate(list(ways.items()), repeat):
                self._note(f"batch of {size}: run {repeat + 1}, {way}")
                figures.seconds[way].append([self._clock(run, cases)])
        return figures

    def _clock(self, run: Callable[[_Subject], None], what: _Subject) -> float:
        return clock(lambda: run(what), self._device)

    def _write(self) -> list[Case]:
        """Real pairs with what the model makes of them."""
        cases = []
        for question, answer in PAIRS:
            correction = self._aligner.correct(question, answer)
            encoded = self._encoder.encode(question, answer)
            target = self._encoder.encode_output(correction.text)
            cases.append(Case("", question, answer, encoded.ids, encoded.answer_ids, target))
        return cases

    def _measure_first_token(self, tokens: int = 500) -> dict[str, Any]:
        """Seconds from the answer's end to the first corrected text, read ahead or not."""
        question = ANSWERS[0][0]
        answer = CaseMaker(self._encoder).identical(tokens).answer
        prompt = len(self._encoder.encode(question, answer).ids)
        taken: dict[str, Any] = {"prompt_tokens": prompt, "whole": [], "read ahead": []}
        for repeat in range(self._plan.repeats):
            self._note(f"first token: run {repeat + 1}")
            started = time.perf_counter()
            self._read_first(question, answer)
            taken["whole"].append(time.perf_counter() - started)
            ended: list[float] = []
            self._read_first(question, _arrive(answer, 3 * taken["whole"][-1], ended))
            taken["read ahead"].append(time.perf_counter() - ended[0])
        return taken

    def _read_first(self, question: str, answer: Any) -> None:
        with self._aligner.stream(question, answer) as stream:
            next(stream)


def _arrive(text: str, seconds: float, ended: list[float]) -> Iterator[str]:
    """A text that comes in pieces of a few characters, over some seconds; notes when it ended."""
    pieces = [text[at : at + 16] for at in range(0, len(text), 16)]
    for piece in pieces:
        time.sleep(seconds / len(pieces))
        yield piece
    ended.append(time.perf_counter())


def _rotate(ways: list[tuple[str, Any]], by: int) -> list[tuple[str, Any]]:
    """Another order each time, so that no way always follows the same other one."""
    by %= len(ways)
    return ways[by:] + ways[:by]


def describe_machine(ours: OurWays) -> dict[str, Any]:
    """What the figures were taken on."""
    import transformers

    from aligner_integrations import __version__

    device = ours.model.device
    named = torch.cuda.get_device_name(device) if device.type == "cuda" else _read_processor()
    return {
        "date": date.today().isoformat(),
        "model": ours.engine.name,
        "dtype": str(ours.model.dtype).removeprefix("torch."),
        "device": named,
        "threads": torch.get_num_threads(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "aligner_integrations": __version__,
    }


def _read_processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
