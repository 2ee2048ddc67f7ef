"""Put an Aligner behind any LLM: a small model that corrects its answers.

Names are loaded when they are first used, so importing this package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aligner_integrations.aligner import Aligner
    from aligner_integrations.conversation import Turn
    from aligner_integrations.correction import Correction, CorrectionStats, Edit
    from aligner_integrations.gates import CorrectWhen
    from aligner_integrations.langchain import (
        AlignedChatModel,
        AlignerMiddleware,
        AlignerRunnable,
    )
    from aligner_integrations.llama_index import (
        AlignedLLM,
        AlignerChatEngine,
        AlignerFunctionAgent,
        AlignerPostprocessor,
        AlignerQueryEngine,
        AlignerSynthesizer,
    )
    from aligner_integrations.options import GenerationOptions
    from aligner_integrations.prompts import PromptFormat

__version__ = "0.1.0"

_HOMES = {
    "Aligner": "aligner",
    "CorrectWhen": "gates",
    "Turn": "conversation",
    "Correction": "correction",
    "CorrectionStats": "correction",
    "Edit": "correction",
    "GenerationOptions": "options",
    "PromptFormat": "prompts",
    "AlignedChatModel": "langchain",
    "AlignerMiddleware": "langchain",
    "AlignerRunnable": "langchain",
    "AlignedLLM": "llama_index",
    "AlignerChatEngine": "llama_index",
    "AlignerFunctionAgent": "llama_index",
    "AlignerPostprocessor": "llama_index",
    "AlignerQueryEngine": "llama_index",
    "AlignerSynthesizer": "llama_index",
}

__all__ = [
    "AlignedChatModel",
    "AlignedLLM",
    "Aligner",
    "AlignerChatEngine",
    "AlignerFunctionAgent",
    "AlignerMiddleware",
    "AlignerPostprocessor",
    "AlignerQueryEngine",
    "AlignerRunnable",
    "AlignerSynthesizer",
    "CorrectWhen",
    "Correction",
    "CorrectionStats",
    "Edit",
    "GenerationOptions",
    "PromptFormat",
    "Turn",
    "__version__",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        value = getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
        globals()[name] = value
        return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
