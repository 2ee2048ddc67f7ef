"""LlamaIndex: correct what was retrieved, or what a query engine answers."""

from aligner_integrations.imports import require

# Integration packages share the namespace "llama_index", so it may be there without its core.
require("llama_index", "llamaindex")
require("llama_index.core", "llamaindex")

from aligner_integrations.llama_index.postprocessor import AlignerPostprocessor  # noqa: E402
from aligner_integrations.llama_index.query_engine import AlignerQueryEngine  # noqa: E402

__all__ = ["AlignerPostprocessor", "AlignerQueryEngine"]
