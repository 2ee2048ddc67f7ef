"""What a chat model's methods take and give, on the way in from the wrapped one and out again."""

from __future__ import annotations

from typing import Any

from langchain_core.messages import AIMessage, AIMessageChunk
from langchain_core.outputs import ChatGeneration, ChatGenerationChunk, ChatResult, LLMResult

from aligner_integrations.correction import Correction
from aligner_integrations.errors import InputTypeError
from aligner_integrations.langchain.answers import Answer
from aligner_integrations.langchain.spelled import without_raw

_RUN_ID = "lc_run-"


def read_result(result: LLMResult) -> ChatResult:
    """The generations of one call of `BaseChatModel.generate`."""
    generations = [
        generation.model_copy(update={"message": as_answer(generation.message)})
        for generation in result.generations[0]
        if isinstance(generation, ChatGeneration)
    ]
    # LangChain puts these into the message too, which has all that are not empty already.
    output = {key: value for key, value in (result.llm_output or {}).items() if value}
    return ChatResult(generations=generations, llm_output=output)


def read_message(message: Any) -> ChatResult:
    """The one generation of a runnable."""
    return ChatResult(generations=[ChatGeneration(message=as_answer(message))])


def as_answer(message: Any) -> AIMessage:
    """A message as the answer of another run: the run's id, if it has that, is not its own.

    Raises:
        InputTypeError: The wrapped model gave something else.
    """
    if not isinstance(message, AIMessage):
        raise InputTypeError(
            f"the wrapped model answered with a {type(message).__name__}, not an AIMessage; "
            "AlignedChatModel takes chat models, for others use llm | AlignerRunnable()"
        )
    if message.id is not None and message.id.startswith(_RUN_ID):
        return message.model_copy(update={"id": None})
    return message


def as_chunk(message: Any) -> AIMessageChunk:
    """The same as a chunk; a model that can't stream gives a whole message."""
    message = as_answer(message)
    if isinstance(message, AIMessageChunk):
        return message
    fields = message.model_dump(exclude={"type"})
    return AIMessageChunk(**fields, chunk_position="last")


def as_generation(chunk: AIMessageChunk) -> ChatGenerationChunk:
    """A chunk in the form in which a chat model streams it."""
    return ChatGenerationChunk(message=chunk)


def replace_answers(
    raw: ChatResult, todo: list[tuple[int, Answer]], corrections: list[Correction]
) -> ChatResult:
    """The result with corrected messages in place of those that had something to correct."""
    generations, output = list(raw.generations), raw.llm_output
    for (index, answer), correction in zip(todo, corrections, strict=True):
        info = without_raw(generations[index].generation_info or {}, correction)
        output = output and without_raw(output, correction)
        message = answer.replace(correction)
        generations[index] = ChatGeneration(message=message, generation_info=info or None)
    return ChatResult(generations=generations, llm_output=output)


def is_structured(kwargs: dict[str, Any]) -> bool:
    """Whether a call asks the provider for structured output."""
    wanted = kwargs.get("response_format")
    if isinstance(wanted, dict) and wanted.get("type") == "text":  # plain text, said explicitly
        wanted = None
    return bool(wanted or kwargs.get("ls_structured_output_format"))
