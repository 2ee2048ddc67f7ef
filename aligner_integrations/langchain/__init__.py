"""LangChain: correct the answers of models, chains and agents."""

from typing import TYPE_CHECKING, Any

from aligner_integrations.imports import require

require("langchain_core", "langchain")

from aligner_integrations.langchain.chat_model import AlignedChatModel  # noqa: E402
from aligner_integrations.langchain.runnable import AlignerRunnable  # noqa: E402

if TYPE_CHECKING:
    from aligner_integrations.langchain.middleware import AlignerMiddleware

__all__ = ["AlignedChatModel", "AlignerMiddleware", "AlignerRunnable"]


def __getattr__(name: str) -> Any:
    if name == "AlignerMiddleware":  # needs langchain, where the others need its core alone
        from aligner_integrations.langchain.middleware import AlignerMiddleware

        return AlignerMiddleware
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
