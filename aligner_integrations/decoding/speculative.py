"""Copy-speculative decoding: the answer is the draft, one pass verifies many of its tokens.

The output is what plain decoding gives: a token is accepted only where the model, or the sampler
with the same random numbers, chooses it itself.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch

from aligner_integrations.decoding.costs import PassCosts, default_costs
from aligner_integrations.decoding.exact import start_exact
from aligner_integrations.decoding.packed import PackedModel, Part
from aligner_integrations.decoding.rows import Moved, Prefix, Row
from aligner_integrations.decoding.running import RunningRow
from aligner_integrations.decoding.sampling import near_tie

PREFILL_CHUNK = 512
"""About as many tokens a pass has while no row is writing yet."""

LEAST_PIECE = 16
"""Fewer tokens than this of a prompt or a draft are not worth cutting off."""

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
        shares = self._share_out(running)
        parts = [share.part for share in shares]
        parts += [Part(prefix.cache, prefix.unread[:PREFILL_CHUNK], 0) for prefix in reading]
        logits = self._model.forward(parts)
        moved = []
        for share, scores in zip(shares, logits, strict=False):
            one = share.running
            one.row.forward_passes += 1
            if share.part.wanted:
                moved.append((one.row, one.verify(share.draft, scores, self._tie)))
            else:
                del one.unread[: len(share.part.tokens)]
        return moved

    def _share_out(self, running: Sequence[RunningRow]) -> list[_Share]:
        """Which rows take part in a pass, and with how many tokens.

        Rows that write token by token ride along in every pass. Long pieces, prompts and long
        drafts, are taken in turn, and so few that a pass is just large enough to be efficient:
        the more passes there are, the more of them a slow row has ridden along in by the end.
        """
        writing = any(one.row.output for one in running)
        left = self._costs.efficient if writing else PREFILL_CHUNK
        total, room = 0, MAX_DRAFTED
        shares: list[_Share] = []
        for one in running:
            size = len(one.unread)
            if size > 1 and shares and left < min(size, LEAST_PIECE):
                continue  # its turn comes in another pass
            piece = one.unread[: max(left, LEAST_PIECE)] if size > 1 else one.unread
            draft: list[int] = []
            if len(piece) == size:
                draft = one.draft(self._costs, total + size, len(running))[:room]
                if len(draft) >= LEAST_PIECE and shares and left < LEAST_PIECE:
                    continue
                if len(draft) >= LEAST_PIECE:
                    draft = draft[: max(left - size, LEAST_PIECE)]
            part = Part(one.cache, [*piece, *draft], 0 if len(piece) < size else len(draft) + 1)
            part = replace(part, single=one.single, offset=one.row.offset)
            shares.append(_Share(one, part, draft))
            total += len(part.tokens)
            left -= len(part.tokens)
            room -= len(draft)
        return shares


@dataclass(frozen=True, slots=True)
class _Share:
    """What a row has in a pass; its draft stands at the end of the part's tokens."""

    running: RunningRow
    part: Part
    draft: list[int]
