"""What passes cost: measured here, kept as a file, and found again by the same kind of model."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from aligner_integrations import Aligner
from aligner_integrations.decoding import costs as costs_module
from aligner_integrations.decoding.costs import (
    AVX2_CPU_COSTS,
    CPU_COSTS,
    GPU_COSTS,
    STOCK_CPU_COSTS,
    PassCosts,
    default_costs,
    measure_costs,
)
from aligner_integrations.decoding.linears import pack_linears
from aligner_integrations.decoding.packed import PackedModel, Part, pack
from aligner_integrations.engines import calibration
from aligner_integrations.engines.calibration import calibrate, describe, find_costs
from aligner_integrations.engines.local import LocalEngine
from tests.passes import on_pass
from tests.tiny import make_model

TABLES = pytest.mark.parametrize("table", [CPU_COSTS, AVX2_CPU_COSTS, STOCK_CPU_COSTS, GPU_COSTS])
STEEP = PassCosts((1, 2), (1.0, 100.0))
"""No draft pays."""


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALIGNER_CACHE_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model() -> PackedModel:
    return PackedModel(make_model("llama", max_position_embeddings=1024))


@pytest.fixture
def aligner(writer: Aligner) -> Aligner:
    """An engine that knows no costs yet."""
    assert isinstance(writer.engine, LocalEngine)
    return Aligner(LocalEngine(writer.engine.loaded))


def engine_of(aligner: Aligner) -> LocalEngine:
    assert isinstance(aligner.engine, LocalEngine)
    return aligner.engine


@TABLES
def test_tables_begin_with_one_token_and_rise(table: PassCosts) -> None:
    assert table.tokens[0] == 1
    assert len(table.tokens) == len(table.seconds)
    assert all(one < other for one, other in pairwise(table.tokens))
    assert all(one <= other for one, other in pairwise(table.seconds))


@TABLES
def test_measured_points_are_met(table: PassCosts) -> None:
    for tokens, seconds in zip(table.tokens, table.seconds, strict=True):
        assert table.of(tokens) == pytest.approx(seconds)


@given(data=st.data())
def test_between_and_beyond_points_lines_are_straight(data: st.DataObject) -> None:
    tokens = [1, *sorted(data.draw(st.sets(st.integers(2, 500), min_size=1, max_size=6)))]
    numbers = st.floats(0.001, 1000)
    seconds = sorted(data.draw(st.lists(numbers, min_size=len(tokens), max_size=len(tokens))))
    costs = PassCosts(tokens, seconds)
    for (x0, y0), (x1, y1) in pairwise(zip(tokens, seconds, strict=True)):
        assert costs.of((x0 + x1) // 2) == pytest.approx(
            y0 + (y1 - y0) * ((x0 + x1) // 2 - x0) / (x1 - x0)
        )
    slope = (seconds[-1] - seconds[-2]) / (tokens[-1] - tokens[-2])
    assert costs.of(tokens[-1] + 50) == pytest.approx(seconds[-1] + 50 * slope)


def test_defaults_are_those_of_the_device_and_its_layers(
    model: PackedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert default_costs(model) is STOCK_CPU_COSTS
    assert pack_linears(model.model)
    for kernels, costs in (("AVX2", AVX2_CPU_COSTS), ("AVX512", CPU_COSTS)):
        monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda it=kernels: it)
        assert default_costs(model) is costs
    model.device = torch.device("cuda")
    assert default_costs(model) is GPU_COSTS


def test_measuring(model: PackedModel, monkeypatch: pytest.MonkeyPatch) -> None:
    lengths: list[int] = []
    forward = model.forward

    def watched(parts: list[Part]) -> Any:
        lengths.append(len(parts[0].tokens))
        return forward(parts)

    monkeypatch.setattr(model, "forward", watched)
    measured = measure_costs(model, repeats=2)
    assert tuple(measured.tokens) == AVX2_CPU_COSTS.tokens
    assert lengths == [256, *AVX2_CPU_COSTS.tokens * 3]  # a round to warm up, and two that count
    assert all(0 < one <= other for one, other in pairwise(measured.seconds))
    assert measured.seconds[-1] < 10


def test_the_fastest_pass_counts_and_costs_never_fall(
    model: PackedModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process beside us makes passes slower, and kernels jump where they get more tokens."""
    ticks: list[float] = [0.0] * len(AVX2_CPU_COSTS.tokens)  # a round that is not timed to its end
    for slowed in (80.0, 0.0, 7.0):
        for length in range(len(AVX2_CPU_COSTS.tokens)):
            ticks += [0.0, slowed + (8.0 if length == 2 else 10.0 + length)]
    clock = SimpleNamespace(perf_counter=lambda: ticks.pop(0))
    monkeypatch.setattr(costs_module, "time", clock)
    monkeypatch.setattr(model, "forward", lambda parts: [torch.zeros(1, 1)])
    measured = measure_costs(model, repeats=3)
    assert list(measured.seconds) == [10, 11, 11, 13, 14, 15, 16, 17, 18]


def test_what_is_measured_is_kept_and_found_again(model: PackedModel, cache: Path) -> None:
    assert find_costs(model) is None
    measured = calibrate(model)
    (file,) = (cache / "costs").iterdir()
    assert json.loads(file.read_text())["model"] == describe(model)
    assert find_costs(model) == measured
    again = PackedModel(make_model("llama", max_position_embeddings=1024, seed=1))
    assert find_costs(again) == measured  # of the same shape, so as fast


def bfloat16(model: PackedModel) -> PackedModel:
    return PackedModel(model.model.bfloat16())


def other_layers(model: PackedModel) -> PackedModel:
    assert pack_linears(model.model)
    return model


def other_threads(model: PackedModel) -> PackedModel:
    torch.set_num_threads(torch.get_num_threads() % 2 + 1)
    return model


def other_shape(model: PackedModel) -> PackedModel:
    return PackedModel(make_model("llama", num_hidden_layers=1))


def other_architecture(model: PackedModel) -> PackedModel:
    return PackedModel(make_model("qwen2"))


def other_torch(model: PackedModel) -> PackedModel:
    calibration.torch.__version__ = "99.0"  # type: ignore[misc]
    return model


@pytest.mark.parametrize(
    "change",
    [bfloat16, other_layers, other_threads, other_shape, other_architecture, other_torch],
)
def test_costs_of_something_else_are_not_taken(
    model: PackedModel,
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[PackedModel], PackedModel],
) -> None:
    monkeypatch.setattr(calibration.torch, "__version__", torch.__version__)
    calibrate(model)
    before = describe(model)
    threads = torch.get_num_threads()
    try:
        changed = change(model)
        assert find_costs(changed) is None
        assert describe(changed) != before
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize(
    "content",
    ["", "{", "[]", "null", "{}", '{"tokens": [1, 2]}', '{"tokens": 1, "seconds": 2}', "\x00\xff"],
)
def test_a_broken_file_is_ignored_with_a_warning(
    model: PackedModel, cache: Path, caplog: pytest.LogCaptureFixture, content: str
) -> None:
    calibrate(model)
    (file,) = (cache / "costs").iterdir()
    file.write_bytes(content.encode("latin-1"))
    with caplog.at_level("WARNING"):
        assert find_costs(model) is None
    assert f"pass costs in {file} can't be read" in caplog.text
    assert "using defaults" in caplog.text
    assert find_costs(model) is None
    assert calibrate(model) == find_costs(model)  # which mends it


@pytest.mark.parametrize(
    "saved",
    [
        {"tokens": [], "seconds": []},
        {"tokens": [1], "seconds": [1.0]},
        {"tokens": [1, 2, 4], "seconds": [1.0, 2.0]},
        {"tokens": [1, 1], "seconds": [1.0, 1.0]},
        {"tokens": ["1", "2"], "seconds": [1.0, 2.0]},
        {"tokens": [1, 2], "seconds": [1.0, None]},
    ],
)
def test_a_file_that_holds_no_cost_curve_fails_no_correction(
    aligner: Aligner, cache: Path, saved: dict[str, Any]
) -> None:
    aligner.calibrate()
    (file,) = (cache / "costs").iterdir()
    file.write_text(json.dumps(saved))
    later = Aligner(LocalEngine(engine_of(aligner).loaded))
    assert later.correct("q", "Cool it in water, kindly.").text == "Cool water, 😀 kindly."


def test_a_directory_in_its_place_is_ignored(
    model: PackedModel, cache: Path, caplog: pytest.LogCaptureFixture
) -> None:
    calibration._path(model).mkdir(parents=True)
    assert find_costs(model) is None
    assert "can't be read" in caplog.text


async def test_an_aligner_measures_and_uses_it(aligner: Aligner, cache: Path) -> None:
    engine = engine_of(aligner)
    wanted = aligner.correct("q", "Cool it in water, kindly.")
    assert engine.costs is None
    aligner.calibrate()
    assert isinstance(engine.costs, PassCosts)
    assert len(list((cache / "costs").iterdir())) == 1
    assert aligner.correct("q", "Cool it in water, kindly.").text == wanted.text
    assert (await aligner.acorrect("q", "Cool it in water, kindly.")).text == wanted.text
    later = LocalEngine(engine.loaded)
    Aligner(later).correct("q", "a")
    assert later.costs == engine.costs


def test_costs_decide_how_much_is_drafted(
    aligner: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And nothing else: the text is the same."""
    engine = engine_of(aligner)
    assert engine.pack() is not None
    answer = "Cool water, 😀 kindly."
    corrections = []
    for costs in (GPU_COSTS, STEEP):
        engine.costs = costs
        corrections.append(aligner.correct("q", answer))
    fast, slow = corrections
    assert fast.text == slow.text == answer
    assert fast.stats.forward_passes < 5
    assert slow.stats.forward_passes == slow.stats.output_tokens + 1
    monkeypatch.setattr(calibration, "measure_costs", lambda model: STEEP)
    engine.costs = GPU_COSTS
    aligner.calibrate()
    assert engine.costs == STEEP
    assert aligner.correct("q", answer).stats.forward_passes == slow.stats.forward_passes


def test_measuring_waits_until_no_job_runs(
    aligner: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    running = threading.Event()
    events: list[str] = []

    def slow(rows: list[Any]) -> None:
        running.set()
        events.append("pass")
        time.sleep(0.005)

    def measure(model: PackedModel) -> PassCosts:
        events.append("measure")
        return CPU_COSTS

    on_pass(monkeypatch, slow)
    monkeypatch.setattr(calibration, "measure_costs", measure)
    with aligner.stream("q", "an answer", options={"exact": False}) as stream:
        next(stream)
        running.wait(10)
        aligner.calibrate()
        assert "".join(stream)
    assert events.count("measure") == 1
    assert events[-1] == "measure"


def test_jobs_that_come_while_it_measures_run_afterwards(
    aligner: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    begun, asked = threading.Event(), threading.Event()

    def measure(model: PackedModel) -> PassCosts:
        begun.set()
        assert asked.wait(10)
        return CPU_COSTS

    monkeypatch.setattr(calibration, "measure_costs", measure)
    calibrating = threading.Thread(target=aligner.calibrate)
    calibrating.start()
    assert begun.wait(10)
    stream = aligner.stream("q", "an answer")
    waiting = threading.Thread(target=stream.read)
    waiting.start()
    while not engine_of(aligner)._waiting:
        time.sleep(0.001)
    asked.set()
    for thread in (calibrating, waiting):
        thread.join(10)
        assert not thread.is_alive()
    assert stream.correction.text == "Cool water, 😀 kindly."


def test_measuring_that_fails_leaves_the_engine_usable(
    aligner: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(model: PackedModel) -> PassCosts:
        raise MemoryError("no room for 256 tokens")

    monkeypatch.setattr(calibration, "measure_costs", fail)
    with pytest.raises(MemoryError):
        aligner.calibrate()
    assert aligner.correct("q", "a").text == "Cool water, 😀 kindly."


def test_a_model_that_is_decoded_plainly_has_nothing_to_measure(
    writer: Aligner, cache: Path
) -> None:
    engine = LocalEngine(engine_of(writer).loaded, speculate=False)
    Aligner(engine).calibrate()
    assert engine.costs is None
    assert not cache.exists()


def test_a_short_context_is_enough() -> None:
    """A model that learnt its positions has no more of them than its context."""
    short = pack(make_model("gpt2", max_position_embeddings=128))
    if short is None:
        pytest.skip("before transformers 5 GPT-2 hands attention no arguments, so none are packed")
    assert measure_costs(short, repeats=1).seconds[0] > 0
