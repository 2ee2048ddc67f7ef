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
        if self._generator is None:
            return int(logits.argmax())
        probabilities = self.probabilities(logits).cpu()
        return int(torch.multinomial(probabilities, 1, generator=self._generator))

    def choose_all(self, logits: torch.Tensor) -> Iterator[int]:
        """`choose` for each row of logits, one after another, shape (tokens, vocabulary).

        Random numbers are drawn as the tokens are taken. Verifying a draft token by token and
        stopping at the first other one therefore samples exactly as plain decoding does.
        """
        if self._generator is None:
            yield from logits.argmax(dim=-1).tolist()
        else:
            for row in logits:
                yield self.choose(row)

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
