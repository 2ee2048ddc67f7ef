"""The reliability script: passes what is right, sees what is wrong; its page is up to date."""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import httpx
import pytest
import torch

from aligner_integrations import Aligner
from aligner_integrations.correction import CorrectionStats
from aligner_integrations.engines.base import Finished, Job
from docs.benchmarks.reliability import report, soak, ways
from docs.benchmarks.reliability.__main__ import main
from docs.benchmarks.reliability.client import Client
from docs.benchmarks.reliability.gateway import Sample
from docs.benchmarks.reliability.plans import CANCELLED, RIGHT, Plan, make_plans
from docs.benchmarks.reliability.pool import Pair, Pool
from docs.benchmarks.reliability.processes import Held
from docs.benchmarks.reliability.tally import Tally, find_percentiles
from tests.docs.pages import ROOT
from tests.docs.test_performance import read_size

FIGURES = ROOT / "docs" / "benchmarks" / "reliability.json"
PAGE = ROOT / "docs" / "reliability.md"
PAIR = Pair("Eggs?", "Boil them, you fool.", "Boil them.")
DONE = "data: [DONE]\n\n"


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


def test_gateway_run(tmp_path: Path) -> None:
    """Real processes, a few dozen requests, many of them with faults or without patience.

    With this seed no upstream falls silent, which would take until the gateway's timeout.
    """
    path = tmp_path / "figures.json"
    line = ["gateway", "--requests", "40", "--pool", "10", "--workers", "10", "--json", str(path)]
    assert main([*line, "--faults", "0.4", "--hang-ups", "0.2", "--seed", "36"]) == 0
    (figures,) = report.read(path).values()
    counts = [figures["right"], figures["cancelled"], *figures["errors"].values()]
    assert sum(counts) == figures["requests"] == 40
    assert figures["right"] > 10
    assert len(figures["errors"]) > 3
    assert (figures["lost"], figures["mixed_up"], figures["wrong"]) == (0, 0, [])
    assert figures["memory"]["peak"] > 100


def test_scheduler_run(tmp_path: Path) -> None:
    path = tmp_path / "figures.json"
    line = ["scheduler", "--requests", "60", "--pool", "6", "--workers", "6"]
    assert main([*line, "--json", str(path), "--patience", "0.2"]) == 0
    (figures,) = report.read(path).values()
    assert figures["right"] > 10
    assert {"InvalidTextError", "QueueFullError"} <= figures["errors"].keys()
    assert (figures["lost"], figures["mixed_up"], figures["wrong"]) == (0, 0, [])


def chunk(text: str, name: str = "r", finish: str | None = None) -> str:
    choice = {"index": 0, "delta": {"content": text}, "finish_reason": finish}
    return f"data: {json.dumps({'id': name, 'choices': [choice]})}\n\n"


def whole(text: str, name: str = "r") -> str:
    return json.dumps({"id": name, "choices": [{"message": {"content": text}}]})


def error(status: int, code: str) -> tuple[int, str]:
    return status, json.dumps({"error": {"code": code, "message": "no"}})


RIGHT_STREAM = chunk("Boil ") + chunk("them.", finish="stop") + DONE
BROKEN = 'data: {"error": {"code": "upstream_broken", "message": "no"}}\n\n'


@pytest.mark.parametrize(
    ("answer", "stream", "fault", "how", "fine"),
    [
        (whole("Boil them."), False, "", RIGHT, True),
        (whole("Boil them, you fool."), False, "", "mixed up", False),
        (whole("Boil them.", "another"), False, "", "mixed up", False),
        ("no JSON", False, "", "mixed up", False),
        (error(502, "upstream_broken"), False, "drop", "502 upstream_broken", True),
        (error(502, "upstream_broken"), False, "", "502 upstream_broken", False),
        (whole("Boil them."), False, "drop", RIGHT, False),
        (": keep-alive\n\n" + RIGHT_STREAM, True, "", RIGHT, True),
        (RIGHT_STREAM + chunk("more"), True, "", "mixed up", False),
        (chunk("Boil "), True, "", "lost", False),
        (chunk("Boil ") + DONE, True, "", "mixed up", False),
        (chunk("Boil them.") + DONE, True, "", "mixed up", False),
        (chunk("Boil them, "), True, "", "mixed up", False),
        (chunk("Boil ", "another"), True, "", "mixed up", False),
        (chunk("Boil ") + BROKEN, True, "drop", "event upstream_broken", True),
        (chunk("Boil them, ") + BROKEN, True, "drop", "mixed up", False),
        (chunk("Boil ") + BROKEN + DONE, True, "drop", "mixed up", False),
    ],
)
def test_client_sees_how_a_request_ended(
    answer: str | tuple[int, str], stream: bool, fault: str, how: str, fine: bool
) -> None:
    status, text = answer if isinstance(answer, tuple) else (200, answer)
    tally = asyncio.run(ask(httpx.Response(status, text=text), Plan("r", PAIR, stream, fault)))
    assert tally.ends == {how: 1}
    assert (not tally.wrong) == fine
    assert (tally.lost, tally.mixed) == (how == "lost", how == "mixed up")


async def ask(response: httpx.Response | Exception, plan: Plan) -> Tally:
    async def answer(request: httpx.Request) -> httpx.Response:
        if isinstance(response, Exception):
            raise response
        await asyncio.sleep(0 if plan.hang_up is None else 5)
        return response

    async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
        tally = Tally()
        await Client(http, "http://gateway", tally).ask(plan)
        return tally


def test_client_that_hangs_up_and_one_that_is_cut_off() -> None:
    gone = asyncio.run(ask(httpx.Response(200), Plan("r", PAIR, False, hang_up=0.01)))
    assert (gone.ends, gone.wrong) == ({CANCELLED: 1}, [])
    cut = asyncio.run(ask(httpx.ReadError("cut"), Plan("r", PAIR, True, hang_up=9)))
    assert cut.ends == {"lost": 1}
    assert "ReadError: cut" in cut.wrong[0]


class MixingEngine:
    """Answers every job with the same text."""

    name = "mixing"
    prompt = None

    def read_ahead(self, question: str) -> None:
        return None

    def calibrate(self) -> None:
        pass

    def submit(self, jobs: Sequence[Job]) -> None:
        for job in jobs:
            job.emit("Boil ")
            job.emit("them.")
            job.emit(Finished("Boil them.", CorrectionStats(1, 1, 1, 1)))


@pytest.mark.parametrize("way", [ways.correct, ways.stream, ways.stream_of_pieces])
def test_ways_see_mix_ups(way: ways.Way) -> None:
    aligner = Aligner(MixingEngine())  # type: ignore[arg-type]
    draw = random.Random(0)
    turn = ways.Turn([PAIR], "", draw, 1.0)
    assert [end.how for end in way(aligner, turn)] == [RIGHT]
    turn = ways.Turn([Pair("Rice?", "Cook it.", "Cook it.")], "", draw, 1.0)
    assert [end.how for end in way(aligner, turn)] == ["mixed up"]


def test_plans() -> None:
    pairs = tuple(Pair(f"q{n}", f"a{n}", f"t{n}") for n in range(20))
    plans = make_plans(Pool(pairs, "long", 0), 1, faults=0.5, hang_ups=0.5, patience=2.0)
    drawn = [next(plans) for _ in range(200)]
    assert len({plan.name for plan in drawn}) == 200
    for start in range(0, 200, 20):
        assert {plan.pair for plan in drawn[start : start + 20]} == set(pairs)
    assert all(plan.hang_up is None or plan.fault in ("", "slow") for plan in drawn)
    assert {RIGHT, CANCELLED} in [plan.ends for plan in drawn]


def test_percentiles() -> None:
    values = [float(n) for n in range(1, 101)]
    assert find_percentiles(values[::-1]) == {"n": 100, "p50": 50, "p95": 95, "p99": 99}
    assert find_percentiles([7.0]) == {"n": 1, "p50": 7, "p95": 7, "p99": 7}


def test_soak_is_analysed_and_drawn(tmp_path: Path) -> None:
    """Memory that grows to 500 MB in the first third, and then by 6 MB in each 10 minutes."""
    samples = [
        Sample(float(at), Held(300 + at if at < 200 else 500 + (at - 200) / 100, 8, 9), at)
        for at in range(0, 601, 5)
    ]
    figures: dict[str, Any] = soak.analyse(samples)
    assert figures["slope"] == pytest.approx(6.0, abs=0.1)
    assert (figures["start"], figures["most"]) == (300, 504)
    assert figures["minutes"] == 10
    soak.draw({"soak, tiny": {"soak": figures}}, tmp_path / "soak.png")
    assert 5_000 < (tmp_path / "soak.png").stat().st_size < 60_000


def test_page_shows_the_figures() -> None:
    figures, page = report.read(FIGURES), PAGE.read_text(encoding="utf-8")
    for grid in report.make_grids(figures):
        assert grid.to_markdown() in page, grid.title
    for run in figures.values():
        assert (run["lost"], run["mixed_up"]) == (0, 0)
        assert run["command"].removeprefix("python ") in page


def test_picture_is_drawn_from_the_figures(tmp_path: Path) -> None:
    soaks = {name: run for name, run in report.read(FIGURES).items() if "soak" in run}
    soak.draw(soaks, tmp_path / "again.png")
    shown = ROOT / "docs" / "assets" / "reliability.png"
    assert read_size(tmp_path / "again.png") == read_size(shown)
    assert shown.stat().st_size < 80_000
