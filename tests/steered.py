"""A tiny model with a planted direction, which decides what it writes."""

from __future__ import annotations

from pathlib import Path

import torch

from aligner_integrations.decoding.steering import Steering
from tests.tiny import make_byte_level_tokenizer, make_writer

WRITES = "Cool water."
"""What it writes as trained, and with a strength whose coefficient is below 1."""

EAGER, KEEPING = "Y", "Z"
"""What it writes with more, and with less than -1."""

_SWITCH = 447  # a number of the hidden states that no token of the texts has


def save_steered(directory: Path, *, steering: bool = True) -> Path:
    """Save a model that writes WRITES, EAGER or KEEPING, whatever it is asked.

    A coefficient is twice the strength, so that EAGER comes from above strength 0.5 on.
    """
    tokenizer = make_byte_level_tokenizer()
    model = make_writer(tokenizer, WRITES)
    eager, keeping = (tokenizer.convert_tokens_to_ids(token) for token in (EAGER, KEEPING))
    with torch.no_grad():
        for token, sign in ((eager, 1), (keeping, -1)):
            model.lm_head.weight[token, _SWITCH] = sign
            model.lm_head.weight[tokenizer.eos_token_id, token] = 5
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "aligner_config.json").write_text('{"prompt": "aligner-smol"}')
    if steering:
        vector = torch.zeros(448)
        vector[_SWITCH] = 1
        points = [(-1.0, -2.0), (0.0, 0.0), (1.0, 2.0)]
        Steering({0: vector}, points, num_layers=1, measured={"pairs": 3}).save(directory)
    return directory
