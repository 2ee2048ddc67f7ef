"""Pictures of a scan, and its page."""

from aligner_integrations.interpretability.report.page import render_page, write_report

__all__ = ["render_page", "write_report"]
