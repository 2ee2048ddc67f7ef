"""Who answers the questions: chat models, local models, answers that were recorded."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.evaluation.config import LOCAL, UpstreamConfig
from aligner_integrations.evaluation.judges.models import describe_model
from aligner_integrations.evaluation.local import LocalUpstream
from aligner_integrations.evaluation.records import Sample
from aligner_integrations.evaluation.store import Failure
from aligner_integrations.training.data.asking import UnusableReply, ask_together, check_reply
from aligner_integrations.training.data.corrections import read_answers

if TYPE_CHECKING:
    from langchain_core.messages import BaseMessage
    from langchain_core.runnables import Runnable

_SECRET = re.compile(r"api_?key|secret|password|headers|auth|access_token", re.IGNORECASE)


class Upstream(Protocol):
    """Whoever answers.

    Attributes:
        name: Its name in the report.
        identity: All that its answers depend on, as plain data: they are kept by it. None where
            they need not be kept.
    """

    name: str
    identity: Mapping[str, Any] | None

    def covers(self, sample: Sample) -> bool:
        """Whether it can have an answer at all; samples that it does not cover make no case."""
        ...

    def answer(self, samples: Sequence[Sample]) -> Iterator[tuple[int, str | Failure]]:
        """Answers, each with its sample's index, as they are there."""
        ...

    def close(self) -> None:
        """Free what it holds."""
        ...


class RecordedUpstream:
    """Answers that are there already: the dataset's own, or those of a file.

    Args:
        name: Its name in the report.
        path: Rows with ``question`` and ``answer``, such as ``aligner data sample`` writes; None
            for the answers that come with the samples.

    Raises:
        DataError: A row is broken.
    """

    identity: Mapping[str, Any] | None = None

    def __init__(self, name: str, path: str | Path | None = None) -> None:
        self.name = name
        self.path = path
        self._answers: dict[str, str] = {}
        for row in read_answers(path) if path is not None else ():
            self._answers.setdefault(row["question"], row["answer"])

    def covers(self, sample: Sample) -> bool:
        """Whether there is an answer, or should be one."""
        return self.path is not None or sample.answer is not None

    def answer(self, samples: Sequence[Sample]) -> Iterator[tuple[int, str | Failure]]:
        """The answers, looked up."""
        for index, sample in enumerate(samples):
            found = self._answers.get(sample.question) if self.path else sample.answer
            yield index, found if found is not None else Failure(f"{self.path} has no answer to it")

    def close(self) -> None:
        """Nothing to free."""


class ChatUpstream:
    """A LangChain chat model.

    Args:
        name: Its name in the report.
        llm: The model.
        system: A system message before each question.
        concurrency: Questions that are asked together.
        identity: What its answers depend on beside the system message.
    """

    def __init__(
        self,
        name: str,
        llm: Runnable[Any, Any],
        *,
        system: str | None = None,
        concurrency: int = 8,
        identity: Mapping[str, Any] | None = None,
    ) -> None:
        self.name = name
        self.llm = llm
        self.system = system
        self.concurrency = concurrency
        self.identity: Mapping[str, Any] | None = {
            "llm": dict(identity or describe_model(llm)),
            "system": system,
        }

    def covers(self, sample: Sample) -> bool:
        """It can answer anything."""
        return True

    def answer(self, samples: Sequence[Sample]) -> Iterator[tuple[int, str | Failure]]:
        """Ask, several questions at a time."""
        from langchain_core.messages import HumanMessage, SystemMessage

        first: list[BaseMessage] = [SystemMessage(self.system)] if self.system else []
        inputs = [[*first, HumanMessage(sample.question)] for sample in samples]
        for index, reply in ask_together(self.llm, inputs, self.concurrency):
            yield index, read_reply(reply)

    def close(self) -> None:
        """Nothing to free."""


def load_upstream(
    config: UpstreamConfig, *, models: Mapping[str, Any], concurrency: int, seed: int
) -> Upstream:
    """The upstream that a config names.

    Args:
        config: What to load.
        models: Chat models by the name that configs call them.
        concurrency: Questions that are asked together.
        seed: Of drawn answers.

    Raises:
        ConfigurationError: A model can't be used.
        DataError: A recorded answer is broken.
    """
    if config.model is None:
        return RecordedUpstream(config.label, config.recorded)
    if config.model.startswith(LOCAL):
        return LocalUpstream(
            config.label,
            config.model.removeprefix(LOCAL),
            options=config.options,
            system=config.system,
            seed=seed,
        )
    llm = load_llm(config.model, config.options, models)
    identity = describe_llm(llm, config.model, config.options)
    if identity.get("temperature") != 0:  # another seed, other answers
        identity["draw"] = seed
    return ChatUpstream(
        config.label, llm, system=config.system, concurrency=concurrency, identity=identity
    )


def load_llm(name: str, options: Mapping[str, Any], models: Mapping[str, Any]) -> Any:
    """A chat model from ``models``, or by its name.

    Raises:
        ConfigurationError: It can't be used.
    """
    from aligner_integrations.langchain.loading import load_chat_model

    if name not in models:
        return load_chat_model(name, **options)
    if options:
        raise ConfigurationError(
            f"the model {name!r} was handed over and takes no options ({', '.join(options)}); set "
            "them where it is made"
        )
    return models[name]


def describe_llm(llm: Any, name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """What a chat model's replies depend on, as far as is known; no keys."""
    return {**describe_model(llm), "called": name, "options": hide_secrets(options)}


def hide_secrets(options: Any) -> Any:
    """Plain data without what gives access to something.

    Example:
        >>> hide_secrets({"temperature": 0, "api_key": "abc"})
        {'temperature': 0}
    """
    if isinstance(options, Mapping):
        return {k: hide_secrets(v) for k, v in options.items() if not _SECRET.search(str(k))}
    if isinstance(options, (list, tuple)):
        return [hide_secrets(one) for one in options]
    return options if isinstance(options, (str, int, float, type(None))) else str(options)


def read_reply(reply: Any) -> str | Failure:
    """The text of a chat model's reply, or why there is none."""
    if isinstance(reply, BaseException):
        return Failure.from_error(reply)
    try:
        return check_reply("answer", reply if isinstance(reply, str) else str(reply.text))
    except UnusableReply as reason:
        return Failure(str(reason))
