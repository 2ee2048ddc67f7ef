"""An evaluation as one HTML file that needs nothing else."""

from __future__ import annotations

from aligner_integrations.evaluation.report.page import render_report, write_report

__all__ = ["render_report", "write_report"]
