"""The fields that the LangChain adapters share: a `CorrectionStep`, and where its question is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.load.serializable import (
    Serializable,
    SerializedConstructor,
    SerializedNotImplemented,
)
from langchain_core.messages import BaseMessage
from pydantic import ConfigDict, Field, SkipValidation

from aligner_integrations.aligner import Aligner
from aligner_integrations.conversation import History, check_history, find_question
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.gates import CorrectWhen, Gate, read_gate
from aligner_integrations.langchain.questions import (
    QuestionFunction,
    as_question,
    last_human_text,
    read_turns,
)
from aligner_integrations.options import GenerationOptions, Policy
from aligner_integrations.protect import check_protect
from aligner_integrations.step import CorrectionStep


class StepFields(Serializable):
    """Fields of a `CorrectionStep`, plain data but for the loaded aligner.

    Args:
        aligner: A loaded aligner; by default the one that ``model`` names is loaded on first use
            and shared by the whole process.
        model: What `Aligner.from_pretrained` takes; by default the bundled model.
        load_options: Further arguments of `Aligner.from_pretrained`, such as ``device``.
        question: The question: a str, or a function of the messages that the LLM was asked; by
            default as ``history`` says.
        history: Which turns the question holds: the user's ``"last"``, ``"all"``, or those that a
            function picks from the messages that the LLM was asked.
        on_error: What to hand on when correcting fails: ``"raise"``, ``"original"`` or
            ``"refuse"``. A question that can't be found always raises.
        on_overflow: The same for what does not fit the context; by default as the options say.
        options: How to write corrections.
        correct_when: A gate: a function of question and answer, a `CorrectWhen`, or a dict of its
            conditions.
        protect: Parts of an answer to keep; see `GenerationOptions`.
        max_latency: Seconds that a correction may take; see `GenerationOptions`.
        strength: How eagerly to correct, from -1 to 1; see `GenerationOptions`.
    """

    aligner: SkipValidation[Aligner | None] = Field(default=None, exclude=True, repr=False)
    model: str | None = None
    load_options: dict[str, Any] = Field(default_factory=dict)
    question: str | Callable[[list[BaseMessage]], str] | None = None
    history: SkipValidation[History] = "last"
    on_error: Policy = "raise"
    on_overflow: Policy | None = None
    options: SkipValidation[GenerationOptions | None] = None
    correct_when: SkipValidation[Gate | None] = None
    protect: tuple[str, ...] | None = None
    max_latency: float | None = None
    strength: float | None = None

    model_config = ConfigDict(arbitrary_types_allowed=True)

    def __init__(self, **kwargs: Any) -> None:
        # Checked here, not in validators: pydantic would wrap our errors in its own, and pass over
        # arguments that it does not know, where a guard must not be left half set up.
        known = type(self).model_fields
        if unknown := [key for key in kwargs if key not in known]:
            raise ConfigurationError(
                f"{unknown[0]!r} is no argument here; known are {', '.join(known)}"
            )
        CorrectionStep(
            **{key: kwargs[key] for key in _STEP if kwargs.get(key) is not None},
        )
        check_history(kwargs.get("history", "last"))
        if kwargs.get("options") is not None:
            kwargs["options"] = GenerationOptions.coerce(kwargs["options"])
        if kwargs.get("protect") is not None:
            kwargs["protect"] = check_protect(kwargs["protect"])
        if kwargs.get("correct_when") is not None:
            kwargs["correct_when"] = read_gate(kwargs["correct_when"])
        if kwargs.get("load_options") is None:
            kwargs.pop("load_options", None)
        super().__init__(**kwargs)

    @property
    def step(self) -> CorrectionStep:
        """What the fields say now."""
        return CorrectionStep(**{key: getattr(self, key) for key in _STEP})

    def read_question(self, messages: Sequence[BaseMessage]) -> str:
        """The question in the messages that the LLM was asked.

        Raises:
            QuestionNotFoundError: There is none.
        """
        if isinstance(self.question, str):
            return self.question
        return as_question(self.question_reader()(list(messages)))

    def question_reader(self) -> QuestionFunction:
        """What finds the question in messages."""
        if callable(self.question):
            return self.question
        if self.history == "last":
            return last_human_text
        step, history = self.step, self.history
        return lambda messages: find_question(messages, history, read_turns, step.render)

    @classmethod
    def is_lc_serializable(cls) -> bool:
        """LangChain's ``dumps`` and ``loads`` work, with plain arguments."""
        return True

    @property
    def lc_attributes(self) -> dict[str, Any]:
        """Plain data for what is not plain: options, gate, and a loaded aligner's arguments."""
        attributes: dict[str, Any] = {}
        if self.options is not None:
            attributes["options"] = self.options.to_dict()
        if isinstance(self.correct_when, CorrectWhen):
            attributes["correct_when"] = self.correct_when.to_dict()
        if self.aligner is not None and self.aligner.source is not None:
            attributes.update(self.step.source())
        return attributes

    def to_json(self) -> SerializedConstructor | SerializedNotImplemented:
        """An aligner that was built from a loaded model has no arguments to write down."""
        if self.aligner is not None and self.aligner.source is None:
            return self.to_json_not_implemented()
        return super().to_json()


_STEP = (
    "aligner",
    "model",
    "load_options",
    "on_error",
    "on_overflow",
    "options",
    "correct_when",
    "protect",
    "max_latency",
    "strength",
)


def check_question(question: Any, question_key: Any) -> None:
    """Raise `ConfigurationError` where two things say what the question is."""
    if question is not None and question_key is not None:
        raise ConfigurationError(
            f"question={question!r} and question_key={question_key!r} exclude each other"
        )
