"""Whole chat completions: the text of each choice is corrected, everything else stays."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from aligner_integrations.correction import Correction
from aligner_integrations.server.content import (
    RAW_COPIES,
    is_tool_call,
    make_record,
    replace_text,
    split_content,
)
from aligner_integrations.step import RECORD_KEY, CorrectionStep


async def correct_completion(
    completion: dict[str, Any],
    step: CorrectionStep,
    question: str,
    tags: Collection[str],
) -> dict[str, Any]:
    """A completion with corrected texts.

    Args:
        completion: What the upstream answered.
        step: How to correct.
        question: What was asked.
        tags: The request's tags.

    Raises:
        AlignerError: As `Aligner.correct`.
    """
    answers = [_find_answer(choice["message"]) for choice in completion["choices"]]
    if not any(answers):
        return completion
    pairs = [(question, answer) for answer in answers if answer]
    corrections = iter(await step.acorrect_batch(pairs, tags=[tags] * len(pairs)))
    choices = []
    for choice, answer in zip(completion["choices"], answers, strict=True):
        if not answer:
            choices.append(choice)
            continue
        choices.append(_replace(choice, next(corrections)))
    kept = {key: value for key, value in completion.items() if key not in RAW_COPIES}
    return {**kept, "choices": choices}


def _find_answer(message: dict[str, Any]) -> str:
    return "" if is_tool_call(message) else split_content(message.get("content"))[0]


def _replace(choice: dict[str, Any], correction: Correction) -> dict[str, Any]:
    message = choice["message"]
    kept = dict(choice)
    if correction.changed:
        content = replace_text(message["content"], correction.text)
        message = {key: value for key, value in message.items() if key not in RAW_COPIES}
        message["content"] = content
        kept = {key: value for key, value in choice.items() if key not in RAW_COPIES | {"delta"}}
        if "logprobs" in choice:
            kept["logprobs"] = None
    return {**kept, "message": message, RECORD_KEY: make_record(correction)}
