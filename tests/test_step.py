"""`CorrectionStep`: an adapter's arguments, checked early and handed on whole."""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from aligner_integrations import Aligner, CorrectWhen, GenerationOptions, PromptFormat, Turn
from aligner_integrations.errors import AlignerError, ConfigurationError, InputTypeError
from aligner_integrations.step import CorrectionStep


@pytest.mark.parametrize(
    ("arguments", "shown"),
    [
        ({"aligner": "aligner-smol"}, "aligner must be an Aligner, not 'aligner-smol'; a model's"),
        ({"model": 5}, "model=5 must be a str"),
        ({"load_options": "cpu"}, "load_options='cpu' must be a dict"),
        ({"load_options": {"devise": "cpu"}}, "load_options has 'devise', which is none of prompt"),
        ({"load_options": {"model": "x"}}, "load_options has 'model', .* goes into model="),
        ({"load_options": {"options": {"x": 1}}}, "unknown option 'x'; known are"),
        ({"on_error": "ignore"}, "on_error='ignore' is not a policy; use one of"),
        ({"on_error": None}, "on_error=None is not a policy"),
        ({"on_overflow": "ignore"}, "on_overflow='ignore' is not a policy"),
        ({"options": {"beams": 1}}, "unknown option 'beams'; known are"),
        ({"options": 5}, "options of type int are neither"),
        ({"correct_when": {"longer": 1}}, "no condition 'longer'; it has"),
        ({"correct_when": 5}, "correct_when=5 must be a function"),
        ({"protect": "urls"}, "protect='urls' must be a list, such as"),
        ({"protect": ["("]}, "is no regular expression: .*; write a backslash"),
        ({"strength": 1.5}, "strength=1.5 must be between -1"),
        ({"strength": "high"}, "strength='high' must be between -1"),
        ({"max_latency": 0}, "max_latency=0 must be a number of seconds above 0, or None"),
        ({"max_latency": "1"}, "max_latency='1' must be"),
        ({"max_latency": float("nan")}, "max_latency=nan must be"),
    ],
)
def test_arguments_that_cannot_work(arguments: dict[str, Any], shown: str) -> None:
    with pytest.raises(AlignerError, match=shown) as caught:
        CorrectionStep(**arguments)
    wanted = InputTypeError if "aligner" in arguments else ConfigurationError
    assert type(caught.value) is wanted


@pytest.mark.parametrize("other", [{"model": "x"}, {"load_options": {"device": "cpu"}}])
def test_two_aligners(writer: Aligner, other: dict[str, Any]) -> None:
    with pytest.raises(ConfigurationError, match="are two aligners; pass one of them"):
        CorrectionStep(aligner=writer, **other)


STEPS: list[dict[str, Any]] = [
    {},
    {"model": "x"},
    {"load_options": {"device": "cpu", "options": {"seed": 1}}},
    {"load_options": {"prompt": PromptFormat("p", "{question}{answer}")}},
    {"on_error": "refuse", "on_overflow": "original", "max_latency": 1.5},
    {"strength": -0.5},
    {"options": {"seed": 1, "temperature": 1.0, "protect": ["urls"]}},
    {"options": GenerationOptions(stream_by="word")},
    {"correct_when": {"longer_than": 3, "tags": ["a"]}},
    {"correct_when": CorrectWhen(matches="a")},
    {"protect": ["urls", r"\d+"]},
    {"protect": []},
]


@pytest.mark.parametrize("arguments", STEPS)
def test_a_step_can_be_written_down(arguments: dict[str, Any]) -> None:
    step = CorrectionStep(**arguments)
    read = CorrectionStep(**json.loads(json.dumps(step.to_dict())))
    assert read == step
    assert read.to_dict() == step.to_dict()


def test_a_loaded_aligner_is_written_down_by_its_source(writer: Aligner) -> None:
    step = CorrectionStep(aligner=writer, on_error="original")
    read = CorrectionStep(**json.loads(json.dumps(step.to_dict())))
    assert read.aligner is None
    assert (read.model, read.on_error) == (writer.source and writer.source["model"], "original")
    assert read.to_dict() == step.to_dict()


def test_what_cannot_be_written_down(writer: Aligner) -> None:
    with pytest.raises(ConfigurationError, match="was built from a loaded model and can't be"):
        CorrectionStep(aligner=Aligner(writer.engine)).to_dict()
    with pytest.raises(ConfigurationError, match="is a function and can't be written down"):
        CorrectionStep(correct_when=lambda question, answer: True).to_dict()


def test_steps_are_frozen_and_their_own() -> None:
    given = {"device": "cpu"}
    step = CorrectionStep(load_options=given)
    given["device"] = "cuda"
    assert step.load_options == {"device": "cpu"}
    with pytest.raises(dataclasses.FrozenInstanceError):
        step.model = "x"  # type: ignore[misc]


def test_a_named_aligner_is_loaded_once(
    tiny_model_dir: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = str(tiny_model_dir(prompt="aligner-smol", seed=77))
    loads = []
    from_pretrained = Aligner.from_pretrained.__func__  # type: ignore[attr-defined]

    def counted(cls: type[Aligner], *args: Any, **kwargs: Any) -> Any:
        loads.append(kwargs)
        return from_pretrained(cls, *args, **kwargs)

    counted.__signature__ = inspect.signature(from_pretrained)  # type: ignore[attr-defined]
    monkeypatch.setattr(Aligner, "from_pretrained", classmethod(counted))
    step = CorrectionStep(model=directory, load_options={"device": "cpu"})
    assert loads == []
    aligner = step.load()
    assert asyncio.run(step.aload()) is aligner
    assert CorrectionStep(model=directory, load_options={"device": "cpu"}).load() is aligner
    assert len(loads) == 1


def test_methods_forward_their_arguments(writer: Aligner, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = []

    def record(name: str, is_async: bool) -> Any:
        def call(self: Aligner, *args: Any, **kwargs: Any) -> str:
            calls.append((name, args, kwargs))
            return name

        async def acall(self: Aligner, *args: Any, **kwargs: Any) -> str:
            return call(self, *args, **kwargs)

        return acall if is_async else call

    coroutines = ("acorrect", "acorrect_batch")
    plain = ("correct", "correct_batch", "stream", "astream", "read_ahead", "render")
    for name in (*coroutines, *plain):
        monkeypatch.setattr(Aligner, name, record(name, name in coroutines))
    own: dict[str, Any] = {
        "options": GenerationOptions(seed=3),
        "on_error": "refuse",
        "on_overflow": "original",
        "correct_when": CorrectWhen(3),
        "protect": ("urls",),
        "max_latency": 2.0,
        "strength": 0.5,
    }
    step = CorrectionStep(aligner=writer, **own)
    ahead: Any = object()
    turns, pairs = [Turn("user", "x")], [("q", "a")]
    step.correct("q", "a", ["t"])
    asyncio.run(step.acorrect("q", "a", ["t"]))
    step.stream("q", "a", ["t"], ahead)
    asyncio.run(step.astream("q", "a", ["t"], ahead))
    step.correct_batch(pairs, [["t"]], return_exceptions=True)
    asyncio.run(step.acorrect_batch(pairs, [["t"]], return_exceptions=True))
    step.read_ahead("q")
    step.render(turns)
    tagged = {**own, "tags": ["t"]}
    many = {**own, "tags": [["t"]], "return_exceptions": True}
    assert calls == [
        ("correct", ("q", "a"), tagged),
        ("acorrect", ("q", "a"), tagged),
        ("stream", ("q", "a"), {**tagged, "read_ahead": ahead}),
        ("astream", ("q", "a"), {**tagged, "read_ahead": ahead}),
        ("correct_batch", (pairs,), many),
        ("acorrect_batch", (pairs,), many),
        ("read_ahead", ("q",), {}),
        ("render", (turns,), {}),
    ]
