"""What guards are judged by: what they keep, what they miss, and whether their decisions hold."""

from aligner_integrations.evaluation.guards.metrics import GuardMetric, measure_guards
from aligner_integrations.evaluation.guards.probes import (
    PROBES,
    IdempotenceProbe,
    InjectionProbe,
    ParaphraseProbe,
    Probe,
    derive_samples,
)
from aligner_integrations.evaluation.guards.sentences import split_sentences

__all__ = [
    "PROBES",
    "GuardMetric",
    "IdempotenceProbe",
    "InjectionProbe",
    "ParaphraseProbe",
    "Probe",
    "derive_samples",
    "measure_guards",
    "split_sentences",
]
