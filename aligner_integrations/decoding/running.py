"""A row while it runs: its cache, its draft, and how a draft is verified."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from aligner_integrations.decoding.costs import PassCosts
from aligner_integrations.decoding.draft import Drafter
from aligner_integrations.decoding.kv import RowCache
from aligner_integrations.decoding.packed import PackedModel, Part
from aligner_integrations.decoding.rows import Row


class RunningRow:
    """A row with its cache and its way through the answer.

    Attributes:
        unread: Decided tokens that are not in the cache yet: the prompt, then the last output.
        single: Whether each token is to get the bits of a pass of its own.
        stopped_at_tie: Whether `verify` left a near-tie open.
    """

    single = False
    stopped_at_tie = False

    def __init__(self, row: Row) -> None:
        self.row = row
        self.cache = RowCache()
        written = [*row.prompt, *row.output]
        if row.prefix is not None:
            row.prefix.replace(written)
            self.cache, row.prefix = row.prefix.cache, None
            # The prompt's last token is left, for its logits, and for what is added to it.
            self.cache.length = min(self.cache.length, len(row.prompt) - 1)
        self.unread = written[self.cache.length :]
        self._drafter = Drafter(row.draft)
        self._drafter.advance(row.output)

    @property
    def is_alone(self) -> bool:
        """Whether the next pass is for this row only."""
        return False

    def step_alone(self, model: PackedModel, tie: float) -> list[int]:
        """A pass for this row only; returns the new output. Only where it `is_alone`."""
        (logits,) = model.forward([Part(self.cache, self.unread, 1, self.single, self.row.offset)])
        self.row.forward_passes += 1
        return self.verify([], logits, tie)

    def draft(self, costs: PassCosts, others: int, rows: int) -> list[int]:
        """See `Drafter.draft`."""
        return list(self._drafter.draft(costs, others, rows))

    def verify(self, drafted: Sequence[int], logits: torch.Tensor, tie: float) -> list[int]:
        """Accept the draft as far as it agrees, then take the model's own token.

        Args:
            drafted: The draft, of any length.
            logits: Shape (len(drafted) + 1, vocabulary): what follows the last token, then each
                drafted one.
            tie: The margin of a near-tie.

        Returns:
            The new output.
        """
        output: list[int] = []
        decided: list[int] = []
        accepted, self.stopped_at_tie = 0, False
        for position, choice in enumerate(self.row.sampler.choose_all(logits)):
            token, margin = self.row.decide(*choice)
            if margin < tie and not self.may_decide_ties():
                self.stopped_at_tie = True
                break
            decided.append(token)
            output += self.row.append(token, margin, tie)
            agreed = position < len(drafted) and token == drafted[position]
            if self.row.stop_reason is not None or not agreed:
                break
            accepted += 1
        self.cache.length -= len(drafted) - accepted
        self._drafter.learn(len(drafted), accepted)
        self.row.drafted += len(drafted)
        self.row.accepted += accepted
        self._drafter.advance(decided)
        self.unread = decided[-1:]
        return output

    def may_decide_ties(self) -> bool:
        """Whether the logits at hand are good enough for near-ties."""
        return True
