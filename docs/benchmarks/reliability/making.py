"""Making a pool: each pair is asked for alone, and taken where its correction can be told apart."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Iterator
from pathlib import Path

import torch

from aligner_integrations import Aligner
from aligner_integrations.errors import CorrectionError
from docs.benchmarks.reliability.pool import ROOT, Pair, Pool
from tests.tiny import CORPUS, make_byte_level_tokenizer, make_model

SMALLEST_MARGIN = 2e-3
"""Pairs with a nearer tie are left out: there, rounding may choose another token in company."""

_ENDS = 1.3  # how much the end token is favoured, so that a random model comes to an end
_WORDS = tuple(" ".join(CORPUS).split())


def save_tiny(directory: Path) -> Path:
    """Save a random-weight Llama of two layers, which writes nonsense of many lengths."""
    tokenizer = make_byte_level_tokenizer()
    model = make_model("llama", max_position_embeddings=2048)
    with torch.no_grad():
        model.lm_head.weight[tokenizer.eos_token_id] *= _ENDS
    model.save_pretrained(directory)
    tokenizer.save_pretrained(directory)
    (directory / "aligner_config.json").write_text(json.dumps({"prompt": "aligner-smol"}))
    return directory


def make_pool(aligner: Aligner, candidates: Iterable[tuple[str, str]], size: int) -> Pool:
    """Ask for candidates one after another until there are enough.

    Raises:
        SystemExit: There are too few.
    """
    pairs: list[Pair] = []
    taken: set[str] = set()
    left_out = 0
    for question, answer in candidates:
        try:
            correction = aligner.correct(question, answer)
        except CorrectionError:
            left_out += 1
            continue
        margin = correction.stats.smallest_margin
        near = margin is not None and margin < SMALLEST_MARGIN
        if near or not correction.text.strip() or correction.text in taken:
            left_out += 1
            continue
        taken.add(correction.text)
        pairs.append(Pair(question, answer, correction.text))
        if len(pairs) == size:
            return Pool(tuple(pairs), _make_too_long(), left_out)
    raise SystemExit(f"only {len(pairs)} of the candidates can be used, but --pool is {size}")


def make_nonsense(seed: int) -> Iterator[tuple[str, str]]:
    """Pairs for the random model, of 3 to 250 words, without end."""
    draw = random.Random(seed)  # noqa: S311 - test data
    number = 0
    while True:
        number += 1
        length = draw.choice((3, 8, 20, 60, 250))
        answer = " ".join(draw.choices(_WORDS, k=length))
        yield f"Question {number:05d}?", f"Answer {number:05d}: {answer}."


def read_natural(seed: int) -> Iterator[tuple[str, str]]:
    """The pairs of tests/data, some with two or three answers in one, in random order."""
    draw = random.Random(seed)  # noqa: S311 - test data
    rows = [
        json.loads(line)
        for name in ("keep", "harm", "pairs")
        for line in (ROOT / "tests" / "data" / f"{name}.jsonl").read_text("utf-8").splitlines()
    ]
    draw.shuffle(rows)
    for index, row in enumerate(rows):
        more = [rows[index - 1 - other]["answer"] for other in range(draw.choice((0, 0, 1, 2)))]
        yield f"{row['question']} ({index:03d})", " ".join([row["answer"], *more])


def _make_too_long() -> str:
    return "This answer has no end. " * 2000
