"""`train_baseline`: SFT or DPO from the triples that an aligner is trained on."""

from __future__ import annotations

from pathlib import Path

from aligner_integrations.training.baselines.config import BaselineConfig, Kind
from aligner_integrations.training.baselines.pairs import Pair
from aligner_integrations.training.baselines.student import train_student
from aligner_integrations.training.data import read_triples


def train_baseline(kind: Kind, config: BaselineConfig, *, resume: bool = True) -> Path:
    """Train a baseline of the paper.

    ``sft`` learns the correction as the answer to the question, and never sees the old answer.
    ``dpo`` learns to prefer the correction to the answer. Neither is an aligner: they are upstream
    models, which answer questions.

    Args:
        kind: ``"sft"`` or ``"dpo"``.
        config: What to train, on what and how.
        resume: Go on where an earlier run with the same output stopped.

    Returns:
        The model's directory, ``sft`` or ``dpo`` in ``config.output``; transformers loads it.

    Raises:
        DataError: A file holds no valid triples; the message has file and line.
        ConfigurationError: The config asks for something that cannot work.
        TrainingError: The run ran out of memory or disk; the last checkpoint stays.
    """
    pairs, held_out = (
        [
            Pair.from_triple(triple)
            for path in paths
            for triple in read_triples(path, layout=config.data.layout)
        ]
        for paths in (config.data.train, config.data.eval)
    )
    return train_student(
        kind,
        config,
        config.base,
        pairs,
        Path(config.output) / kind,
        held_out=held_out,
        max_length=config.data.max_length,
        resume=resume,
    )
