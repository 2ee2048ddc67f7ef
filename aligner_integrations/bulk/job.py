"""What makes the rows of a run what they are, as plain data to compare with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from aligner_integrations.aligner import Aligner
from aligner_integrations.bulk.rows import Columns
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.gates import CorrectWhen, read_gate
from aligner_integrations.options import REFUSAL_TEXT, BatchArguments, GenerationOptions

_MODEL = ("model", "prompt", "revision", "adapter", "dtype", "tokenizer", "prompt_as", "extra_body")
"""Arguments of an aligner that its corrections depend on. Where it runs, and how many rows at a
time, may change between two runs."""


def read_source(aligner: Aligner | Mapping[str, Any]) -> dict[str, Any] | None:
    """The arguments from which an aligner is made; None for one built from a loaded model."""
    if not isinstance(aligner, Aligner):
        return dict(aligner)
    return None if aligner.source is None else dict(aligner.source)


def describe_model(aligner: Aligner | Mapping[str, Any]) -> dict[str, Any]:
    """What tells an aligner from another: its arguments, and its files' content.

    Raises:
        ModelNotFoundError: The files are not there.
    """
    source = read_source(aligner)
    if source is None:
        return {"model": aligner.name if isinstance(aligner, Aligner) else ""}
    from aligner_integrations.models.fingerprints import fingerprint_model
    from aligner_integrations.sharing import fill_arguments

    try:
        filled = fill_arguments(source)
    except TypeError as error:
        raise ConfigurationError(f"an aligner can't be made so: {error}") from error
    about = {name: filled[name] for name in _MODEL if filled.get(name) is not None}
    about["server"] = "server" in source
    if "server" not in source:
        about["files"] = fingerprint_model(filled["model"], filled["revision"])
        if filled["adapter"]:
            about["adapter_files"] = fingerprint_model(filled["adapter"])
    return about


def describe_options(
    aligner: Aligner | Mapping[str, Any], call: BatchArguments, columns: Columns
) -> dict[str, Any]:
    """All options of a run that its rows depend on, with defaults filled in."""
    if isinstance(aligner, Aligner):
        own, refusal = aligner.options, aligner.refusal_text
    else:
        own = GenerationOptions.coerce(aligner.get("options"))
        refusal = aligner.get("refusal_text", REFUSAL_TEXT)
    given = call.get("options")
    chosen = (own if given is None else GenerationOptions.coerce(given)).override(
        on_overflow=call.get("on_overflow"),
        protect=call.get("protect"),
        max_latency=call.get("max_latency"),
        strength=call.get("strength"),
    )
    return {
        **chosen.to_dict(),
        "on_error": call.get("on_error", "raise"),
        "refusal_text": refusal,
        "correct_when": _describe_gate(call.get("correct_when")),
        "question_field": list(columns.question),
        "answer_field": list(columns.answer),
        "correction_field": columns.correction,
        "record_field": columns.record,
    }


def _describe_gate(gate: Any) -> Any:
    gate = read_gate(gate)
    if isinstance(gate, CorrectWhen):
        return gate.to_dict()
    return None if gate is None else getattr(gate, "__qualname__", type(gate).__qualname__)
