"""Copy-speculative decoding: the answer is the draft, one pass verifies many of its tokens.

The output is what plain decoding gives: a token is accepted only where the model, or the sampler
with the same random numbers, chooses it itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import torch

from aligner_integrations.decoding.costs import CPU_COSTS, GPU_COSTS, PassCosts
from aligner_integrations.decoding.draft import Drafter
from aligner_integrations.decoding.kv import RowCache
from aligner_integrations.decoding.packed import PackedModel
from aligner_integrations.decoding.rows import Row

PREFILL_CHUNK = 512
"""Most prompt tokens of one row in a pass, so that long prompts do not hold up other rows."""

MAX_DRAFTED = 512
"""Most drafted tokens in a pass, all rows together: each costs logits over the vocabulary."""


@dataclass(slots=True, eq=False)
class _Running:
    """A row with its cache and its way through the answer.

    Attributes:
        unread: Decided tokens that are not in the cache yet: the prompt, then the last output.
    """

    row: Row
    unread: list[int]
    drafter: Drafter
    cache: RowCache = field(default_factory=RowCache)

    @classmethod
    def start(cls, row: Row) -> _Running:
        running = cls(row, [*row.prompt, *row.output], Drafter(row.draft))
        running.drafter.advance(row.output)
        return running

    def verify(self, drafted: Sequence[int], logits: torch.Tensor) -> list[int]:
        """Accept the draft as far as it agrees, then take the model's own token.

        Args:
            drafted: The draft, of any length.
            logits: Shape (len(drafted) + 1, vocabulary): what follows the last token, then each
                drafted one.

        Returns:
            The new output.
        """
        output: list[int] = []
        decided: list[int] = []
        accepted = 0
        for position, token in enumerate(self.row.sampler.choose_all(logits)):
            decided.append(token)
            output += self.row.append(token)
            agreed = position < len(drafted) and token == drafted[position]
            if self.row.stop_reason is not None or not agreed:
                break
            accepted += 1
        self.cache.length -= len(drafted) - accepted
        self.drafter.learn(len(drafted), accepted)
        self.drafter.advance(decided)
        self.unread = decided[-1:]
        return output


def decode(
    model: PackedModel,
    rows: Sequence[Row],
    admit: Callable[[], Sequence[Row]] = lambda: (),
) -> Iterator[list[tuple[Row, list[int]]]]:
    """Run rows to their ends, together; see `aligner_integrations.decoding.plain.decode`.

    Args:
        model: The model.
        rows: The requests.
        admit: Asked before every pass for further rows, which join those that run.

    Yields:
        After every pass, the rows that moved on with their new output ids.
    """
    costs = CPU_COSTS if model.device.type == "cpu" else GPU_COSTS
    running: list[_Running] = [_Running.start(row) for row in rows]
    with torch.inference_mode():
        while True:
            running += [_Running.start(row) for row in admit()]
            running = [one for one in running if not _is_over(one.row)]
            if not running:
                return
            yield _pass(model, running, costs)


def _pass(
    model: PackedModel, running: list[_Running], costs: PassCosts
) -> list[tuple[Row, list[int]]]:
    """One forward pass for all: a piece of the prompt, or the last token and a draft."""
    total, drafted = sum(min(len(one.unread), PREFILL_CHUNK) for one in running), 0
    parts: list[tuple[RowCache, list[int]]] = []
    drafts: list[list[int] | None] = []
    for one in running:
        if len(one.unread) > PREFILL_CHUNK:
            parts.append((one.cache, one.unread[:PREFILL_CHUNK]))
            drafts.append(None)
            continue
        bet = list(one.drafter.draft(costs, total, len(running)))[: MAX_DRAFTED - drafted]
        total += len(bet)
        drafted += len(bet)
        parts.append((one.cache, [*one.unread, *bet]))
        drafts.append(bet)
    logits = model.forward(parts, [0 if d is None else len(d) + 1 for d in drafts])
    moved = []
    for one, draft, scores in zip(running, drafts, logits, strict=True):
        one.row.forward_passes += 1
        if draft is None:
            del one.unread[:PREFILL_CHUNK]
        else:
            moved.append((one.row, one.verify(draft, scores)))
    return moved


def _is_over(row: Row) -> bool:
    if row.stop_reason is None and row.is_cancelled():
        row.stop_reason = "cancelled"
    return row.stop_reason is not None
