"""Structured predictions of an `AlignedLLM`: they go to the wrapped LLM, uncorrected."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import Any

from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.llms.llm import LLM
from llama_index.core.llms.structured_llm import StructuredLLM
from llama_index.core.prompts import PromptTemplate


class StructuredPassThrough:
    """What fills the fields of a class is data, which a correction of its text would break."""

    llm: LLM

    def structured_predict(
        self, output_cls: type[BaseModel], prompt: PromptTemplate, *args: Any, **kwargs: Any
    ) -> BaseModel:
        """The wrapped LLM's prediction."""
        return self.llm.structured_predict(output_cls, prompt, *args, **kwargs)

    async def astructured_predict(
        self, output_cls: type[BaseModel], prompt: PromptTemplate, *args: Any, **kwargs: Any
    ) -> BaseModel:
        """The wrapped LLM's prediction."""
        return await self.llm.astructured_predict(output_cls, prompt, *args, **kwargs)

    def stream_structured_predict(
        self, output_cls: type[BaseModel], prompt: PromptTemplate, *args: Any, **kwargs: Any
    ) -> Generator[Any, None, None]:
        """The wrapped LLM's predictions."""
        predictions: Generator[Any, None, None] = self.llm.stream_structured_predict(
            output_cls, prompt, *args, **kwargs
        )
        return predictions

    async def astream_structured_predict(
        self, output_cls: type[BaseModel], prompt: PromptTemplate, *args: Any, **kwargs: Any
    ) -> AsyncGenerator[Any, None]:
        """The wrapped LLM's predictions."""
        predictions: AsyncGenerator[Any, None] = await self.llm.astream_structured_predict(
            output_cls, prompt, *args, **kwargs
        )
        return predictions

    def as_structured_llm(self, output_cls: type[BaseModel], **kwargs: Any) -> StructuredLLM:
        """The wrapped LLM in structured form."""
        return self.llm.as_structured_llm(output_cls, **kwargs)
