"""What is added to hidden states in a pass: each row's own offset, and to no other row's tokens."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from aligner_integrations.decoding.steering import Steering, find_layers
from aligner_integrations.errors import SteeringError

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True, slots=True, eq=False)
class Offset:
    """What is added to the hidden states of one row.

    Attributes:
        steering: The vectors, each on the device of its layer (see `Steering.fit`).
        coefficient: What they are multiplied by.
        start: The first position that gets them: the prompt's last token, which predicts the
            first of the correction's. Those before it never do, so it makes no difference how the
            prompt is cut into passes.
    """

    steering: Steering
    coefficient: float
    start: int


@dataclass(frozen=True, slots=True)
class Place:
    """A token of a pass that gets an offset: its row and column in the pass's input ids."""

    row: int
    column: int
    offset: Offset


@contextlib.contextmanager
def add_offsets(model: PreTrainedModel, places: Sequence[Place]) -> Iterator[None]:
    """Add offsets to what the decoder layers put out, in passes of this thread within the context.

    The layers' outputs are hooked, and are as they were afterwards, come what may. Passes that
    other threads make with the same model see nothing of it. Without places nothing is done.

    Args:
        model: The model.
        places: The tokens that get an offset. All others keep their bits.
    """
    if not places:
        yield
        return
    layers, handles = find_layers(model), []
    try:
        for steering in {place.offset.steering for place in places}:
            added = _Added([place for place in places if place.offset.steering is steering])
            for layer, vector in steering.vectors.items():
                handles.append(layers[layer].register_forward_hook(added.hook(vector)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def find_places(
    offset: Offset | None, *, position: int, count: int, row: int = 0, column: int = 0
) -> list[Place]:
    """The places of an offset among tokens that stand side by side in a pass.

    Args:
        offset: What is added, from its start on.
        position: Position of the first of these tokens in prompt and correction.
        count: How many they are.
        row: Their row in the pass's input ids.
        column: Where the first of them stands in it.
    """
    if offset is None:
        return []
    skipped = max(0, offset.start - position)
    return [Place(row, column + index, offset) for index in range(skipped, count)]


class _Added:
    """What hooks add at the places of one `Steering`, in passes of the thread that made it."""

    def __init__(self, places: Sequence[Place]) -> None:
        self._thread = threading.get_ident()
        self._rows = torch.tensor([place.row for place in places])
        self._columns = torch.tensor([place.column for place in places])
        coefficients = [place.offset.coefficient for place in places]
        self._coefficients = torch.tensor(coefficients, dtype=torch.float32)[:, None]

    def hook(self, vector: torch.Tensor) -> Callable[..., Any]:
        """The hook for the layer of a vector."""
        if self._rows.device != vector.device:  # once for all layers on a device
            self._rows = self._rows.to(vector.device)
            self._columns = self._columns.to(vector.device)
            self._coefficients = self._coefficients.to(vector.device)
        rows, columns = self._rows, self._columns
        added = self._coefficients * vector  # a product a number: no bit depends on the company

        def add(module: torch.nn.Module, inputs: Any, output: Any) -> Any:
            if threading.get_ident() != self._thread:
                return output
            hidden = output[0] if isinstance(output, tuple) else output
            if hidden.ndim != 3 or hidden.shape[2] != vector.numel():
                raise SteeringError(
                    f"{type(module).__name__} puts out a shape of {tuple(hidden.shape)}, to which "
                    f"a vector of {vector.numel()} numbers can't be added; use strength=0"
                )
            steered = hidden.clone()
            steered[rows, columns] += added.to(hidden.device, hidden.dtype)
            return (steered, *output[1:]) if isinstance(output, tuple) else steered

        return add
