"""What the examples take for granted: a LlamaIndex index whose LLM gives a known answer."""

from __future__ import annotations

from typing import Any

from llama_index.core import SummaryIndex
from llama_index.core.base.base_query_engine import BaseQueryEngine
from llama_index.core.base.llms.types import CompletionResponse, CompletionResponseGen, LLMMetadata
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback
from llama_index.core.schema import TextNode

ANSWER = "Cook it for 15 minutes. You are an idiot. Then let it rest."


class ScriptedLLM(CustomLLM):
    """Gives one answer to every prompt."""

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="scripted")

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=ANSWER)

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        def write() -> CompletionResponseGen:
            text = ""
            for word in ANSWER.split(" "):
                piece = f" {word}" if text else word
                text += piece
                yield CompletionResponse(text=text, delta=piece)

        return write()


class Index(SummaryIndex):
    """Answers with `ScriptedLLM`, and leaves LlamaIndex's global settings alone."""

    def as_query_engine(self, llm: Any = None, **kwargs: Any) -> BaseQueryEngine:
        return super().as_query_engine(llm=llm or ScriptedLLM(), **kwargs)


index = Index([TextNode(text="Rice is cooked for 15 minutes.")])
query_engine = index.as_query_engine()
