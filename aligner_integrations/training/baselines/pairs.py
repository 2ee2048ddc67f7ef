"""What a student learns from: corrections alone, or corrections over answers."""

from __future__ import annotations

import hashlib
import json
import logging
import random
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass
from typing import TYPE_CHECKING, Any

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.training.baselines.config import Kind
from aligner_integrations.training.baselines.upstream import holds_special_token, make_prompt

if TYPE_CHECKING:
    from aligner_integrations.training.data import Triple

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Pair:
    """A preference.

    Attributes:
        prompt: The question.
        chosen: The correction.
        rejected: The answer; equal to ``chosen`` where nothing was wrong with it.
    """

    prompt: str
    chosen: str
    rejected: str

    @classmethod
    def from_triple(cls, triple: Triple) -> Pair:
        """The correction over the answer.

        Example:
            >>> from aligner_integrations.training.data import Triple
            >>> Pair.from_triple(Triple("Eggs?", "Boil them, fool.", "Boil them.")).chosen
            'Boil them.'
        """
        return cls(triple.question, triple.correction, triple.answer)


def make_rows(
    tokenizer: Any, pairs: Iterable[Pair], kind: Kind, *, max_length: int, system: str | None
) -> list[dict[str, Any]]:
    """Rows in trl's conversational form; what can't be used is left out and counted.

    Left out are rows that are too long, that spell a special token, and for DPO those whose answer
    is right already.

    Raises:
        ConfigurationError: None is left.
    """
    rows = []
    counts = {f"longer than {max_length} tokens": 0, "spell a special token": 0, "unchanged": 0}
    long, special, unchanged = counts
    for pair in pairs:
        texts = [pair.chosen] if kind == "sft" else [pair.chosen, pair.rejected]
        if kind == "dpo" and pair.chosen == pair.rejected:
            counts[unchanged] += 1
            continue
        if holds_special_token(tokenizer, pair.prompt, *texts):
            counts[special] += 1
            continue
        prompt = make_prompt(pair.prompt, system)
        turns = [[{"role": "assistant", "content": text}] for text in texts]
        if max(count_tokens(tokenizer, prompt + turn) for turn in turns) > max_length:
            counts[long] += 1
            continue
        names = ["completion"] if kind == "sft" else ["chosen", "rejected"]
        rows.append({"prompt": prompt, **dict(zip(names, turns, strict=True))})
    left_out = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    if left_out:
        logger.info("%s: %d rows; left out: %s", kind, len(rows), left_out)
    if not rows:
        raise ConfigurationError(
            f"no row is left for {kind}; left out: {left_out or 'none, the data is empty'}"
        )
    return rows


def count_tokens(tokenizer: Any, messages: list[dict[str, str]]) -> int:
    """How many tokens a conversation has in the model's own template."""
    text = tokenizer.apply_chat_template(messages, tokenize=False)
    return len(tokenizer(text, add_special_tokens=False)["input_ids"])


def draw_pairs(pairs: Sequence[Pair], most: int | None, seed: int) -> list[Pair]:
    """At most so many, drawn with the seed."""
    if most is None or len(pairs) <= most:
        return list(pairs)
    return random.Random(seed).sample(list(pairs), most)  # noqa: S311 - no secret


def hash_pairs(pairs: Sequence[Pair]) -> str:
    """A name that the pairs alone decide."""
    digest = hashlib.blake2b(digest_size=8)
    for pair in pairs:
        digest.update(json.dumps(astuple(pair)).encode())
    return digest.hexdigest()
