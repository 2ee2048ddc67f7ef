"""How much each token of a correction weighs in the loss.

An aligner copies most tokens. Where it departs from the answer, one token decides: the first that
is replaced or inserted, the first behind what is left out, or the end where the answer goes on. In
a plain mean that token is one among hundreds that are easy.
"""

from __future__ import annotations

from collections.abc import Sequence

from rapidfuzz.distance import Levenshtein

from aligner_integrations.training.config import LossConfig


def weigh_tokens(answer: Sequence[int], correction: Sequence[int], loss: LossConfig) -> list[float]:
    """Weights of a correction's tokens, its end token included.

    Args:
        answer: The answer's tokens in output context, with the end token.
        correction: The correction's tokens, with the end token.
        loss: What tokens weigh.

    Example:
        >>> weigh_tokens([1, 2, 3, 9], [1, 5, 6, 3, 9], LossConfig(changed=2, departure=4))
        [1.0, 4.0, 2.0, 1.0, 1.0]
        >>> weigh_tokens([1, 2, 3, 9], [1, 9], LossConfig())
        [1.0, 4.0]
    """
    weights = [1.0] * len(correction)
    copied = True  # whether what comes just before was
    for op in Levenshtein.opcodes(list(answer), list(correction)):
        if op.tag == "equal":
            copied = True
            continue
        for place in range(op.dest_start, op.dest_end):
            weights[place] = float(loss.changed)
        if copied and op.dest_start < len(weights):  # of what is left out, the token behind it
            weights[op.dest_start] = max(float(loss.departure), weights[op.dest_start])
        copied = False
    return weights
