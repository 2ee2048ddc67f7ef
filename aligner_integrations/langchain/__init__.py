"""LangChain: `AlignerRunnable`, a step that corrects whatever answer comes in."""

from aligner_integrations.imports import require

require("langchain_core", "langchain")

from aligner_integrations.langchain.runnable import AlignerRunnable  # noqa: E402

__all__ = ["AlignerRunnable"]
