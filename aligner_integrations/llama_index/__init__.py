"""LlamaIndex: correct what was retrieved, and what engines, LLMs and agents answer."""

from aligner_integrations.imports import require

# Integration packages share the namespace "llama_index", so it may be there without its core.
require("llama_index", "llamaindex")
require("llama_index.core", "llamaindex")

from aligner_integrations.llama_index.agent import AlignerFunctionAgent  # noqa: E402
from aligner_integrations.llama_index.chat_engine import AlignerChatEngine  # noqa: E402
from aligner_integrations.llama_index.events import (  # noqa: E402
    AgentCorrection,
    CorrectionEndEvent,
    CorrectionStartEvent,
)
from aligner_integrations.llama_index.llm import AlignedLLM  # noqa: E402
from aligner_integrations.llama_index.postprocessor import AlignerPostprocessor  # noqa: E402
from aligner_integrations.llama_index.query_engine import AlignerQueryEngine  # noqa: E402
from aligner_integrations.llama_index.synthesizer import AlignerSynthesizer  # noqa: E402

__all__ = [
    "AgentCorrection",
    "AlignedLLM",
    "AlignerChatEngine",
    "AlignerFunctionAgent",
    "AlignerPostprocessor",
    "AlignerQueryEngine",
    "AlignerSynthesizer",
    "CorrectionEndEvent",
    "CorrectionStartEvent",
]
