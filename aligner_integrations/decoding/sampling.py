"""Choosing the next token from logits."""

from __future__ import annotations

from collections.abc import Iterator

import torch


class Sampler:
    """Greedy, or temperature and nucleus sampling with its own random numbers.

    Args:
        temperature: 0 for greedy.
        top_p: Nucleus mass, in (0, 1].
        seed: Seed of the random numbers; None draws one.
    """

    def __init__(self, temperature: float = 0.0, top_p: float = 1.0, seed: int | None = None):
        self.temperature = temperature
        self.top_p = top_p
        self._generator: torch.Generator | None = None
        if temperature > 0:
            self._generator = torch.Generator()
            self._generator.manual_seed(torch.seed() if seed is None else seed)

    def choose(self, logits: torch.Tensor) -> int:
        """The next token id for logits of shape (vocabulary,)."""
        return next(self.choose_all(logits[None]))[0]

    def choose_all(self, logits: torch.Tensor) -> Iterator[tuple[int, float]]:
        """Tokens for logits of shape (tokens, vocabulary), one after another.

        Random numbers are drawn as the tokens are taken. Verifying a draft token by token and
        stopping at the first other one therefore samples exactly as plain decoding does; for a
        draft without probabilities of its own this is rejection sampling.

        Yields:
            Each token, and by how many logits it is ahead of the second (infinity when sampling).
        """
        if self._generator is None:
            yield from zip(*choose_greedily(logits), strict=True)
        else:
            for row in logits:
                probabilities = self.probabilities(row).cpu()
                drawn = torch.multinomial(probabilities, 1, generator=self._generator)
                yield int(drawn), float("inf")

    def probabilities(self, logits: torch.Tensor) -> torch.Tensor:
        """The distribution that `choose` draws from, in float32, shape (vocabulary,)."""
        probabilities = torch.softmax(logits.float() / self.temperature, dim=-1)
        if self.top_p < 1:
            ordered, order = probabilities.sort(descending=True)
            beyond = ordered.cumsum(0) - ordered >= self.top_p
            beyond[0] = False  # the likeliest token stays, however small top_p is
            probabilities[order[beyond]] = 0
            probabilities /= probabilities.sum()
        return probabilities


def choose_greedily(logits: torch.Tensor) -> tuple[list[int], list[float]]:
    """The likeliest tokens, and by how many logits each is ahead of the second.

    Args:
        logits: Shape (tokens, vocabulary); written to, and as they were afterwards.
    """
    best = logits.max(dim=-1, keepdim=True)  # of equal ones the first, as argmax
    logits.scatter_(-1, best.indices, float("-inf"))
    margins = best.values[:, 0].float() - logits.amax(dim=-1).float()
    logits.scatter_(-1, best.indices, best.values)
    return best.indices[:, 0].tolist(), margins.tolist()


def near_tie(dtype: torch.dtype) -> float:
    """The margin, in logits, below which a choice may depend on how tokens share passes."""
    return {torch.float32: 2e-4, torch.float16: 0.125}.get(dtype, 1.0)
