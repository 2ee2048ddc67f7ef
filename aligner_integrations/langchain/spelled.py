"""Metadata that spells the answer as it was before."""

from __future__ import annotations

from typing import Any

from aligner_integrations.correction import Correction

_THOUGHTS = ("reasoning", "thinking")


def without_raw(values: dict[str, Any], correction: Correction) -> dict[str, Any]:
    """What providers say about an answer, without what spells text that was corrected away.

    Tokens and their probabilities go, and copies of the answer or of parts of it, such as the
    segments that Gemini's grounding quotes or the transcript of a spoken answer. What the model
    thought stays.
    """
    if not correction.changed:
        return dict(values)
    kept = {}
    for key, value in values.items():
        thought = str(key).startswith(_THOUGHTS)
        if thought or not (_is_tokens(str(key), value) or _is_raw(value, correction)):
            kept[key] = value if thought else _clean(value, correction)
    return kept


def _clean(value: Any, correction: Correction) -> Any:
    if isinstance(value, dict):
        return without_raw(value, correction)
    if isinstance(value, (list, tuple)):
        return [_clean(item, correction) for item in value if not _is_raw(item, correction)]
    return value


def _is_tokens(key: str, value: Any) -> bool:
    """Whether it lists the answer's tokens, with or without their probabilities."""
    if "logprob" in key.lower():
        return not isinstance(value, (int, float))  # such as Gemini's avg_logprobs
    return isinstance(value, list) and key.endswith(("tokens", "token_ids")) and "prompt" not in key


def _is_raw(value: Any, correction: Correction) -> bool:
    """Whether a str holds the raw answer, or is a part of it that the correction lacks.

    Single words are taken for what they mostly are: names, ids, and reasons such as "stop".
    """
    answer = correction.answer.strip()
    if not isinstance(value, str):
        return False
    part, text = value.strip(), correction.text
    return (_is_prose(part) and part in answer and part not in text) or (
        _is_prose(answer) and answer in part
    )


def _is_prose(text: str) -> bool:
    return len(text.split(None, 1)) > 1 or not text.isascii()
