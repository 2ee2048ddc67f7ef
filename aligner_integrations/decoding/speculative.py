"""Copy-speculative decoding: the answer is the draft, one pass verifies many of its tokens.

The output is what plain decoding gives: a token is accepted only where the model, or the sampler
with the same random numbers, chooses it itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from aligner_integrations.decoding.costs import PassCosts, default_costs
from aligner_integrations.decoding.exact import start_exact
from aligner_integrations.decoding.packed import PackedModel, Part
from aligner_integrations.decoding.rows import Moved, Prefix, Row
from aligner_integrations.decoding.running import RunningRow
from aligner_integrations.decoding.sampling import near_tie

PREFILL_CHUNK = 512
"""Most prompt tokens of one row in a pass, so that long prompts do not hold up other rows."""

MAX_DRAFTED = 256
"""Most drafted tokens in a pass, all rows together: each costs logits over the vocabulary."""


class Decoder:
    """Runs rows together: continuous batching, and speculation where it pays.

    Not thread-safe: one thread adds rows and makes the passes.

    Args:
        model: The model.
        costs: What its passes cost; by default as usual on such a device.
    """

    def __init__(self, model: PackedModel, costs: PassCosts | None = None) -> None:
        self._model = model
        self._costs = costs or default_costs(model)
        self._tie = near_tie(model.dtype)
        self._running: list[RunningRow] = []

    def add(self, row: Row) -> None:
        """Let a row join; it takes part from the next pass on."""
        self._running.append(start_exact(self._model, row) if row.exact else RunningRow(row))

    @torch.inference_mode()
    def step(self, reading: Sequence[Prefix] = ()) -> Moved:
        """One pass: each row reads a piece of its prompt, or verifies a draft.

        Rows that must have passes to themselves get them behind it.

        Args:
            reading: Beginnings of further prompts, to be read in the same pass.

        Returns:
            The rows that moved on, with their new output.
        """
        self._running = [one for one in self._running if not one.row.is_over()]
        together = [one for one in self._running if not one.is_alone]
        alone = [one for one in self._running if one.is_alone]
        moved = self._pass(together, reading) if together or reading else []
        for one in alone:
            if output := one.step_alone(self._model, self._tie):
                moved.append((one.row, output))
        return moved

    def _pass(self, running: Sequence[RunningRow], reading: Sequence[Prefix]) -> Moved:
        parts: list[Part] = []
        drafts: list[list[int] | None] = []
        total = sum(min(len(one.unread), PREFILL_CHUNK) for one in running)
        room = MAX_DRAFTED
        for one in running:
            if len(one.unread) > PREFILL_CHUNK:
                parts.append(Part(one.cache, one.unread[:PREFILL_CHUNK], 0, one.single))
                drafts.append(None)
                continue
            bet = one.draft(self._costs, total, len(running))[:room]
            total += len(bet)
            room -= len(bet)
            parts.append(Part(one.cache, [*one.unread, *bet], len(bet) + 1, one.single))
            drafts.append(bet)
        parts += [Part(prefix.cache, prefix.unread[:PREFILL_CHUNK], 0) for prefix in reading]
        logits = self._model.forward(parts)
        moved = []
        for one, draft, scores in zip(running, drafts, logits, strict=False):
            one.row.forward_passes += 1
            if draft is None:
                del one.unread[:PREFILL_CHUNK]
            else:
                moved.append((one.row, one.verify(draft, scores, self._tie)))
        return moved
