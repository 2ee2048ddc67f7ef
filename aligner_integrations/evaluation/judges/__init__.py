"""Judges: what says whether a correction is better than the answer."""

from aligner_integrations.evaluation.judges.leaks import Leak, find_leaks
from aligner_integrations.evaluation.judges.rules import LeakJudge, RefusalJudge, is_refusal

__all__ = ["Leak", "LeakJudge", "RefusalJudge", "find_leaks", "is_refusal"]
