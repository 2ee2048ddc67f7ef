"""The LAT scan: how far each layer is on the way from "copy" to "correct", output token by token.

Ji et al. 2024 (arXiv 2402.02416), Figure 4 a and b; linear artificial tomography is Zou et al. 2023
(arXiv 2310.01405), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from aligner_integrations.interpretability.directions import Direction
from aligner_integrations.interpretability.pairs import Case
from aligner_integrations.interpretability.states import iterate_states, read_case
from aligner_integrations.tokenization import PromptEncoder

if TYPE_CHECKING:
    from transformers import PreTrainedModel

OUTPUT_TOKENS = 20
"""As many as in Figure 4."""


@dataclass(frozen=True, slots=True)
class Tomogram:
    """Places on the layers' lines while outputs are written.

    Attributes:
        scores: Mean over cases, shape (layers + 1, output tokens): 1 where states are at the mean
            of "correct", -1 at that of "copy", both as of the last prompt token. Column t belongs
            to the state that chooses output token t + 1; the first is the last prompt token's.
        counts: Of how many cases each column is the mean; outputs end.
        examples: The first cases by themselves: the output's tokens as text, and scores.
    """

    scores: NDArray[np.float64]
    counts: list[int]
    examples: list[tuple[list[str], NDArray[np.float64]]]

    def to_dict(self) -> dict[str, Any]:
        """Plain data; what was written is left out."""
        return {"scores": np.round(self.scores, 3).tolist(), "counts": self.counts}


def scan_outputs(
    model: PreTrainedModel,
    encoder: PromptEncoder,
    cases: Sequence[Case],
    directions: Sequence[Direction],
    *,
    output_tokens: int = OUTPUT_TOKENS,
    examples: int = 0,
    progress: bool = False,
) -> Tomogram:
    """Follow cases while their outputs are written, whatever the model itself would write.

    Args:
        model: A causal language model of transformers.
        encoder: Its prompt format.
        cases: Of one class.
        directions: For the states that go into the first layer, and for each layer's output.
        output_tokens: How many of the output's tokens.
        examples: How many of the first cases are kept by themselves.
        progress: Show a bar.
    """
    from tqdm import tqdm

    readings = [read_case(encoder, case, output_tokens) for case in cases]
    places = [reading.find_output_positions(output_tokens) for reading in readings]
    total = np.zeros((len(directions), output_tokens))
    counts = np.zeros(output_tokens, dtype=int)
    kept: dict[int, NDArray[np.float64]] = {}
    coming = iterate_states(model, readings, places)
    for index, states in tqdm(
        coming, total=len(cases), desc="outputs", unit="answer", disable=not progress, leave=False
    ):
        scores = np.stack([d.project(own) for d, own in zip(directions, states, strict=True)])
        total[:, : scores.shape[1]] += scores
        counts[: scores.shape[1]] += 1
        if index < examples:
            kept[index] = scores
    shown = [
        (_spell(encoder, readings[index].ids[readings[index].prompt_tokens :]), kept[index])
        for index in sorted(kept)
    ]
    with np.errstate(invalid="ignore"):
        return Tomogram(total / counts, counts.tolist(), shown)


def standardise(
    correct: NDArray[np.float64], copy: NDArray[np.float64]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Remove from both classes what is common to them, layer by layer, for one colour scale.

    A state that chooses a later token lies elsewhere than the last prompt token's, in both classes
    alike and in early layers by many class distances. So the mean of both classes is subtracted,
    that of the first column from it and that of all later columns from those, and the rest is
    divided by each layer's standard deviation over both classes.

    Args:
        correct: Scores of a `Tomogram`, shape (layers, output tokens).
        copy: Likewise.

    Returns:
        The same in standard deviations: 0 is midway between the classes.
    """
    both = np.stack([correct, copy])
    placed = both.copy()
    placed[:, :, :1] -= both[:, :, :1].mean(axis=0)
    if both.shape[2] > 1:
        placed[:, :, 1:] -= np.nanmean(both[:, :, 1:], axis=(0, 2), keepdims=True)
    spread = np.nanstd(placed, axis=(0, 2), keepdims=True)
    placed /= np.where(spread > 0, spread, 1)
    return placed[0], placed[1]


def _spell(encoder: PromptEncoder, ids: Sequence[int]) -> list[str]:
    """Each token as text; the end as a sign."""
    return ["⏹" if token in encoder.stop_ids else encoder.decode([token]) for token in ids]
