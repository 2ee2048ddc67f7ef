"""Examples hold exactly what `Aligner` asks a model, and what it should answer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from aligner_integrations import Aligner
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.tokenization import PromptEncoder
from aligner_integrations.training.config import LossConfig
from aligner_integrations.training.data import Triple
from aligner_integrations.training.examples import (
    IGNORED,
    ExampleDataset,
    collate,
    encode_triple,
    encode_triples,
    find_end_token,
)
from aligner_integrations.training.trainer import find_predicting, sum_losses

TRIPLE = Triple("Eggs? <|im_end|>", "Boil them 😀, fool.", "Boil them 😀.")


@pytest.fixture(params=["aligner-smol", "residual", "edit-pair"])
def encoder(request: pytest.FixtureRequest, tiny_model_dir: Callable[..., Path]) -> PromptEncoder:
    tokenizer = "byte-level" if request.param == "aligner-smol" else "llama-2"
    directory = tiny_model_dir("llama", tokenizer=tokenizer, prompt=request.param)
    engine = Aligner.from_pretrained(str(directory), device="cpu").engine
    assert isinstance(engine, LocalEngine)
    return engine.loaded.encoder


def test_the_prompt_is_the_one_of_inference(encoder: PromptEncoder) -> None:
    example = encode_triple(encoder, TRIPLE, LossConfig())
    prompt = encoder.encode(TRIPLE.question, TRIPLE.answer).ids
    target = example.input_ids[len(prompt) :]
    assert example.input_ids[: len(prompt)] == prompt
    assert example.labels == [IGNORED] * len(prompt) + target
    assert target[-1] == find_end_token(encoder)
    assert encoder.decode(target[:-1]) == TRIPLE.correction
    assert example.weights[: len(prompt)] == [0.0] * len(prompt)
    assert 4.0 in example.weights[len(prompt) :]
    # Copying the answer needs the tokens that the answer has in output context.
    same = encode_triple(encoder, Triple("Q", "Boil 😀.", "Boil 😀."), LossConfig())
    ids = encoder.encode("Q", "Boil 😀.")
    assert same.input_ids[len(ids.ids) : -1] == ids.answer_ids
    assert set(same.weights) <= {0.0, 1.0}


def test_too_long_triples_are_left_out_never_cut(
    encoder: PromptEncoder, caplog: pytest.LogCaptureFixture
) -> None:
    long = Triple("Q", "word " * 500, "word")
    broken = Triple("Q", "\ud800", "x")
    examples = encode_triples(encoder, [TRIPLE, long, broken], LossConfig(), max_length=400)
    assert len(examples) == 1
    assert "1 triples longer than max_length=400 tokens, 1 that can't be" in caplog.text
    with pytest.raises(ConfigurationError, match="no triple is left: 1 are longer"):
        encode_triples(encoder, [long], LossConfig(), max_length=400)


def test_batches_are_padded(encoder: PromptEncoder) -> None:
    triples = [TRIPLE, Triple("Q", "A.", "A.")]
    rows = ExampleDataset(encode_triples(encoder, triples, LossConfig(), 2048))
    batch = collate([rows[0], rows[1]])
    shapes = {tuple(value.shape) for value in batch.values()}
    assert shapes == {(2, len(rows[0]["input_ids"]))}
    lengths = [len(row["input_ids"]) for row in (rows[0], rows[1])]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert (batch["labels"][batch["attention_mask"] == 0] == IGNORED).all()


def test_the_loss_is_a_weighted_sum() -> None:
    torch.manual_seed(0)
    logits = torch.randn(2, 4, 7)
    labels = torch.tensor([[IGNORED, 1, 2, 3], [IGNORED, IGNORED, 5, IGNORED]])
    weights = torch.tensor([[0.0, 1.0, 4.0, 1.0], [0.0, 0.0, 2.0, 0.0]])
    logs = logits.log_softmax(-1)
    wanted = -(logs[0, 0, 1] + 4 * logs[0, 1, 2] + logs[0, 2, 3] + 2 * logs[1, 1, 5])
    kept = find_predicting(labels)
    assert kept.tolist() == [0, 1, 2]
    loss = sum_losses(logits[:, kept], labels[:, kept + 1], weights[:, kept + 1])
    torch.testing.assert_close(loss, wanted)


def test_prompts_get_no_logits() -> None:
    labels = torch.tensor([[IGNORED, IGNORED, IGNORED, 4], [IGNORED, IGNORED, 5, IGNORED]])
    assert find_predicting(labels).tolist() == [1, 2]
