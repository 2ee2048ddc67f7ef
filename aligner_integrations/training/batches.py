"""Batches by tokens: as many examples as fit, of about the same length."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from torch.utils.data import Sampler


class BatchOrder(Sampler[int]):
    """The order in which batches are seen: another one in each epoch, the same in each run."""

    def __init__(self, count: int, seed: int) -> None:
        self._count = count
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Called by accelerate at the start of each epoch."""
        self._epoch = epoch

    def __iter__(self) -> Iterator[int]:
        order = list(range(self._count))
        random.Random(f"{self._seed} {self._epoch}").shuffle(order)  # noqa: S311 - no secret
        return iter(order)

    def __len__(self) -> int:
        return self._count


class TokenBatches(Sampler[list[int]]):
    """Batches of examples of about the same length, each within a number of tokens.

    What is in a batch stays the same in all epochs, so that each epoch has as many steps; the order
    of the batches changes. Padding counts, since it takes memory as well.

    Args:
        lengths: Tokens of each example.
        tokens: Most tokens of a batch. An example that is longer makes a batch of its own.
        seed: Of the order.
        multiple: The number of batches is made a multiple of this, the number of processes, by
            giving some of them a second time.

    Example:
        >>> sorted(TokenBatches([9, 2, 2, 8], tokens=20, seed=0))
        [[1, 2], [3, 0]]
    """

    batch_size = None  # accelerate asks; batches have no common size
    drop_last = False

    def __init__(self, lengths: Sequence[int], tokens: int, seed: int, multiple: int = 1) -> None:
        self._batches = [*fill_batches(lengths, tokens)]
        missing = -len(self._batches) % multiple
        self._batches += [self._batches[index % len(self._batches)] for index in range(missing)]
        self.sampler = BatchOrder(len(self._batches), seed)

    def __iter__(self) -> Iterator[list[int]]:
        return (self._batches[index] for index in self.sampler)

    def __len__(self) -> int:
        return len(self._batches)


def fill_batches(lengths: Sequence[int], tokens: int) -> Iterator[list[int]]:
    """Indices by length, cut where one more example, padded, would exceed ``tokens``."""
    batch: list[int] = []
    for index in sorted(range(len(lengths)), key=lambda index: lengths[index]):
        if batch and (len(batch) + 1) * lengths[index] > tokens:
            yield batch
            batch = []
        batch.append(index)
    if batch:
        yield batch
