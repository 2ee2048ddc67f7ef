"""Triples as token ids: what a model sees, and which of its tokens count."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from aligner_integrations.errors import ConfigurationError, InvalidTextError
from aligner_integrations.tokenization import PromptEncoder
from aligner_integrations.training.config import LossConfig
from aligner_integrations.training.weights import weigh_tokens

if TYPE_CHECKING:
    from aligner_integrations.training.data import Triple

logger = logging.getLogger(__name__)
IGNORED = -100
"""The label of tokens that the loss leaves out: the prompt, and padding."""


@dataclass(frozen=True, slots=True)
class Example:
    """One triple, tokenised.

    Attributes:
        input_ids: Prompt, correction, end token.
        labels: The same for the correction and its end, `IGNORED` for the prompt.
        weights: What each token weighs in the loss; 0 for the prompt.
    """

    input_ids: list[int]
    labels: list[int]
    weights: list[float]


def find_end_token(encoder: PromptEncoder) -> int:
    """The token that ends a correction: the format's own stop token, else the model's.

    Raises:
        ConfigurationError: The model has several and the format says none.
    """
    own = encoder.own_stop_ids
    if len(own) == 1:
        return next(iter(own))
    if len(encoder.stop_ids) == 1:
        return next(iter(encoder.stop_ids))
    raise ConfigurationError(
        f"prompt format {encoder.prompt.name!r} names no single stop token and the model has "
        f"{len(encoder.stop_ids)}; give the format a stop=(...,)"
    )


def encode_triple(encoder: PromptEncoder, triple: Triple, loss: LossConfig) -> Example:
    """Tokenise one triple, exactly as `Aligner` will at inference."""
    prompt, end = encoder.encode(triple.question, triple.answer), find_end_token(encoder)
    target = [*encoder.encode_output(triple.correction), end]
    weights = weigh_tokens([*prompt.answer_ids, end], target, loss)
    return Example(
        [*prompt.ids, *target],
        [IGNORED] * len(prompt.ids) + target,
        [0.0] * len(prompt.ids) + weights,
    )


def encode_triples(
    encoder: PromptEncoder, triples: Iterable[Triple], loss: LossConfig, max_length: int
) -> list[Example]:
    """Tokenise triples; those that are too long or can't be tokenised are left out and counted.

    Raises:
        ConfigurationError: None is left.
    """
    examples, long, invalid = [], 0, 0
    for triple in triples:
        try:
            example = encode_triple(encoder, triple, loss)
        except InvalidTextError:
            invalid += 1
            continue
        if len(example.input_ids) > max_length:
            long += 1
        else:
            examples.append(example)
    if long or invalid:
        logger.warning(
            "left out: %d triples longer than max_length=%d tokens, %d that can't be tokenised",
            long,
            max_length,
            invalid,
        )
    if not examples:
        raise ConfigurationError(
            f"no triple is left: {long} are longer than max_length={max_length} tokens and "
            f"{invalid} can't be tokenised; raise data.max_length or check the data"
        )
    return examples


class ExampleDataset(torch.utils.data.Dataset[dict[str, Any]]):
    """Examples in the form that Trainer takes."""

    def __init__(self, examples: Sequence[Example]) -> None:
        self._examples = examples

    def __len__(self) -> int:
        return len(self._examples)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._examples[index]
        return {
            "input_ids": example.input_ids,
            "labels": example.labels,
            "loss_weights": example.weights,
        }


def collate(rows: Sequence[dict[str, Any]]) -> dict[str, torch.Tensor]:
    """Pad rows on the right to one length; tensors of shape (rows, tokens)."""
    width = max(len(row["input_ids"]) for row in rows)

    def pad(key: str, value: float) -> list[list[Any]]:
        return [[*row[key], *[value] * (width - len(row[key]))] for row in rows]

    mask = [[1] * len(row["input_ids"]) + [0] * (width - len(row["input_ids"])) for row in rows]
    return {
        "input_ids": torch.tensor(pad("input_ids", 0)),
        "attention_mask": torch.tensor(mask),
        "labels": torch.tensor(pad("labels", IGNORED)),
        "loss_weights": torch.tensor(pad("loss_weights", 0.0)),
    }
