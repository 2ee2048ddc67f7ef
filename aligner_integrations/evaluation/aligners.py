"""Who corrects the answers: aligners, models without training, self-refine, nobody."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from aligner_integrations.aligner import Aligner
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.evaluation.answering import AnswerCorrector
from aligner_integrations.evaluation.config import NONE, AlignerConfig, UpstreamConfig
from aligner_integrations.evaluation.correcting import Corrected, Corrector, Pair
from aligner_integrations.evaluation.refining import load_refiner
from aligner_integrations.evaluation.store import Failure
from aligner_integrations.evaluation.upstreams import load_upstream
from aligner_integrations.models.fingerprints import fingerprint_model
from aligner_integrations.options import GenerationOptions
from aligner_integrations.prompts import KNOWN_MODELS, get_prompt_format


class NoCorrector:
    """Hands every answer on as it is: what happens without an aligner."""

    identity: Mapping[str, Any] | None = None
    remote = False

    def __init__(self, name: str = NONE) -> None:
        self.name = name

    def correct(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Corrected | Failure]]:
        """The answers."""
        for index, (_, answer) in enumerate(pairs):
            yield index, Corrected(text=answer, seconds=0.0, error=None)

    def close(self) -> None:
        """Nothing to free."""


class AlignerCorrector:
    """An `Aligner`, loaded when the first answer comes and freed by `close`.

    Args:
        name: Its name in the report.
        load: Makes it.
        identity: What its corrections depend on.
        batch_size: Answers that it corrects together.
        remote: Whether it runs elsewhere.
    """

    def __init__(
        self,
        name: str,
        load: Callable[[], Aligner],
        identity: Mapping[str, Any],
        *,
        batch_size: int = 8,
        remote: bool = False,
    ) -> None:
        self.name = name
        self.identity: Mapping[str, Any] | None = identity
        self.remote = remote
        self._load = load
        self._batch_size = batch_size
        self._aligner: Aligner | None = None

    def correct(self, pairs: Sequence[Pair]) -> Iterator[tuple[int, Corrected | Failure]]:
        """Correct batch after batch."""
        if self._aligner is None:
            self._aligner = self._load()
        for start in range(0, len(pairs), self._batch_size):
            portion = pairs[start : start + self._batch_size]
            results = self._aligner.correct_batch(portion, return_exceptions=True)
            for offset, result in enumerate(results):
                if isinstance(result, Exception):
                    yield start + offset, Failure.from_error(result)
                else:
                    yield (
                        start + offset,
                        Corrected(
                            text=result.text,
                            seconds=round(result.stats.seconds, 4),
                            error=result.error,
                        ),
                    )

    def close(self) -> None:
        """Free the model's memory."""
        if self._aligner is None:
            return
        self._aligner = None
        gc.collect()
        import torch

        if torch.cuda.is_available():
            torch.cuda.empty_cache()


def load_corrector(
    config: AlignerConfig,
    *,
    models: Mapping[str, Any],
    options: Mapping[str, Any],
    batch_size: int,
    concurrency: int,
    seed: int,
) -> Corrector:
    """The corrector that a config names; weights are read later.

    Args:
        config: What to load.
        models: Aligners, and chat models, by the name that configs call them.
        options: Fields of `GenerationOptions` where the config has none.
        batch_size: Answers that a local aligner corrects together.
        concurrency: Answers that a chat model goes over together.
        seed: Of what a local model draws.

    Raises:
        ConfigurationError: It can't be used.
        ModelNotFoundError: There is no such model.
    """
    if config.model == NONE:
        return NoCorrector(config.label)
    if config.refine is not None:
        return load_refiner(config, models, concurrency, seed)
    if config.answer is not None:
        answering = UpstreamConfig(config.label, config.answer, options=config.options)
        upstream = load_upstream(answering, models=models, concurrency=concurrency, seed=seed)
        return AnswerCorrector(config.label, upstream)
    chosen = GenerationOptions.coerce(dict(config.options or options))
    if config.server is not None:
        return _load_served(config, chosen, batch_size)
    model = config.model or config.zero_shot or ""
    if isinstance(given := models.get(model), Aligner):
        return _hand_over(config, given, chosen, batch_size)
    prompt = config.prompt or ("chat" if config.zero_shot else KNOWN_MODELS.get(model.lower()))
    adapter = config.load.get("adapter")
    identity = {
        "weights": fingerprint_model(model, config.load.get("revision")),
        "adapter": fingerprint_model(adapter) if adapter else None,
        "prompt": get_prompt_format(prompt).to_dict() if prompt else None,
        "load": {k: v for k, v in config.load.items() if k not in ("adapter", "revision")},
        "options": chosen.to_dict(),
    }

    def load() -> Aligner:
        return Aligner.from_pretrained(
            model, prompt=prompt, options=chosen, max_batch_size=batch_size, **config.load
        )

    return AlignerCorrector(config.label, load, identity, batch_size=batch_size)


def _hand_over(
    config: AlignerConfig, aligner: Aligner, options: GenerationOptions, batch_size: int
) -> Corrector:
    used = Aligner(aligner.engine, options=options, refusal_text=aligner.refusal_text)
    source = aligner.source or {}
    weights = fingerprint_model(source["model"], source.get("revision")) if source else aligner.name
    prompt = aligner.engine.prompt
    identity = {
        "weights": weights,
        "source": {k: v for k, v in source.items() if k in ("adapter", "dtype", "device")},
        "prompt": prompt.to_dict() if prompt else None,
        "options": options.to_dict(),
    }
    return AlignerCorrector(config.label, lambda: used, identity, batch_size=batch_size)


def _load_served(config: AlignerConfig, options: GenerationOptions, batch_size: int) -> Corrector:
    if "api_key" in config.load:  # a run writes its settings down
        raise ConfigurationError(
            f"the aligner {config.label!r} has an api_key in load:, which would be written down; "
            "set the variable ALIGNER_SERVER_KEY"
        )
    aligner = Aligner.from_server(
        config.server or "", prompt=config.prompt, options=options, **config.load
    )
    identity = {
        "server": config.server,
        "prompt": config.prompt,
        "load": config.load,
        "options": options.to_dict(),
    }
    together = max(batch_size, config.load.get("max_concurrency", batch_size))
    return AlignerCorrector(
        config.label, lambda: aligner, identity, batch_size=together, remote=True
    )
