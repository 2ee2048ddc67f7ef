"""Options of one correction, and the policies for what cannot be corrected."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from typing_extensions import TypedDict

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.gates import KINDS, Gate
from aligner_integrations.protect import check_protect

Policy = Literal["raise", "original", "refuse"]
"""What a caller gets when an answer cannot be corrected: the error, the answer, a refusal."""

StreamBy = Literal["token", "word", "sentence"]
"""How much of a correction a stream hands out at a time, at least."""

REFUSAL_TEXT = "I'm sorry, but I can't give you that answer."
"""What ``"refuse"`` puts in place of an answer that could not be corrected."""


def check_policy(name: str, value: str) -> None:
    """Raise `ConfigurationError` unless ``value`` is one of the three policies."""
    if value not in get_args(Policy):
        raise ConfigurationError(
            f"{name}={value!r} is not a policy; use one of "
            + ", ".join(repr(policy) for policy in get_args(Policy))
        )


@dataclass(frozen=True, slots=True)
class GenerationOptions:
    """How a correction is written, and what of an answer stays as it is.

    Args:
        max_new_tokens: Upper bound on the correction's tokens. ``"auto"`` allows twice the
            answer's length and 512 more, within the model's context. A correction that hits
            the bound is an error, never a cut text.
        temperature: 0 for greedy decoding (the default), otherwise the softmax temperature.
        top_p: Nucleus sampling: keep the smallest set of tokens whose probabilities add up
            to this. Only with ``temperature > 0``.
        seed: Seed of the random numbers; the same seed gives the same correction.
        strength: How eagerly to correct: from -1 (keep the answer rather) by way of 0 (as
            trained) to 1. All but 0 needs steering files beside the model's weights, which
            ``aligner scan MODEL --data TRIPLES --save`` makes.
        exact: Decide near-ties, where rounding could let a shared pass choose another token than
            plain decoding, as plain decoding does, in every dtype. Slower; see
            `aligner_integrations.decoding.exact`.
        on_overflow: What to do when question, answer and room for the correction exceed the
            model's context.
        protect: Parts of the answer that the correction keeps: ``"code"`` (fenced blocks and
            inline code), ``"urls"``, ``"citations"`` (``[1]``), ``"numbers"``, ``"tables"``
            (numbers in Markdown tables) and regular expressions. Where a correction that follows
            the answer comes to such a part, it is copied, whatever the model would have written.
            Where the model writes something else altogether, the part may be lost; then
            `Correction.lost` names it.
        pass_through: Kinds of answer that are not corrected: ``"json"`` (a JSON object or array
            and nothing else) and ``"code"`` (one fenced code block and nothing else).
        max_latency: Seconds that a correction may take, counted from when the answer is whole;
            what is late fails with `LatencyError`, to which ``on_error`` applies.
        stream_by: How much text a stream hands out at a time: each ``"token"``, whole
            ``"word"``s or whole ``"sentence"``s.

    Raises:
        ConfigurationError: A value is out of range.

    Example:
        >>> GenerationOptions(max_new_tokens=300).temperature
        0.0
    """

    max_new_tokens: int | Literal["auto"] = "auto"
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    strength: float = 0.0
    exact: bool = False
    on_overflow: Policy = "raise"
    protect: tuple[str, ...] = ()
    pass_through: tuple[str, ...] = ("json", "code")
    max_latency: float | None = None
    stream_by: StreamBy = "token"

    def __post_init__(self) -> None:
        if self.max_new_tokens != "auto" and not _is_int(self.max_new_tokens, 1):
            raise ConfigurationError(
                f"max_new_tokens={self.max_new_tokens!r} must be 'auto' or an int of at least 1"
            )
        if not (_is_number(self.temperature) and 0 <= self.temperature < float("inf")):
            raise ConfigurationError(
                f"temperature={self.temperature!r} must be finite and at least 0 (0 is greedy)"
            )
        if not (_is_number(self.top_p) and 0 < self.top_p <= 1):
            raise ConfigurationError(f"top_p={self.top_p!r} must be above 0 and at most 1")
        if self.seed is not None and not _is_int(self.seed, 0):
            raise ConfigurationError(f"seed={self.seed!r} must be None or an int of at least 0")
        if not (_is_number(self.strength) and -1 <= self.strength <= 1):
            raise ConfigurationError(
                f"strength={self.strength!r} must be between -1 (keep the answer rather) and 1 "
                "(correct eagerly)"
            )
        if not isinstance(self.exact, bool):
            raise ConfigurationError(f"exact={self.exact!r} must be True or False")
        check_policy("on_overflow", self.on_overflow)
        object.__setattr__(self, "protect", check_protect(self.protect))
        object.__setattr__(self, "pass_through", _check_kinds(self.pass_through))
        if self.max_latency is not None and not (
            _is_number(self.max_latency) and self.max_latency > 0
        ):
            raise ConfigurationError(
                f"max_latency={self.max_latency!r} must be a number of seconds above 0, or None"
            )
        if self.stream_by not in get_args(StreamBy):
            raise ConfigurationError(
                f"stream_by={self.stream_by!r} must be one of "
                + ", ".join(repr(unit) for unit in get_args(StreamBy))
            )

    @classmethod
    def coerce(cls, value: GenerationOptions | dict[str, Any] | None) -> GenerationOptions:
        """Take options as they are, as a dict of their fields, or as None for the defaults."""
        if value is None:
            return cls()
        if isinstance(value, cls):
            return value
        if not isinstance(value, dict):
            raise ConfigurationError(
                f"options of type {type(value).__name__} are neither GenerationOptions nor a dict"
            )
        unknown = sorted(set(value) - {field.name for field in fields(cls)})
        if unknown:
            raise ConfigurationError(
                f"unknown option {unknown[0]!r}; known are "
                + ", ".join(field.name for field in fields(cls))
            )
        return cls(**value)

    def to_dict(self) -> dict[str, Any]:
        """Plain data; `coerce` reads it."""
        return {
            key: list(value) if isinstance(value, tuple) else value
            for key, value in asdict(self).items()
        }

    def override(self, **changes: Any) -> GenerationOptions:
        """The same options, but for those changes that are not None."""
        chosen = {key: value for key, value in changes.items() if value is not None}
        return replace(self, **chosen) if chosen else self


Options = GenerationOptions | dict[str, Any] | None
"""Options as callers give them; None for those that the aligner has."""


class BatchArguments(TypedDict, total=False):
    """What can be said of corrections.

    Attributes:
        options: How to write it; by default the aligner's options.
        on_error: What to return when correcting fails: ``"raise"`` the error, the ``"original"``
            answer, or ``"refuse"``.
        on_overflow: The same for a pair that does not fit the context; by default what the
            options say (``"raise"``).
        correct_when: A gate: a function of question and answer, or a `CorrectWhen`. An answer for
            which it is closed comes back as it is.
        protect: In place of the options' own.
        max_latency: In place of the options' own.
        strength: In place of the options' own.
    """

    options: Options
    on_error: Policy
    on_overflow: Policy | None
    correct_when: Gate | dict[str, Any] | None
    protect: Sequence[str] | None
    max_latency: float | None
    strength: float | None


class CallArguments(BatchArguments, total=False):
    """What can be said of one correction: `BatchArguments`, and its tags.

    Attributes:
        tags: The request's tags, for a gate that asks for them.
    """

    tags: Collection[str]


def _check_kinds(kinds: Collection[str]) -> tuple[str, ...]:
    listed = isinstance(kinds, Collection) and not isinstance(kinds, str)
    unknown = [kind for kind in kinds if kind not in [*KINDS]] if listed else [kinds]
    if unknown:
        wrong = unknown[0]
        raise ConfigurationError(
            f"pass_through={wrong!r} must be a list of {', '.join(map(repr, KINDS))}"
        )
    return tuple(kinds)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
