"""Training data: reading and checking it, splitting it, measuring it, making more of it."""

from aligner_integrations.training.data.asking import AskingError, AskingReport
from aligner_integrations.training.data.corrections import read_answers, write_corrections
from aligner_integrations.training.data.defects import Defect, insert_defects, read_defects
from aligner_integrations.training.data.dialogues import parse_transcript
from aligner_integrations.training.data.duplicates import (
    Duplicate,
    NearIndex,
    find_duplicates,
    find_leaks,
)
from aligner_integrations.training.data.filters import (
    add_identities,
    keep_close,
    make_identity,
)
from aligner_integrations.training.data.layouts import LAYOUTS, LayoutOptions, detect_layout
from aligner_integrations.training.data.measures import Measures, measure
from aligner_integrations.training.data.plotting import draw
from aligner_integrations.training.data.reading import read_triples
from aligner_integrations.training.data.sampling import read_questions, sample_answers
from aligner_integrations.training.data.splitting import Split, split_triples
from aligner_integrations.training.data.statistics import Statistics, compute_statistics
from aligner_integrations.training.data.triples import Triple, write_triples
from aligner_integrations.training.data.validation import Problem, ValidationReport, validate

__all__ = [
    "LAYOUTS",
    "AskingError",
    "AskingReport",
    "Defect",
    "Duplicate",
    "LayoutOptions",
    "Measures",
    "NearIndex",
    "Problem",
    "Split",
    "Statistics",
    "Triple",
    "ValidationReport",
    "add_identities",
    "compute_statistics",
    "detect_layout",
    "draw",
    "find_duplicates",
    "find_leaks",
    "insert_defects",
    "keep_close",
    "make_identity",
    "measure",
    "parse_transcript",
    "read_answers",
    "read_defects",
    "read_questions",
    "read_triples",
    "sample_answers",
    "split_triples",
    "validate",
    "write_corrections",
    "write_triples",
]
