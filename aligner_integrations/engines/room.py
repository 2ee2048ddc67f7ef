"""Room for a correction within the model's context."""

from __future__ import annotations

from aligner_integrations.errors import ContextOverflowError
from aligner_integrations.options import GenerationOptions
from aligner_integrations.tokenization import EncodedPrompt

ROOM_BEYOND_ANSWER = 32
"""Tokens that must be left beyond a full copy of the answer, or the context overflows."""


def find_limit(
    name: str, prompt: EncodedPrompt, context_length: int, options: GenerationOptions
) -> int:
    """Most output tokens, within the room that the context leaves.

    Args:
        name: The model's name, for the error.
        prompt: What it reads.
        context_length: Most tokens that it can hold.
        options: What was asked for.

    Raises:
        ContextOverflowError: There is no room for a copy of the answer.
    """
    answer = len(prompt.answer_ids)
    room = context_length - len(prompt.ids)
    if room < answer + ROOM_BEYOND_ANSWER:
        raise ContextOverflowError(
            f"the prompt has {len(prompt.ids)} tokens and its correction needs room for "
            f"{answer + ROOM_BEYOND_ANSWER}, but {name!r} has a context of {context_length}; "
            "shorten question or answer, use an aligner with a longer context, or set "
            "on_overflow='original' or 'refuse'"
        )
    wanted = 2 * answer + 512 if options.max_new_tokens == "auto" else options.max_new_tokens
    return min(wanted, room)
