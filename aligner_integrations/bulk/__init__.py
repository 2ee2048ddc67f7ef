"""Correcting whole files: each row exactly once, however often the run is killed."""

from aligner_integrations.bulk.report import BulkReport
from aligner_integrations.bulk.run import correct_file

__all__ = ["BulkReport", "correct_file"]
