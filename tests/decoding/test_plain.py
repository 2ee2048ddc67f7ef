"""Plain decoding writes the tokens that transformers' own `generate` writes."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from aligner_integrations.decoding import plain
from aligner_integrations.decoding.rows import Row
from aligner_integrations.decoding.sampling import Sampler
from tests.tiny import make_model

ARCHITECTURES = ["llama", "qwen2", "gemma2", "gemma3", "gpt2"]
PROMPTS = [list(range(10, 10 + n)) for n in (7, 1, 23, 12)]
NEVER = frozenset[int]()


@functools.cache
def load(architecture: str) -> PreTrainedModel:
    sliding = {"sliding_window": 8} if architecture.startswith("gemma") else {}
    return make_model(architecture, **sliding)


def make_row(prompt: list[int], *, stop: frozenset[int] = NEVER, limit: int = 20, **kw: Any) -> Row:
    return Row(prompt, [], stop, limit, kw.pop("sampler", Sampler()), **kw)


def run(model: PreTrainedModel, rows: list[Row]) -> list[list[int]]:
    """Run to the end; also checks that what is yielded adds up to each row's output."""
    yielded: dict[int, list[int]] = {id(row): [] for row in rows}
    for moved in plain.decode(model, rows):
        for row, ids in moved:
            yielded[id(row)] += ids
    assert [yielded[id(row)] for row in rows] == [row.output for row in rows]
    return [row.output for row in rows]


def generate(model: PreTrainedModel, prompt: list[int], limit: int = 20) -> list[int]:
    ids = torch.tensor([prompt])
    out = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=limit,
        do_sample=False,
        eos_token_id=None,
        pad_token_id=2,
    )
    return out[0, len(prompt) :].tolist()  # type: ignore[no-any-return]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_one_row_is_what_generate_writes(architecture: str) -> None:
    model = load(architecture)
    for prompt in PROMPTS:
        (output,) = run(model, [make_row(prompt)])
        assert output == generate(model, prompt)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_batch_is_what_each_row_writes_alone(architecture: str) -> None:
    model = load(architecture)
    outputs = run(model, [make_row(p, limit=5 + 6 * i) for i, p in enumerate(PROMPTS)])
    for index, (prompt, output) in enumerate(zip(PROMPTS, outputs, strict=True)):
        assert output == generate(model, prompt, 5 + 6 * index)


def test_outputs_vary() -> None:
    """The comparisons above would mean little if a model wrote one token for ever."""
    for architecture in ARCHITECTURES:
        assert len(set(generate(load(architecture), PROMPTS[0]))) > 5


def test_stop_token_ends_a_row_and_is_no_output() -> None:
    model = load("llama")
    expected = generate(model, PROMPTS[0])
    stop = expected[7]
    row, other = make_row(PROMPTS[0], stop=frozenset({stop, 5})), make_row(PROMPTS[1])
    run(model, [row, other])
    assert row.output == expected[: expected.index(stop)]
    assert row.stop_reason == "stop"
    assert row.forward_passes == len(row.output) + 1
    assert other.output == generate(model, PROMPTS[1])


@pytest.mark.parametrize("limit", [1, 2, 9])
def test_token_limit(limit: int) -> None:
    row = make_row(PROMPTS[0], limit=limit)
    run(load("llama"), [row])
    assert len(row.output) == limit
    assert row.stop_reason == "length"
    assert row.forward_passes == limit


def test_stop_token_at_the_limit_is_a_stop() -> None:
    expected = generate(load("llama"), PROMPTS[0])
    first = expected.index(expected[4])
    row = make_row(PROMPTS[0], stop=frozenset({expected[4]}), limit=first + 1)
    run(load("llama"), [row])
    assert row.stop_reason == "stop"


def test_same_seed_same_tokens_alone_or_in_a_batch() -> None:
    model = load("llama")

    def sample(seed: int) -> Row:
        return make_row(PROMPTS[2], sampler=Sampler(1.0, 0.9, seed))

    (alone,) = run(model, [sample(1)])
    assert run(model, [make_row(PROMPTS[0]), sample(1), sample(2)])[1] == alone
    assert run(model, [sample(3)]) != [alone]


def test_cancelled_row_is_dropped_within_a_pass() -> None:
    model = load("llama")
    flag: list[bool] = []
    row = make_row(PROMPTS[0], limit=1000, is_cancelled=lambda: bool(flag))
    other = make_row(PROMPTS[1])
    for passes, moved in enumerate(plain.decode(model, [row, other]), 1):
        if passes == 3:
            flag.append(True)
        assert (row in [r for r, _ in moved]) == (passes <= 3)
    assert row.stop_reason == "cancelled"
    assert row.forward_passes == 3
    assert other.output == generate(model, PROMPTS[1])


def test_row_cancelled_before_it_starts_costs_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("llama")
    calls = count_calls(model, monkeypatch)
    row = make_row(PROMPTS[0], is_cancelled=lambda: True)
    assert list(plain.decode(model, [row])) == []
    assert list(plain.decode(model, [])) == []
    assert row.stop_reason == "cancelled"
    assert calls == []


def test_finished_rows_leave_the_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("llama")
    calls = count_calls(model, monkeypatch)
    run(model, [make_row(p, limit=2 + i) for i, p in enumerate(PROMPTS)])
    assert [len(kw["input_ids"]) for kw in calls] == [4, 4, 3, 2, 1]
    assert [kw["input_ids"].shape[1] for kw in calls] == [23, 1, 1, 1, 1]


def test_closing_early_stops_the_model(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("llama")
    calls = count_calls(model, monkeypatch)
    steps = plain.decode(model, [make_row(PROMPTS[0], limit=1000)])
    next(steps)
    steps.close()
    assert len(calls) == 1


def test_no_gradients_are_kept() -> None:
    model = load("llama")
    run(model, [make_row(PROMPTS[0])])
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not torch.is_inference_mode_enabled()


def count_calls(model: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    calls: list[dict[str, Any]] = []
    forward: Callable[..., Any] = model.forward

    @functools.wraps(forward)
    def counted(*args: Any, **kwargs: Any) -> Any:
        calls.append(kwargs)
        return forward(*args, **kwargs)

    monkeypatch.setattr(model, "forward", counted)
    return calls
