"""What share of a layer's attention goes to the answer while the correction is written."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from transformers import DynamicCache

from aligner_integrations.decoding.kv import cache_keyword
from aligner_integrations.interpretability.pairs import Case
from aligner_integrations.interpretability.states import Reading, read_case
from aligner_integrations.tokenization import PromptEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True)
class AttentionShare:
    """Means over heads and cases, in shares of 1.

    Attributes:
        decision: For each layer what the last prompt token gives to the answer.
        writing: For each layer what the tokens of the output give to the answer.
        expected: What the answer would get if attention were spread evenly over the prompt.
        cases: How many cases.
    """

    decision: list[float]
    writing: list[float]
    expected: float
    cases: int

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {
            "decision": [round(value, 4) for value in self.decision],
            "writing": [round(value, 4) for value in self.writing],
            "expected": round(self.expected, 4),
            "cases": self.cases,
        }


def measure_attention(
    model: PreTrainedModel,
    encoder: PromptEncoder,
    cases: Sequence[Case],
    *,
    output_tokens: int = 20,
    progress: bool = False,
) -> AttentionShare | None:
    """Read attention weights, one case at a time.

    The prompt is read first, as fast as ever. Weights, which only the slow "eager" attention has,
    are asked for in a second pass over the output's tokens alone, so that memory for them is
    layers x heads x output tokens x prompt tokens and never the square of the prompt.

    Returns:
        None for a model that has no such weights to show.
    """
    from tqdm import tqdm

    decision, writing, expected = [], [], []
    with _eager(model):
        for case in tqdm(cases, desc="attention", unit="answer", disable=not progress, leave=False):
            reading = read_case(encoder, case, output_tokens)
            shares = _attend(model, reading)
            if shares is None:
                return None
            decision.append(shares[:, 0])
            writing.append(shares[:, 1:].mean(axis=1) if shares.shape[1] > 1 else shares[:, 0])
            start, end = reading.answer_span
            expected.append((end - start) / reading.prompt_tokens)
    if not decision:
        return None
    return AttentionShare(
        np.mean(decision, axis=0).tolist(),
        np.mean(writing, axis=0).tolist(),
        float(np.mean(expected)),
        len(decision),
    )


@torch.inference_mode()
def _attend(model: PreTrainedModel, reading: Reading) -> np.ndarray[Any, Any] | None:
    """Shares that go to the answer, shape (layers, 1 + output tokens but the last)."""
    device = model.get_input_embeddings().weight.device
    options: dict[str, Any] = {"use_cache": True}
    options[cache_keyword(model)] = DynamicCache(config=model.config)
    first = reading.prompt_tokens - 1
    ids = torch.tensor([reading.ids], device=device)
    if first:
        model(input_ids=ids[:, :first], **options)
    behind = max(first + 1, len(reading.ids) - 1)
    found = model(input_ids=ids[:, first:behind], output_attentions=True, **options)
    weights = found.attentions
    if not weights or weights[0] is None:
        return None
    start, end = reading.answer_span
    shares = []
    for layer in weights:
        mean = layer[0].float().mean(dim=0)  # over heads; shape (tokens, positions)
        # A sliding window leaves out the first positions.
        gone = behind - mean.shape[1]
        shares.append(mean[:, max(0, start - gone) : max(0, end - gone)].sum(dim=1).cpu().numpy())
    return np.stack(shares)


@contextmanager
def _eager(model: PreTrainedModel) -> Iterator[None]:
    """The attention that has weights to show, for as long as it is needed."""
    before = model.config._attn_implementation
    model.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.set_attn_implementation(before)
