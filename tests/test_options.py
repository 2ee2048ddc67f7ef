from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from aligner_integrations import GenerationOptions
from aligner_integrations.errors import AlignerError, ConfigurationError
from aligner_integrations.options import check_policy


def test_greedy_is_the_default() -> None:
    assert GenerationOptions() == GenerationOptions(
        max_new_tokens="auto",
        temperature=0.0,
        top_p=1.0,
        seed=None,
        strength=0.0,
        on_overflow="raise",
    )


@pytest.mark.parametrize(
    "option",
    [
        {"max_new_tokens": 0},
        {"max_new_tokens": -1},
        {"max_new_tokens": 1.5},
        {"max_new_tokens": "many"},
        {"max_new_tokens": None},
        {"max_new_tokens": True},
        {"temperature": -0.1},
        {"temperature": float("inf")},
        {"temperature": float("nan")},
        {"temperature": "hot"},
        {"top_p": 0},
        {"top_p": 1.01},
        {"top_p": float("nan")},
        {"top_p": None},
        {"seed": "x"},
        {"seed": -1},
        {"seed": 1.5},
        {"strength": -1.1},
        {"strength": 1.1},
        {"strength": "high"},
        {"on_overflow": "ignore"},
        {"on_overflow": None},
        {"exact": 1},
        {"pass_through": "json"},
        {"pass_through": None},
        {"max_latency": 0},
        {"max_latency": -1},
        {"max_latency": True},
        {"max_latency": "1"},
        {"max_latency": float("nan")},
        {"stream_by": "line"},
        {"stream_by": None},
        {"protect": "urls"},
    ],
)
def test_values_that_cannot_work_are_named(option: dict[str, Any]) -> None:
    ((name, value),) = option.items()
    with pytest.raises(ConfigurationError) as caught:
        GenerationOptions(**option)
    assert f"{name}={value!r}" in str(caught.value)
    assert isinstance(caught.value, (AlignerError, ValueError))


@pytest.mark.parametrize(
    "option",
    [
        {"max_new_tokens": 1},
        {"temperature": 0},
        {"temperature": 100.0},
        {"top_p": 1},
        {"top_p": 1e-6},
        {"seed": 0},
        {"strength": -1},
        {"on_overflow": "refuse"},
        {"pass_through": []},
        {"pass_through": ["code"]},
        {"max_latency": 1e-9},
        {"max_latency": float("inf")},
        {"stream_by": "sentence"},
        {"protect": ["urls", "[a-z]"]},
    ],
)
def test_values_at_the_border_work(option: dict[str, Any]) -> None:
    assert GenerationOptions(**option).to_dict() == {**GenerationOptions().to_dict(), **option}


def test_options_are_frozen() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        GenerationOptions().seed = 3  # type: ignore[misc]


def test_options_survive_json() -> None:
    options = GenerationOptions(
        max_new_tokens=7,
        temperature=0.5,
        seed=1,
        on_overflow="original",
        protect=("urls", "a"),
        pass_through=("json",),
        max_latency=2.5,
        stream_by="word",
    )
    assert GenerationOptions.coerce(json.loads(json.dumps(options.to_dict()))) == options


@pytest.mark.parametrize("kinds", [["yaml"], ["json", "yaml"], [["json"]], [5]])
def test_kinds_that_are_none(kinds: Any) -> None:
    with pytest.raises(ConfigurationError, match="must be a list of 'json', 'code'"):
        GenerationOptions(pass_through=kinds)


def test_an_empty_list_of_a_call_wins_too() -> None:
    options = GenerationOptions(protect=("urls",), max_latency=3)
    assert options.override(protect=[]).protect == ()
    assert options.override(protect=None, max_latency=None) is options


def test_options_are_coerced() -> None:
    options = GenerationOptions(seed=1)
    assert GenerationOptions.coerce(options) is options
    assert GenerationOptions.coerce(None) == GenerationOptions()
    assert GenerationOptions.coerce({"seed": 1}) == options
    with pytest.raises(ConfigurationError, match="unknown option 'beams'; known are max_new_tok"):
        GenerationOptions.coerce({"beams": 3})
    with pytest.raises(ConfigurationError, match="options of type int are neither"):
        GenerationOptions.coerce(3)  # type: ignore[arg-type]


def test_overflow_policy_of_a_call_wins() -> None:
    options = GenerationOptions(on_overflow="refuse")
    assert options.override(on_overflow=None) is options
    assert options.override(on_overflow="original").on_overflow == "original"
    with pytest.raises(ConfigurationError, match="on_overflow='never' is not a policy"):
        options.override(on_overflow="never")  # type: ignore[arg-type]


@pytest.mark.parametrize("policy", ["raise", "original", "refuse"])
def test_policies(policy: str) -> None:
    check_policy("on_error", policy)
    with pytest.raises(ConfigurationError, match=r"on_error='.*' is not a policy; use one of 'rai"):
        check_policy("on_error", policy.upper())
