"""`CorrectionStep`: what every adapter shares. Which aligner corrects what, and how."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterable, Collection, Iterable, Sequence
from dataclasses import dataclass
from inspect import signature
from typing import Any

from typing_extensions import TypedDict

from aligner_integrations.aligner import Aligner
from aligner_integrations.batches import Pair
from aligner_integrations.conversation import Turn
from aligner_integrations.correction import Correction
from aligner_integrations.engines.base import ReadAhead
from aligner_integrations.errors import ConfigurationError, InputTypeError
from aligner_integrations.gates import CorrectWhen, Gate, read_gate
from aligner_integrations.options import (
    BatchArguments,
    GenerationOptions,
    Options,
    Policy,
    check_policy,
)
from aligner_integrations.prompts import PromptFormat
from aligner_integrations.sharing import find_loader, load_shared
from aligner_integrations.streams import AsyncCorrectionStream, CorrectionStream

RECORD_KEY = "aligner"
"""Where `Correction.record` stands in the metadata of messages, nodes and responses."""


class StepArguments(TypedDict, total=False):
    """The arguments that every adapter takes beside its aligner; see `CorrectionStep`."""

    model: str | None
    load_options: dict[str, Any] | None
    on_error: Policy
    on_overflow: Policy | None
    options: Options
    correct_when: Gate | dict[str, Any] | None
    protect: Sequence[str] | None
    max_latency: float | None
    strength: float | None


@dataclass(frozen=True, slots=True)
class CorrectionStep:
    """An adapter's arguments, checked when the adapter is made rather than at its first answer.

    Args:
        aligner: A loaded aligner; by default the one that ``model`` names is loaded on first use
            and shared by the whole process.
        model: What `Aligner.from_pretrained` takes; by default the bundled model.
        load_options: Further arguments of `Aligner.from_pretrained`, such as ``device``; with
            ``server``, of `Aligner.from_server`.
        on_error: What a caller gets where correcting fails: ``"raise"`` the error, the
            ``"original"`` answer, or ``"refuse"``.
        on_overflow: The same for what does not fit the context; by default as the options say.
        options: How to write corrections; by default as the aligner's options say.
        correct_when: A gate: a function of question and answer, a `CorrectWhen`, or a dict of its
            conditions. Answers for which it is closed are handed on as they are.
        protect: Parts to keep, as in `GenerationOptions`.
        max_latency: Seconds that a correction may take, as in `GenerationOptions`.
        strength: How eagerly to correct, as in `GenerationOptions`.

    Raises:
        ConfigurationError: A value cannot work, or two of them contradict each other.
        InputTypeError: ``aligner`` is none.
    """

    aligner: Aligner | None = None
    model: str | None = None
    load_options: dict[str, Any] | None = None
    on_error: Policy = "raise"
    on_overflow: Policy | None = None
    options: Options = None
    correct_when: Gate | dict[str, Any] | None = None
    protect: Sequence[str] | None = None
    max_latency: float | None = None
    strength: float | None = None

    def __post_init__(self) -> None:
        if self.aligner is not None and not isinstance(self.aligner, Aligner):
            raise InputTypeError(
                f"aligner must be an Aligner, not {self.aligner!r:.80}; a model's name goes into "
                "model=..."
            )
        if self.aligner is not None and (self.model is not None or self.load_options):
            raise ConfigurationError(
                f"aligner={self.aligner!r} and model={self.model!r}, load_options="
                f"{self.load_options!r} are two aligners; pass one of them"
            )
        if self.model is not None and not isinstance(self.model, str):
            raise ConfigurationError(
                f"model={self.model!r:.80} must be a str, a model's name or directory; a loaded "
                "one goes into aligner=..."
            )
        check_policy("on_error", self.on_error)
        # One form of each, so that steps which do the same are equal.
        self._set(
            load_options=_read_load_options(self.load_options),
            correct_when=read_gate(self.correct_when),
        )
        chosen = GenerationOptions.coerce(self.options)
        if self.options is not None:
            self._set(options=chosen)
        chosen = chosen.override(
            on_overflow=self.on_overflow,
            protect=self.protect,
            max_latency=self.max_latency,
            strength=self.strength,
        )
        if self.protect is not None:
            self._set(protect=chosen.protect)

    def load(self) -> Aligner:
        """The aligner; every adapter of a process shares one copy of a model."""
        if self.aligner is not None:
            return self.aligner
        named = {} if self.model is None else {"model": self.model}
        return load_shared({**named, **(self.load_options or {})})

    async def aload(self) -> Aligner:
        """`load`, without blocking the event loop."""
        if self.aligner is not None:
            return self.aligner
        return await asyncio.to_thread(self.load)

    def correct(self, question: str, answer: str, tags: Collection[str] = ()) -> Correction:
        """See `Aligner.correct`."""
        return self.load().correct(question, answer, tags=tags, **self._call())

    async def acorrect(self, question: str, answer: str, tags: Collection[str] = ()) -> Correction:
        """See `Aligner.acorrect`."""
        return await (await self.aload()).acorrect(question, answer, tags=tags, **self._call())

    def stream(
        self,
        question: str,
        answer: str | Iterable[str],
        tags: Collection[str] = (),
        read_ahead: ReadAhead | None = None,
    ) -> CorrectionStream:
        """See `Aligner.stream`."""
        return self.load().stream(
            question, answer, tags=tags, read_ahead=read_ahead, **self._call()
        )

    async def astream(
        self,
        question: str,
        answer: str | Iterable[str] | AsyncIterable[str],
        tags: Collection[str] = (),
        read_ahead: ReadAhead | None = None,
    ) -> AsyncCorrectionStream:
        """See `Aligner.astream`; awaited, because the model may have to be loaded first."""
        aligner = await self.aload()
        return aligner.astream(question, answer, tags=tags, read_ahead=read_ahead, **self._call())

    def correct_batch(
        self,
        pairs: Sequence[Pair],
        tags: Sequence[Collection[str]] | None = None,
        *,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """See `Aligner.correct_batch`."""
        return self.load().correct_batch(
            pairs, tags=tags, return_exceptions=return_exceptions, **self._call()
        )

    async def acorrect_batch(
        self,
        pairs: Sequence[Pair],
        tags: Sequence[Collection[str]] | None = None,
        *,
        return_exceptions: bool = False,
    ) -> list[Any]:
        """See `Aligner.acorrect_batch`."""
        return await (await self.aload()).acorrect_batch(
            pairs, tags=tags, return_exceptions=return_exceptions, **self._call()
        )

    def read_ahead(self, question: str) -> ReadAhead | None:
        """`Aligner.read_ahead`, but None where an answer would be read ahead in vain."""
        aligner = self.load()
        options = aligner.options if self.options is None else self.options
        return None if GenerationOptions.coerce(options).exact else aligner.read_ahead(question)

    def render(self, turns: Sequence[Turn]) -> str:
        """See `Aligner.render`."""
        return self.load().render(turns)

    def to_dict(self) -> StepArguments:
        """Plain data, with which the same step can be made anew.

        Raises:
            ConfigurationError: The aligner was not made by `Aligner.from_pretrained`, or the gate
                is a function.
        """
        gate = read_gate(self.correct_when)
        if gate is not None and not isinstance(gate, CorrectWhen):
            raise ConfigurationError(
                f"correct_when={gate!r} is a function and can't be written down; use a CorrectWhen"
            )
        return {
            **self.source(),
            "on_error": self.on_error,
            "on_overflow": self.on_overflow,
            "options": None
            if self.options is None
            else GenerationOptions.coerce(self.options).to_dict(),
            "correct_when": None if gate is None else gate.to_dict(),
            "protect": None if self.protect is None else list(self.protect),
            "max_latency": self.max_latency,
            "strength": self.strength,
        }

    def source(self) -> StepArguments:
        """``model`` and ``load_options`` of the aligner, given or named.

        Raises:
            ConfigurationError: It was not made by `Aligner.from_pretrained`.
        """
        if self.aligner is None:
            return {"model": self.model, "load_options": self.load_options}
        if self.aligner.source is None:
            raise ConfigurationError(
                f"{self.aligner!r} was built from a loaded model and can't be written down; make "
                "it with Aligner.from_pretrained(...)"
            )
        source = dict(self.aligner.source)
        return {"model": source.pop("model"), "load_options": source}

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def _call(self) -> BatchArguments:
        return {
            "options": self.options,
            "on_error": self.on_error,
            "on_overflow": self.on_overflow,
            "correct_when": self.correct_when,
            "protect": self.protect,
            "max_latency": self.max_latency,
            "strength": self.strength,
        }


def _read_load_options(options: Any) -> dict[str, Any] | None:
    """Arguments of `Aligner.from_pretrained` or `from_server` beside the model, as plain data."""
    if options is None:
        return None
    if not isinstance(options, dict):
        raise ConfigurationError(
            f"load_options={options!r:.80} must be a dict of arguments of Aligner.from_pretrained"
        )
    known = [name for name in signature(find_loader(options)).parameters if name != "model"]
    if unknown := [name for name in options if name not in known]:
        raise ConfigurationError(
            f"load_options has {unknown[0]!r}, which is none of {', '.join(known)}; a model's "
            "name goes into model=..."
        )
    if options.get("api_key") is not None:  # they are written down with the adapter
        raise ConfigurationError(
            "load_options can't hold an api_key, because they are written down; set the variable "
            "ALIGNER_SERVER_KEY, or pass aligner=Aligner.from_server(...)"
        )
    plain = dict(options)
    if isinstance(plain.get("prompt"), PromptFormat):
        plain["prompt"] = plain["prompt"].to_dict()
    if plain.get("options") is not None:
        plain["options"] = GenerationOptions.coerce(plain["options"]).to_dict()
    return plain
