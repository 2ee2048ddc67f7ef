"""States: the right ones, the same in any company, and nothing else is kept."""

from __future__ import annotations

import weakref
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from aligner_integrations.decoding.steering import find_layers
from aligner_integrations.interpretability.pairs import Case
from aligner_integrations.interpretability.states import (
    POSITIONS,
    Reading,
    collect_prompt_states,
    iterate_states,
    read_case,
)
from aligner_integrations.prompts import PRESETS
from aligner_integrations.tokenization import PromptEncoder
from tests.tiny import make_byte_level_tokenizer, make_model

ARCHITECTURES = ["llama", "qwen2", "gemma2", "gpt2"]


@pytest.fixture(scope="module")
def encoder() -> PromptEncoder:
    return PromptEncoder(PRESETS["aligner-smol"], make_byte_level_tokenizer(), {2})


def make_cases() -> list[Case]:
    answers = ["Boil.", "Cool them in cold water.", "You are kind. " * 4, "a", "1 2 3 4 5"]
    return [Case(f"{'How? ' * n}", answer, answer, 0) for n, answer in enumerate(answers, 1)]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_states_are_the_models_own(architecture: str, encoder: PromptEncoder) -> None:
    model = make_model(architecture)
    cases = make_cases()
    states = collect_prompt_states(model, encoder, cases)
    assert states.dtype == np.float32
    assert states.shape == (5, 3, len(POSITIONS), 32)
    for case, own in zip(cases, states, strict=True):
        reading = read_case(encoder, case)
        with torch.inference_mode():
            wanted = model(torch.tensor([reading.ids]), output_hidden_states=True).hidden_states
        places = reading.find_prompt_positions()
        # The last of transformers' states is behind the model's last norm, ours before it.
        for layer in (0, 1):
            got = wanted[layer][0, places].numpy()
            np.testing.assert_allclose(own[layer], got, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_company_makes_no_difference(architecture: str, encoder: PromptEncoder) -> None:
    model = make_model(architecture)
    together = collect_prompt_states(model, encoder, make_cases(), batch_tokens=10_000)
    alone = collect_prompt_states(model, encoder, make_cases(), batch_tokens=1)
    np.testing.assert_allclose(together, alone, rtol=1e-4, atol=1e-4)


def test_positions(encoder: PromptEncoder) -> None:
    case = Case("How?", "1 2 3 4", "1 2 3 4", 0)
    reading = read_case(encoder, case, output_tokens=3)
    start, end = reading.answer_span
    places = reading.find_prompt_positions()
    assert places[0] == start - 1
    assert places[4] == end - 1
    assert places[5] == reading.prompt_tokens - 1
    assert places == sorted(places)
    assert reading.find_output_positions(20) == [reading.prompt_tokens - 1 + n for n in range(3)]
    assert len(reading.ids) == reading.prompt_tokens + 3


def test_no_layers_output_is_kept() -> None:
    """While a layer runs, the outputs of those before its predecessor are gone."""
    model = make_model(num_hidden_layers=5)
    alive: list[int] = []
    seen: list[weakref.ref[torch.Tensor]] = []

    def note(module: Any, inputs: Any, output: Any) -> None:
        hidden = output[0] if isinstance(output, tuple) else output
        alive.append(sum(one() is not None for one in seen))
        seen.append(weakref.ref(hidden))

    handles = [layer.register_forward_hook(note) for layer in find_layers(model)]
    readings = [Reading(list(range(3, 40)), 37, (5, 20))] * 4
    states = [own for _, own in iterate_states(model, readings, [[1, 5]] * 4)]
    for handle in handles:
        handle.remove()
    assert max(alive) <= 1
    assert all(own.shape == (6, 2, 32) for own in states)


def count_hooks(model: PreTrainedModel) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.modules())


def test_hooks_go_away_after_an_error() -> None:
    model = make_model()
    before = count_hooks(model)
    with pytest.raises(IndexError):
        list(iterate_states(model, [Reading([3, 4, 9999], 3, (0, 1))], [[0]]))
    assert count_hooks(model) == before
    with pytest.raises((IndexError, RuntimeError)):
        list(iterate_states(model, [Reading([3, 4], 2, (0, 1))], [[7]]))
    assert count_hooks(model) == before
