"""Hidden states of a model at chosen positions, and nowhere else."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from aligner_integrations.decoding.steering import find_layers
from aligner_integrations.interpretability.pairs import Case
from aligner_integrations.tokenization import PromptEncoder
from aligner_integrations.training.batches import fill_batches

if TYPE_CHECKING:
    from transformers import PreTrainedModel

Array = NDArray[np.float32]

POSITIONS = (
    "end of question",
    "1/4 of answer",
    "1/2 of answer",
    "3/4 of answer",
    "end of answer",
    "last prompt token",
)
"""Places in a prompt where states are read. At none of them an output token has been seen."""

BATCH_TOKENS = 4096
"""Most tokens of a pass, padding included."""


@dataclass(frozen=True, slots=True)
class Reading:
    """Token ids for one row of a pass.

    Attributes:
        ids: Prompt and, behind it, output.
        prompt_tokens: How many of them are the prompt.
        answer_span: ``(start, end)`` of the answer within the prompt.
    """

    ids: list[int]
    prompt_tokens: int
    answer_span: tuple[int, int]

    def find_prompt_positions(self) -> list[int]:
        """Where `POSITIONS` are."""
        start, end = self.answer_span
        quarters = [start + ceil(part * (end - start) / 4) - 1 for part in (1, 2, 3, 4)]
        return [max(0, start - 1), *quarters, self.prompt_tokens - 1]

    def find_output_positions(self, count: int) -> list[int]:
        """Where the first output tokens are chosen: each at the token before it.

        The first is the last prompt token. There are fewer than ``count`` where the output ends.
        """
        first = self.prompt_tokens - 1
        return list(range(first, min(first + count, len(self.ids) - 1)))


def read_case(encoder: PromptEncoder, case: Case, output_tokens: int = 0) -> Reading:
    """Token ids of a case, with the first tokens of its output behind the prompt.

    Args:
        encoder: The aligner's prompt format.
        case: What is asked, and what is written.
        output_tokens: Most output tokens, the end token among them.
    """
    prompt = encoder.encode(case.question, case.answer)
    output: list[int] = []
    if output_tokens:
        output = [*encoder.encode_output(case.output), choose_end(encoder)][:output_tokens]
    return Reading([*prompt.ids, *output], len(prompt.ids), prompt.answer_span)


def choose_end(encoder: PromptEncoder) -> int:
    """A token that ends a correction: the format's own where it has one."""
    return min(encoder.own_stop_ids or encoder.stop_ids)


def iterate_states(
    model: PreTrainedModel,
    readings: Sequence[Reading],
    positions: Sequence[Sequence[int]],
    *,
    batch_tokens: int = BATCH_TOKENS,
) -> Iterator[tuple[int, Array]]:
    """States of the residual stream, row by row; nothing else of a pass is kept.

    Rows of like length share a pass. Memory holds one pass, and of its states those positions
    alone: hooks on the layers take them, so no layer's whole output outlives the next layer.

    Args:
        model: A causal language model of transformers.
        readings: Token ids.
        positions: For each row where its states are wanted.
        batch_tokens: Most tokens of a pass, padding included; a longer row has one of its own.

    Yields:
        A row's index (rows come by length, not in order), and its states: float32, shape
        (layers + 1, positions, hidden size). The first are those that go into the first layer,
        then come the outputs of each layer, before the model's last norm.
    """
    device = model.get_input_embeddings().weight.device
    options = {"use_cache": False} | _limit_logits(model)
    for batch in fill_batches([len(reading.ids) for reading in readings], batch_tokens):
        ids, mask = _pad([readings[index].ids for index in batch])
        wanted = [torch.tensor(positions[index], dtype=torch.long) for index in batch]
        with torch.inference_mode(), _catching(model, wanted) as caught:
            model(input_ids=ids.to(device), attention_mask=mask.to(device), **options)
        for row, index in enumerate(batch):
            yield index, np.stack([layer[row] for layer in caught])


def collect_prompt_states(
    model: PreTrainedModel,
    encoder: PromptEncoder,
    cases: Sequence[Case],
    *,
    batch_tokens: int = BATCH_TOKENS,
    progress: bool = False,
) -> Array:
    """States of prompts at `POSITIONS`.

    Returns:
        Shape (cases, layers + 1, positions, hidden size). 120 cases of a 135M model take 50 MB,
        of a 7B model 390 MB.
    """
    from tqdm import tqdm

    readings = [read_case(encoder, case) for case in cases]
    places = [reading.find_prompt_positions() for reading in readings]
    states: Array | None = None
    coming = iterate_states(model, readings, places, batch_tokens=batch_tokens)
    bar = tqdm(
        coming, total=len(cases), desc="prompts", unit="answer", disable=not progress, leave=False
    )
    for index, own in bar:
        if states is None:
            states = np.empty((len(cases), *own.shape), dtype=np.float32)
        states[index] = own
    return states if states is not None else np.empty((0, 0, len(POSITIONS), 0), np.float32)


def _limit_logits(model: PreTrainedModel) -> dict[str, Any]:
    """Logits over the vocabulary are most of the memory, and are not wanted."""
    import inspect

    takes = "logits_to_keep" in inspect.signature(model.forward).parameters
    return {"logits_to_keep": 1} if takes else {}


def _pad(rows: Sequence[list[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids, padded on the right, which no token before it sees; and where they are."""
    width = max(map(len, rows))
    ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
    mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows])
    return ids, mask


@contextmanager
def _catching(model: PreTrainedModel, wanted: list[torch.Tensor]) -> Iterator[list[list[Array]]]:
    """Take states at each row's positions from all layers of the passes within."""
    caught: list[list[Array]] = []

    def take(hidden: torch.Tensor) -> None:
        caught.append(
            [
                hidden[row].index_select(0, places.to(hidden.device)).float().cpu().numpy()
                for row, places in enumerate(wanted)
            ]
        )

    def before(_: Any, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        take(arguments[0] if arguments else options["hidden_states"])

    def behind(_: Any, __: Any, output: Any) -> None:
        take(output[0] if isinstance(output, tuple) else output)

    layers = find_layers(model)
    hooks = [layers[0].register_forward_pre_hook(before, with_kwargs=True)]
    hooks += [layer.register_forward_hook(behind) for layer in layers]
    try:
        yield caught
    finally:
        for hook in hooks:
            hook.remove()
