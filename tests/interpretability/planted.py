"""A tiny model that is known inside out: it corrects where its questions hold a mark often enough.

Layer 0 counts the marks in the prompt (uniform attention) and writes the count along one direction
of the residual stream; the other layers do nothing. At the last prompt token the model writes
"Cool water." unless that count is high, and "Boil it." if it is. What other tokens the prompt holds
makes no difference but for a nuisance, a second count along a second direction.
"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path

import torch
from transformers import PreTrainedModel

from aligner_integrations.training.data.triples import Triple
from tests.tiny import make_byte_level_tokenizer, make_model

MARK, NUISANCE = "~", "^"
COPIED, CORRECTED = "Cool water.", "Boil it."
LAYERS = 3
_SIZE = 448
_FREE = 430  # dimensions from here on belong to no token


def plant_direction() -> torch.Tensor:
    """The direction of the count, of length 1."""
    direction = torch.zeros(_SIZE)
    direction[_FREE : _FREE + 9] = torch.randn(9, generator=torch.Generator().manual_seed(5))
    return direction / direction.norm()


def make_planted() -> PreTrainedModel:
    """The model."""
    tokenizer = make_byte_level_tokenizer()

    def encode(text: str) -> list[int]:
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False)
        return ids

    (mark,), (nuisance,), (newline,) = encode(MARK), encode(NUISANCE), encode("\n")
    model = make_model(num_hidden_layers=LAYERS, hidden_size=_SIZE, head_dim=_SIZE // 4)
    other = torch.zeros(_SIZE)
    other[_FREE + 12] = 1
    with torch.no_grad():
        for parameter in model.model.layers.parameters():
            if parameter.ndim == 2:
                parameter.zero_()
        attention = model.model.layers[0].self_attn
        attention.v_proj.weight[0, mark] = 1
        attention.v_proj.weight[_SIZE // 4, nuisance] = 1
        attention.o_proj.weight[:, 0] = plant_direction()
        attention.o_proj.weight[:, _SIZE // 2] = 0.3 * other
        model.model.embed_tokens.weight.copy_(torch.eye(_SIZE))
        head = model.lm_head.weight
        head.zero_()
        # The beginning is open to the count; what follows a token is certain.
        copied, corrected = encode(COPIED), encode(CORRECTED)
        head[copied[0], newline] = 1
        head[corrected[0]] = plant_direction()
        for chain in (copied, corrected):
            for token, following in itertools.pairwise([*chain, tokenizer.eos_token_id]):
                head[following, token] = 20
    return model


def save_planted(directory: Path) -> Path:
    """The model as `aligner scan` takes it."""
    make_planted().save_pretrained(directory)
    make_byte_level_tokenizer().save_pretrained(directory)
    (directory / "aligner_config.json").write_text(json.dumps({"prompt": "aligner-smol"}))
    return directory


def make_triples(count: int, seed: int = 0) -> list[Triple]:
    """As many questions with many marks, whose answers it corrects, as with few."""
    draw = random.Random(seed)
    triples = []
    for index in range(count):
        for marks, correction in ((draw.randint(7, 12), CORRECTED), (draw.randint(0, 4), COPIED)):
            noise = NUISANCE * draw.randint(0, 6)
            rest = "." * (16 - marks)  # prompts are of one length, whatever they hold
            question = f"How {index} {MARK * marks}{rest}{noise}{'.' * (6 - len(noise))} {seed}?"
            triples.append(Triple(question, COPIED, correction))
    return triples
