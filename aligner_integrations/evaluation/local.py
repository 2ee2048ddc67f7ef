"""Chat models that answer in this process."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aligner_integrations.configs import build_config
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.evaluation.records import Sample, make_key
from aligner_integrations.evaluation.store import Failure
from aligner_integrations.models.fingerprints import fingerprint_model
from aligner_integrations.training.data.asking import UnusableReply, check_reply

if TYPE_CHECKING:
    from aligner_integrations.training.baselines.upstream import Upstream as LocalModel


class LocalUpstream:
    """A chat model of transformers in this process, one question at a time unless told otherwise.

    Args:
        name: Its name in the report.
        model: Bundled name, directory or hub id.
        options: Fields of `SamplingConfig`, by default the likeliest tokens; and ``device``,
            ``dtype``.
        system: A system message before each question.
        seed: Of drawn answers; each question has its own draw, whatever was asked before it.

    Raises:
        ConfigurationError: An option is unknown.
        ModelNotFoundError: There is no such model.
    """

    def __init__(
        self,
        name: str,
        model: str,
        *,
        options: Mapping[str, Any] | None = None,
        system: str | None = None,
        seed: int = 0,
    ) -> None:
        from aligner_integrations.training.baselines.config import SamplingConfig

        given = dict(options or {})
        self._load = {key: given.pop(key) for key in ("device", "dtype") if key in given}
        defaults = {"temperature": 0.0, "batch": 1}
        self.sampling = build_config(SamplingConfig, defaults | given, f"options of {name!r}")
        self.name = name
        self.model = model
        self.system = system
        self.seed = seed
        self._loaded: LocalModel | None = None
        self.identity: Mapping[str, Any] | None = {
            "weights": fingerprint_model(model),
            "sampling": asdict(self.sampling),
            "load": self._load,
            "system": system,
            "seed": seed if self.sampling.temperature else None,
        }

    def covers(self, sample: Sample) -> bool:
        """It can answer anything."""
        return True

    def answer(self, samples: Sequence[Sample]) -> Iterator[tuple[int, str | Failure]]:
        """Answer; the model is loaded with the first question."""
        # Answers that are drawn must not depend on the questions that share their batch.
        size = 1 if self.sampling.temperature else self.sampling.batch
        for start in range(0, len(samples), size):
            portion = [sample.question for sample in samples[start : start + size]]
            for offset, answer in enumerate(self._answer(portion)):
                yield start + offset, answer

    def ask(self, prompt: str) -> str:
        """One reply.

        Raises:
            ConfigurationError: The prompt is too long.
        """
        from aligner_integrations.training.baselines.upstream import load_upstream

        if self._loaded is None:
            self._loaded = load_upstream(self.model, **self._load)
        seed = int(make_key(self.seed, prompt)[:8], 16)
        [answer] = self._loaded.answer([prompt], self.sampling, system=self.system, seed=seed)
        return answer.text

    def close(self) -> None:
        """Free the model."""
        self._loaded = None
        gc.collect()

    def _answer(self, questions: list[str]) -> list[str | Failure]:
        from aligner_integrations.training.baselines.upstream import load_upstream

        if len(questions) == 1:
            try:
                return [check_reply("answer", self.ask(questions[0]))]
            except (ConfigurationError, UnusableReply) as error:  # too long; blank
                return [Failure(str(error))]
        if self._loaded is None:
            self._loaded = load_upstream(self.model, **self._load)
        try:
            answers = self._loaded.answer(questions, self.sampling, system=self.system)
            return [check_reply("answer", answer.text) for answer in answers]
        except (ConfigurationError, UnusableReply):  # one of them; the others are fine
            return [one for question in questions for one in self._answer([question])]
