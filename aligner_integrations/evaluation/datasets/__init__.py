"""Datasets to evaluate with: loaders, what their rows mean, and their licences."""

from aligner_integrations.evaluation.datasets.kinds import SAFE, UNSAFE, DatasetKind
from aligner_integrations.evaluation.datasets.loading import (
    DATASETS,
    detect_kind,
    find_kind,
    load_samples,
)

__all__ = [
    "DATASETS",
    "SAFE",
    "UNSAFE",
    "DatasetKind",
    "detect_kind",
    "find_kind",
    "load_samples",
]
