"""Judges: what says whether a correction is better than the answer."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aligner_integrations.evaluation.judges.bias import PositionBias, measure_position_bias
    from aligner_integrations.evaluation.judges.leaks import Leak, find_leaks
    from aligner_integrations.evaluation.judges.likelihoods import LikelihoodJudge
    from aligner_integrations.evaluation.judges.pairwise import PairwiseJudge
    from aligner_integrations.evaluation.judges.references import ReferenceJudge
    from aligner_integrations.evaluation.judges.rewards import RewardJudge
    from aligner_integrations.evaluation.judges.rubrics import RUBRICS, Rubric
    from aligner_integrations.evaluation.judges.rules import LeakJudge, RefusalJudge, is_refusal

_HOMES = {
    "RUBRICS": "rubrics",
    "Leak": "leaks",
    "LeakJudge": "rules",
    "LikelihoodJudge": "likelihoods",
    "PairwiseJudge": "pairwise",
    "PositionBias": "bias",
    "ReferenceJudge": "references",
    "RefusalJudge": "rules",
    "RewardJudge": "rewards",
    "Rubric": "rubrics",
    "find_leaks": "leaks",
    "is_refusal": "rules",
    "measure_position_bias": "bias",
}

__all__ = [
    "RUBRICS",
    "Leak",
    "LeakJudge",
    "LikelihoodJudge",
    "PairwiseJudge",
    "PositionBias",
    "ReferenceJudge",
    "RefusalJudge",
    "RewardJudge",
    "Rubric",
    "find_leaks",
    "is_refusal",
    "measure_position_bias",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
