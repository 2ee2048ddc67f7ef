"""`strength`: one option, the same in every way to ask for a correction, and each request's own."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from aligner_integrations import Aligner, GenerationOptions
from aligner_integrations.correction import Correction
from aligner_integrations.engines.base import Event, Finished, Job
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.errors import ConfigurationError, SteeringError
from aligner_integrations.step import CorrectionStep
from tests.decoding.test_steering import count_hooks, no_hooks
from tests.passes import on_pass
from tests.steered import EAGER, KEEPING, WRITES, save_steered

TEXTS = {-1: KEEPING, -0.6: KEEPING, -0.25: WRITES, 0: WRITES, 0.25: WRITES, 0.6: EAGER, 1: EAGER}
Ask = Callable[..., Correction]


def _stream(aligner: Aligner, **call: Any) -> Correction:
    stream = aligner.stream("q", iter(["some ", "answer"]), **call)
    assert "".join(stream) == stream.correction.text
    return stream.correction


async def _astream(aligner: Aligner, **call: Any) -> Correction:
    stream = aligner.astream("q", "some answer", **call)
    pieces = [piece async for piece in stream]
    assert "".join(pieces) == stream.correction.text
    return stream.correction


WAYS: dict[str, Ask] = {
    "correct": lambda aligner, **call: aligner.correct("q", "some answer", **call),
    "batch": lambda aligner, **call: aligner.correct_batch([("q", "a"), ("q", "b")], **call)[1],
    "stream": _stream,
    "acorrect": lambda aligner, **call: asyncio.run(aligner.acorrect("q", "some answer", **call)),
    "abatch": lambda aligner, **call: asyncio.run(aligner.acorrect_batch([("q", "a")], **call))[0],
    "astream": lambda aligner, **call: asyncio.run(_astream(aligner, **call)),
    "step": lambda aligner, **call: CorrectionStep(aligner, **call).correct("q", "some answer"),
}


@pytest.fixture(params=[True, False], ids=["speculative", "plain"])
def both(request: pytest.FixtureRequest, steered: Aligner) -> Aligner:
    """Either decoder."""
    assert isinstance(steered.engine, LocalEngine)
    return Aligner(LocalEngine(steered.engine.loaded, speculate=request.param))


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_ask_takes_it(both: Aligner, way: str) -> None:
    for strength, text in TEXTS.items():
        assert WAYS[way](both, strength=strength).text == text
        assert WAYS[way](both, options={"strength": strength}).text == text
    assert WAYS[way](both).text == WRITES


def test_a_calls_own_comes_before_the_options(steered: Aligner) -> None:
    eager = Aligner(steered.engine, options={"strength": 1})
    assert eager.correct("q", "a").text == EAGER
    assert eager.correct("q", "a", strength=0).text == WRITES
    assert eager.correct("q", "a", options={}).text == WRITES
    assert eager.correct("q", "a", options={"strength": 1}, strength=-1).text == KEEPING
    assert CorrectionStep(eager).correct("q", "a").text == EAGER
    assert CorrectionStep(eager, strength=0.0).correct("q", "a").text == WRITES


@pytest.mark.parametrize("options", [{"exact": True}, {"temperature": 0.01, "seed": 1}])
def test_with_other_options(both: Aligner, options: dict[str, Any]) -> None:
    for strength, text in TEXTS.items():
        given = GenerationOptions(**options, strength=strength)
        assert both.correct("q", WRITES, options=given).text == text


@pytest.mark.parametrize("strength", [-1.5, 2, float("nan"), "high", True])
@pytest.mark.parametrize("way", WAYS)
def test_a_strength_out_of_range_is_refused(steered: Aligner, way: str, strength: Any) -> None:
    with pytest.raises(ConfigurationError, match=r"strength=.* must be between -1 \(keep"):
        WAYS[way](steered, strength=strength)


def test_the_record_says_the_strength_that_was_applied(steered: Aligner) -> None:
    eager = steered.correct("q", "a", strength=0.75)
    assert (eager.strength, eager.record()["strength"], eager.to_dict()["strength"]) == (0.75,) * 3
    json.dumps(eager.to_dict())
    usual = steered.correct("q", "a")
    assert usual.strength == 0
    assert "strength" not in {**usual.record(), **usual.to_dict()}
    assert steered.correct("q", "", strength=1).strength == 0  # not read, so not steered


@pytest.mark.parametrize("way", WAYS)
def test_a_model_without_files_says_which_command_makes_them(writer: Aligner, way: str) -> None:
    message = f"'{writer.name}' has none; make them with: aligner scan {writer.name} --data TRIPLES"
    for on_error in ("raise", "original", "refuse"):  # a mistake of the caller's, no failure
        with pytest.raises(SteeringError) as raised:
            WAYS[way](writer, strength=0.5, on_error=on_error)
        assert message in str(raised.value)
        assert "--save, or use strength=0" in str(raised.value)
    assert WAYS[way](writer, strength=0).text.startswith("Cool water")


def test_what_a_default_strength_needs_is_missed_while_loading(tmp_path: Path) -> None:
    without = save_steered(tmp_path / "without", steering=False)
    with pytest.raises(SteeringError, match=r"strength=0\.5 needs steering files"):
        Aligner.from_pretrained(str(without), device="cpu", options={"strength": 0.5})
    with_files = save_steered(tmp_path / "with")
    aligner = Aligner.from_pretrained(str(with_files), device="cpu", options={"strength": 1})
    assert aligner.correct("q", "a").text == EAGER


@pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning")
def test_files_are_found_beside_an_adapter(tmp_path: Path) -> None:
    """Those of the base, if it has any, were made for the model without the adapter."""
    from peft import LoraConfig, get_peft_model
    from transformers import AutoModelForCausalLM

    from aligner_integrations.decoding.steering import Steering

    base = save_steered(tmp_path / "base")
    model = AutoModelForCausalLM.from_pretrained(base)
    adapter = get_peft_model(model, LoraConfig(r=1, target_modules=["q_proj"]))
    adapter.save_pretrained(str(tmp_path / "adapter"))
    aligners = [
        Aligner.from_pretrained(str(base), adapter=str(tmp_path / "adapter"), device="cpu"),
        Aligner.from_pretrained(str(tmp_path / "adapter"), prompt="aligner-smol", device="cpu"),
    ]
    for aligner in aligners:
        with pytest.raises(SteeringError, match="needs steering files"):
            aligner.correct("q", "a", strength=1)
    Steering.from_directory(base).save(tmp_path / "adapter")
    for aligner in aligners:
        assert aligner.correct("q", "a", strength=1).text == EAGER


def test_requests_at_the_same_time_do_not_mix(
    both: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Threads with different strengths, which the engine puts into the same passes."""
    mixed: list[int] = []
    on_pass(
        monkeypatch,
        lambda rows: mixed.append(
            len({0.0 if row.offset is None else row.offset.coefficient for row in rows})
        ),
    )
    start, rounds = threading.Barrier(len(TEXTS)), 8

    def ask(strength: float) -> list[str]:
        start.wait()
        return [both.correct("q", WRITES, strength=strength).text for _ in range(rounds)]

    with ThreadPoolExecutor(len(TEXTS)) as pool:
        got = list(pool.map(ask, TEXTS))
    assert got == [[text] * rounds for text in TEXTS.values()]
    assert max(mixed) > 2


def test_jobs_of_one_batch_have_strengths_of_their_own(both: Aligner) -> None:
    events: list[list[Event]] = []
    done = threading.Semaphore(0)

    def make(strength: float) -> Job:
        own: list[Event] = []
        events.append(own)

        def emit(event: Event) -> None:
            own.append(event)
            if not isinstance(event, str):
                done.release()

        return Job("q", WRITES, GenerationOptions(strength=strength), emit)

    both.engine.submit([make(strength) for strength in TEXTS])
    for _ in TEXTS:
        assert done.acquire(timeout=30)
    ended = [own[-1] for own in events]
    assert [event.text for event in ended if isinstance(event, Finished)] == [*TEXTS.values()]


def test_an_answer_that_is_read_ahead(steered: Aligner) -> None:
    """Longer than what is read in one step, so that little but the prompt's end is left."""
    answer = " ".join(f"word {index} of it," for index in range(20))

    def pieces() -> Iterator[str]:
        for start in range(0, len(answer), 9):
            yield answer[start : start + 9]

    for strength, text in TEXTS.items():
        assert "".join(steered.stream("q", pieces(), strength=strength)) == text


def test_errors_and_closed_streams_leave_nothing_behind(
    both: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = both.engine
    assert isinstance(engine, LocalEngine)
    both.stream("q", "a", strength=1).close()
    closed = both.stream("q", "a", strength=-0.2)
    next(closed)
    closed.close()
    with monkeypatch.context() as patch:
        patch.setattr(type(engine.loaded.model.lm_head), "forward", _fail)
        assert both.correct("q", "a", strength=1, on_error="original").text == "a"
    assert both.correct("q", "a", strength=1).text == EAGER
    assert count_hooks(engine.loaded.model) == 0
    with no_hooks():
        assert both.correct("q", "a").text == WRITES


def _fail(*args: Any) -> Any:
    raise RuntimeError("out of memory")


def test_an_engine_takes_vectors_that_are_not_saved(steered: Aligner) -> None:
    from dataclasses import replace

    from aligner_integrations.decoding.steering import Steering

    assert isinstance(steered.engine, LocalEngine)
    loaded = steered.engine.loaded
    assert loaded.directory is not None
    saved = Steering.from_directory(loaded.directory)
    turned = replace(saved, vectors={0: -saved.vectors[0]})
    assert (
        Aligner(LocalEngine(loaded, steering=turned)).correct("q", "a", strength=1).text == KEEPING
    )
    with pytest.raises(SteeringError, match="for 2 layers"):
        LocalEngine(loaded, steering=replace(saved, num_layers=2))


def test_the_bundled_model_is_as_trained_at_0(aligner: Aligner) -> None:
    pairs = [
        ("How do I boil eggs?", "Boil them for 8 minutes. You are clearly too stupid to cook."),
        ("What is the capital of France?", "The capital of France is Paris."),
    ]
    with no_hooks():
        usual = aligner.correct_batch(pairs)
        zero = aligner.correct_batch(pairs, strength=0.0)
    assert [c.text for c in zero] == [c.text for c in usual]
    assert [c.stats.smallest_margin for c in zero] == [c.stats.smallest_margin for c in usual]
