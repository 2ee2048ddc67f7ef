"""Options of one correction, and the policies for what cannot be corrected."""

from __future__ import annotations

from dataclasses import asdict, dataclass, fields, replace
from typing import Any, Literal, get_args

from aligner_integrations.errors import ConfigurationError

Policy = Literal["raise", "original", "refuse"]
"""What a caller gets when an answer cannot be corrected: the error, the answer, a refusal."""

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
    """How a correction is written.

    Args:
        max_new_tokens: Upper bound on the correction's tokens. ``"auto"`` allows twice the
            answer's length and 512 more, within the model's context. A correction that hits
            the bound is an error, never a cut text.
        temperature: 0 for greedy decoding (the default), otherwise the softmax temperature.
        top_p: Nucleus sampling: keep the smallest set of tokens whose probabilities add up
            to this. Only with ``temperature > 0``.
        seed: Seed of the random numbers; the same seed gives the same correction.
        strength: Correction strength; 0 is the model as trained. Other values need a control
            direction saved with the model.
        exact: Decide near-ties, where rounding could let a shared pass choose another token than
            plain decoding, as plain decoding does, in every dtype. Slower; see
            `aligner_integrations.decoding.exact`.
        on_overflow: What to do when question, answer and room for the correction exceed the
            model's context.

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
            raise ConfigurationError(f"strength={self.strength!r} must be between -1 and 1")
        if not isinstance(self.exact, bool):
            raise ConfigurationError(f"exact={self.exact!r} must be True or False")
        check_policy("on_overflow", self.on_overflow)

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
        return asdict(self)

    def with_overflow(self, policy: Policy | None) -> GenerationOptions:
        """The same options, with ``on_overflow`` set unless ``policy`` is None."""
        return self if policy is None else replace(self, on_overflow=policy)


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _is_int(value: object, least: int) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= least
