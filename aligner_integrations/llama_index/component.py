"""`AligningComponent`: the fields of LlamaIndex components that correct."""

from __future__ import annotations

from typing import Any

from llama_index.core.bridge.pydantic import Field, PrivateAttr
from llama_index.core.schema import BaseComponent

from aligner_integrations.aligner import Aligner
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.gates import CorrectWhen
from aligner_integrations.llama_index.traced import TracedStep
from aligner_integrations.options import GenerationOptions, Policy
from aligner_integrations.step import CorrectionStep, StepArguments


class AligningComponent(BaseComponent):  # type: ignore[misc]
    """The arguments of a `CorrectionStep` as fields, which `to_dict` writes down."""

    model: str | None = Field(default=None, description="What to load; None: the bundled model.")
    load_options: dict[str, Any] | None = Field(
        default=None, description="Further arguments of Aligner.from_pretrained."
    )
    on_error: Policy = Field(default="raise", description="Policy where correcting fails.")
    on_overflow: Policy | None = Field(
        default=None, description="Policy for a text that does not fit the context."
    )
    options: dict[str, Any] | None = Field(
        default=None, description="GenerationOptions; None: the aligner's own."
    )
    correct_when: Any = Field(default=None, description="Gate: which answers are corrected.")
    protect: list[str] | None = Field(default=None, description="Parts of answers to keep.")
    max_latency: float | None = Field(default=None, description="Seconds for a correction.")
    strength: float | None = Field(default=None, description="How eagerly to correct, -1 to 1.")
    _aligner: Aligner | None = PrivateAttr(default=None)

    def to_dict(self, **kwargs: Any) -> dict[str, Any]:
        """Plain data; `from_dict` reads it and loads the same aligner.

        Raises:
            ConfigurationError: The aligner was not made by `Aligner.from_pretrained`, or the gate
                is a function.
        """
        written = self._step().to_dict()
        data: dict[str, Any] = super().to_dict(**kwargs)
        return {**data, **written}

    def _step(self) -> CorrectionStep:
        """What the fields say now; LlamaIndex components may be changed after they were made."""
        given = self._aligner is not None
        return CorrectionStep(
            self._aligner,
            model=None if given else self.model,
            load_options=None if given else self.load_options,
            on_error=self.on_error,
            on_overflow=self.on_overflow,
            options=self.options,
            correct_when=self.correct_when,
            protect=self.protect,
            max_latency=self.max_latency,
            strength=self.strength,
        )

    def _traced(self) -> TracedStep:
        return TracedStep(self.class_name(), self._step())

    def __getstate__(self) -> dict[str, Any]:
        self._step().source()  # without it, a copy would silently correct with the bundled model
        fields = dict(self.__dict__)
        state: dict[str, Any] = super().__getstate__()
        kept = dict(state["__dict__"])
        self.__dict__.update(fields)  # LlamaIndex drops what can't be pickled from us as well
        if lost := sorted(set(fields) - set(kept) - {"callback_manager"}):
            raise ConfigurationError(
                f"{lost[0]}={fields[lost[0]]!r:.80} can't be pickled, so this "
                f"{self.class_name()} can't; give it one that can, or make it anew there"
            )
        private = {**(state["__pydantic_private__"] or {}), "_aligner": None}  # loaded again
        return {**state, "__dict__": kept, "__pydantic_private__": private}


def make_fields(aligner: Aligner | None, step: StepArguments) -> dict[str, Any]:
    """An adapter's arguments, checked, as the fields of an `AligningComponent`.

    Raises:
        ConfigurationError: A value cannot work, or two of them contradict each other.
        InputTypeError: ``aligner`` is none.
    """
    checked = CorrectionStep(aligner, **step)
    options, gate = checked.options, checked.correct_when
    if aligner is None or aligner.source is None:
        source: StepArguments = {"model": checked.model, "load_options": checked.load_options}
    else:
        source = checked.source()
    return {
        **step,
        **source,
        "options": None if options is None else GenerationOptions.coerce(options).to_dict(),
        "correct_when": gate.to_dict() if isinstance(gate, CorrectWhen) else gate,
        "protect": None if checked.protect is None else list(checked.protect),
    }
