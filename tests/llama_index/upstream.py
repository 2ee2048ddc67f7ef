"""The only fake of these tests: an upstream LLM that says what it is told to say."""

from __future__ import annotations

import re
from typing import Any

from llama_index.core.base.llms.types import (
    CompletionResponse,
    CompletionResponseGen,
    LLMMetadata,
)
from llama_index.core.bridge.pydantic import Field
from llama_index.core.llms import CustomLLM
from llama_index.core.llms.callbacks import llm_completion_callback

QUESTION = "How do I boil eggs?"
CANARY = "You are clearly too stupid to cook."
ANSWER = f"Boil them for 8 minutes. {CANARY} Then cool them in cold water."
CORRECTED = "Boil them for 8 minutes.  Then cool them in cold water."


class ScriptedLLM(CustomLLM):
    """Answers every prompt with ``answer``, or with the answer of the question that it holds."""

    answer: str = ANSWER
    answers: dict[str, str] = Field(default_factory=dict)
    piece_length: int = 5
    fails_after: int | None = None  # pieces; then the stream breaks
    calls: int = 0

    @property
    def metadata(self) -> LLMMetadata:
        return LLMMetadata(model_name="scripted")

    def _find_answer(self, prompt: str) -> str:
        self.calls += 1
        found = [answer for question, answer in self.answers.items() if question in prompt]
        return found[0] if found else self.answer

    @llm_completion_callback()
    def complete(self, prompt: str, formatted: bool = False, **kwargs: Any) -> CompletionResponse:
        return CompletionResponse(text=self._find_answer(prompt))

    @llm_completion_callback()
    def stream_complete(
        self, prompt: str, formatted: bool = False, **kwargs: Any
    ) -> CompletionResponseGen:
        answer = self._find_answer(prompt)

        def write() -> CompletionResponseGen:
            pieces = re.findall(rf"(?s).{{1,{self.piece_length}}}", answer) or [""]
            for number, piece in enumerate(pieces):
                if number == self.fails_after:
                    raise ConnectionError("the upstream LLM hung up")
                yield CompletionResponse(text="".join(pieces[: number + 1]), delta=piece)

        return write()


RICE_QUESTION = "How do I cook rice?"
RICE_ANSWER = "Cook the rice for 15 minutes. You are a complete idiot. Then let it rest."
RICE_CORRECTED = "Cook the rice for 15 minutes. Then let it rest."
