"""Self-refine as a corrector: what an aligner has to beat."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

from aligner_integrations.configs import build_config
from aligner_integrations.evaluation.config import LOCAL, AlignerConfig
from aligner_integrations.evaluation.correcting import Corrected, Corrector, Pair
from aligner_integrations.evaluation.local import LocalUpstream
from aligner_integrations.evaluation.store import Failure
from aligner_integrations.evaluation.upstreams import describe_llm, load_llm
from aligner_integrations.training.baselines.refine import RefinePrompts, refine
from aligner_integrations.training.data.asking import ask_together, check_reply


class RefineCorrector:
    """Self-refine: a chat model criticises the answer and rewrites it (arXiv 2303.17651).

    Args:
        name: Its name in the report.
        llm: A LangChain chat model, or a `LocalUpstream`.
        identity: What its replies depend on.
        prompts: What it is told.
        rounds: Critiques at most.
        concurrency: Answers that are worked on together.
    """

    def __init__(
        self,
        name: str,
        llm: Any,
        identity: Mapping[str, Any],
        *,
        prompts: RefinePrompts,
        rounds: int = 1,
        concurrency: int = 8,
    ) -> None:
        self.name = name
        self.remote = not isinstance(llm, LocalUpstream)
        self.identity: Mapping[str, Any] | None = {
            "refine": dict(identity),
            "prompts": asdict(prompts),
            "rounds": rounds,
        }
        self._llm = llm
        self._prompts = prompts
        self._rounds = rounds
        self._concurrency = concurrency if self.remote else 1

    def correct(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Corrected | Failure]]:
        """Have the model go over each answer."""
        if not self.remote:  # a model of this process: one thread is as fast as many
            for index, pair in enumerate(pairs):
                try:
                    yield index, self._refine(pair)
                except Exception as error:
                    yield index, Failure.from_error(error)
            return
        from langchain_core.runnables import RunnableLambda

        for index, result in ask_together(RunnableLambda(self._refine), pairs, self._concurrency):
            failed = isinstance(result, BaseException)
            yield index, Failure.from_error(result) if failed else result

    def close(self) -> None:
        """Free a local model."""
        if isinstance(self._llm, LocalUpstream):
            self._llm.close()

    def _refine(self, pair: Pair) -> Corrected:
        question, answer = pair
        model = self._llm.ask if isinstance(self._llm, LocalUpstream) else self._llm
        started = time.perf_counter()
        done = refine(model, question, answer, prompts=self._prompts, rounds=self._rounds)
        if done.text != answer:
            check_reply("rewrite", done.text)
        seconds = round(time.perf_counter() - started, 4)
        return Corrected(text=done.text, seconds=seconds, error=None)


def load_refiner(
    config: AlignerConfig, models: Mapping[str, Any], concurrency: int, seed: int
) -> Corrector:
    """The self-refine that a config names.

    Raises:
        ConfigurationError: A prompt is broken, or the model can't be used.
        ModelNotFoundError: There is no such local model.
    """
    prompts = build_config(RefinePrompts, config.prompts, f"prompts of {config.label!r}")
    name = config.refine or ""
    if name.startswith(LOCAL):
        llm: Any = LocalUpstream(
            config.label, name.removeprefix(LOCAL), options=config.options, seed=seed
        )
        identity: Mapping[str, Any] = llm.identity or {}
    else:
        llm = load_llm(name, config.options, models)
        identity = describe_llm(llm, name, config.options)
    return RefineCorrector(
        config.label,
        llm,
        identity,
        prompts=prompts,
        rounds=config.rounds,
        concurrency=concurrency,
    )
