"""Attention shares are those of the model's own full pass."""

from __future__ import annotations

import pytest
import torch

from aligner_integrations.interpretability.attention import measure_attention
from aligner_integrations.interpretability.pairs import Case
from aligner_integrations.interpretability.states import read_case
from aligner_integrations.prompts import PRESETS
from aligner_integrations.tokenization import PromptEncoder
from tests.tiny import make_byte_level_tokenizer, make_model


@pytest.mark.parametrize("architecture", ["llama", "qwen2", "gpt2"])
def test_shares(architecture: str) -> None:
    encoder = PromptEncoder(PRESETS["aligner-smol"], make_byte_level_tokenizer(), {2})
    model = make_model(architecture)
    before = model.config._attn_implementation
    case = Case("How do I boil eggs?", "Boil them for 8 minutes.", "Boil them.", 0)
    found = measure_attention(model, encoder, [case], output_tokens=5)
    assert found is not None
    assert model.config._attn_implementation == before
    reading = read_case(encoder, case, 5)
    model.set_attn_implementation("eager")
    with torch.inference_mode():
        weights = model(torch.tensor([reading.ids]), output_attentions=True).attentions
    (start, end), first = reading.answer_span, reading.prompt_tokens - 1
    for layer, own in enumerate(weights):
        shares = own[0].mean(dim=0)[:, start:end].sum(dim=1)
        assert found.decision[layer] == pytest.approx(float(shares[first]), abs=1e-5)
        writing = float(shares[first + 1 : -1].mean())
        assert found.writing[layer] == pytest.approx(writing, abs=1e-5)
    assert found.expected == pytest.approx((end - start) / reading.prompt_tokens)


def test_nothing_to_read() -> None:
    encoder = PromptEncoder(PRESETS["aligner-smol"], make_byte_level_tokenizer(), {2})
    assert measure_attention(make_model(), encoder, []) is None
