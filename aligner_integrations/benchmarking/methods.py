"""Ways to write a correction, each timed on a forced output: real passes, given tokens.

Every way pays for its passes and for looking at its logits, and is then told which token it chose.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from transformers import DynamicCache, LogitsProcessor, LogitsProcessorList

from aligner_integrations.aligner import Aligner
from aligner_integrations.benchmarking.cases import Case
from aligner_integrations.decoding.kv import RowCache, cache_keyword
from aligner_integrations.decoding.linears import has_packed_linears
from aligner_integrations.decoding.packed import Part
from aligner_integrations.decoding.rows import Row
from aligner_integrations.decoding.sampling import Sampler
from aligner_integrations.decoding.speculative import Decoder
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.models.load import LoadedModel, load_model

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Forced(Sampler):
    """Looks at the logits as greedy decoding does, and then chooses given tokens."""

    def __init__(self, tokens: Sequence[int]) -> None:
        super().__init__()
        self._tokens = iter(tokens)

    def choose_all(self, logits: torch.Tensor) -> Iterator[tuple[int, float]]:
        """The next given tokens."""
        for _, margin in list(super().choose_all(logits)):
            yield next(self._tokens), margin


class ForcedLogits(LogitsProcessor):  # type: ignore[misc, unused-ignore]
    """The same for transformers' ``generate``, for left-padded rows of one prompt width."""

    def __init__(self, width: int, targets: Sequence[Sequence[int]], end: int) -> None:
        self._width = width
        self._targets = targets
        self._end = end

    def __call__(self, input_ids: torch.LongTensor, scores: torch.FloatTensor) -> Any:
        """Leave one token possible."""
        at = input_ids.shape[1] - self._width
        forced = [target[at] if at < len(target) else self._end for target in self._targets]
        index = torch.tensor(forced, device=scores.device)[:, None]
        scores.argmax(dim=-1)
        return torch.full_like(scores, float("-inf")).scatter_(1, index, 0.0)


class StockWays:
    """What transformers itself can do with a model.

    Args:
        loaded: The model as transformers loads it.
    """

    def __init__(self, loaded: LoadedModel) -> None:
        self._model: Any = loaded.model
        self._device = loaded.model.get_input_embeddings().weight.device
        self._end = min(loaded.encoder.stop_ids)

    def plain_loop(self, case: Case) -> None:
        """One token a pass, in the tightest loop."""
        decode_plainly(self._model, case, self._end)

    def generate(self, case: Case) -> None:
        """Transformers' ``generate``."""
        self._generate([case])

    def prompt_lookup(self, case: Case) -> None:
        """``generate`` with prompt lookup of 10 tokens."""
        self._generate([case], prompt_lookup_num_tokens=10)

    def generate_padded(self, cases: Sequence[Case]) -> None:
        """``generate`` on left-padded batches of 8, sorted by length."""
        ordered = sorted(cases, key=lambda case: len(case.prompt))
        for start in range(0, len(ordered), 8):
            self._generate(ordered[start : start + 8])

    def _generate(self, cases: Sequence[Case], **options: Any) -> None:
        width = max(len(case.prompt) for case in cases)
        ids = torch.full((len(cases), width), self._end)
        mask = torch.zeros(len(cases), width, dtype=torch.long)
        for row, case in enumerate(cases):
            ids[row, width - len(case.prompt) :] = torch.tensor(case.prompt)
            mask[row, width - len(case.prompt) :] = 1
        targets = [case.target for case in cases]
        self._model.generate(
            ids.to(self._device),
            attention_mask=mask.to(self._device),
            max_new_tokens=max(map(len, targets)) + 1,
            do_sample=False,
            eos_token_id=self._end,
            pad_token_id=self._end,
            logits_processor=LogitsProcessorList([ForcedLogits(width, targets, self._end)]),
            **options,
        )


class OurWays:
    """What our engine does with the same weights.

    Args:
        engine: The engine.

    Raises:
        ConfigurationError: It decodes its model plainly, so there is nothing to compare.
    """

    def __init__(self, engine: LocalEngine) -> None:
        packed = engine.pack()
        if packed is None:
            raise ConfigurationError(
                f"{engine.name!r} is decoded plainly, so there is nothing to compare"
            )
        self.engine = engine
        self.model = packed
        self._end = min(engine.loaded.encoder.stop_ids)

    def floor(self, case: Case) -> None:
        """One pass over prompt and correction, with logits for each token of the correction."""
        with torch.inference_mode():
            tokens = [*case.prompt, *case.target]
            part = Part(RowCache(), tokens, len(case.target) + 1)
            self.model.forward([part])[0].argmax(dim=-1).tolist()

    def decode(self, case: Case) -> None:
        """Our decoder."""
        self.decode_together([case])

    def decode_in_turn(self, cases: Sequence[Case]) -> None:
        """Our decoder, one request after another."""
        for case in cases:
            self.decode(case)

    def decode_together(self, cases: Sequence[Case], at_once: int = 16) -> None:
        """Our decoder, with as many requests at once as the engine runs."""
        decoder = Decoder(self.model, self.engine.costs)
        waiting = [self._make_row(case) for case in reversed(cases)]
        running: list[Row] = []
        while waiting or running:
            while waiting and len(running) < at_once:
                row = waiting.pop()
                row.prefix = self.engine.copy_opening()
                running.append(row)
                decoder.add(row)
            decoder.step()
            running = [row for row in running if row.stop_reason is None]

    def _make_row(self, case: Case) -> Row:
        target = [*case.target, self._end]
        return Row(case.prompt, case.draft, frozenset({self._end}), len(target), Forced(target))


def decode_plainly(model: PreTrainedModel, case: Case, end: int) -> None:
    """One token a pass, and nothing else."""
    device = model.get_input_embeddings().weight.device
    cache = {cache_keyword(model): DynamicCache(config=model.config)}
    tokens = torch.tensor([case.prompt], device=device)
    with torch.inference_mode():
        for token in [*case.target, end]:
            result = model(input_ids=tokens, use_cache=True, logits_to_keep=1, **cache)
            int(result.logits[0, -1].argmax())
            tokens = torch.tensor([[token]], device=device)


def load_both(model: str, **options: Any) -> tuple[LoadedModel, Aligner]:
    """A model as transformers loads it, and an aligner on our engine.

    Where our engine lays no weights out anew, the two share one copy.

    Raises:
        ConfigurationError: The aligner runs elsewhere.
    """
    aligner = Aligner.from_pretrained(model, **options)
    loaded = engine_of(aligner).loaded
    if has_packed_linears(loaded.model):
        loaded = load_model(model, **options, pack_weights=False)
    return loaded, aligner


def engine_of(aligner: Aligner) -> LocalEngine:
    """An aligner's engine, which must be one of this process."""
    if not isinstance(aligner.engine, LocalEngine):
        raise ConfigurationError(f"{aligner!r} runs elsewhere; only local models can be measured")
    return aligner.engine


def clock(run: Callable[[], object], device: torch.device) -> float:
    """Seconds of a run, the device's work included."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    started = time.perf_counter()
    run()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - started
