"""A verdict from two scores."""

from __future__ import annotations

from aligner_integrations.evaluation.records import Verdict


def find_verdict(
    before: float, after: float, *, margin: float = 0.0, lower_is_better: bool = False
) -> Verdict:
    """Win, tie or loss of the second score; those that differ by no more than ``margin`` tie.

    Example:
        >>> find_verdict(0.2, 0.9), find_verdict(0.2, 0.9, margin=1), find_verdict(2, 5.5)
        ('win', 'tie', 'win')
    """
    gain = before - after if lower_is_better else after - before
    if abs(gain) <= margin:
        return "tie"
    return "win" if gain > 0 else "loss"
