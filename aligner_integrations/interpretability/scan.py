"""The whole scan of one aligner: read it, see what steers it, calibrate that."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any, Literal

import numpy as np

from aligner_integrations.decoding.steering import Steering
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.imports import require
from aligner_integrations.interpretability.accuracy import (
    Accuracy,
    measure_accuracy,
    measure_length_accuracy,
    split_pairs,
)
from aligner_integrations.interpretability.attention import AttentionShare, measure_attention
from aligner_integrations.interpretability.directions import (
    METHODS,
    Array,
    Direction,
    Method,
    compare_directions,
    find_directions,
)
from aligner_integrations.interpretability.pairs import Case, Pair, Pairing, make_pairs
from aligner_integrations.interpretability.states import POSITIONS, collect_prompt_states
from aligner_integrations.interpretability.steer import Control, control
from aligner_integrations.interpretability.tomography import Tomogram, scan_outputs
from aligner_integrations.models.load import LoadedModel
from aligner_integrations.training.data.triples import Triple

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ScanOptions:
    """What a scan does.

    Args:
        pairs: Most pairs that directions are found with.
        pairing: Which kinds of pairs; see `make_pairs`.
        method: Whose vectors are used: ``"auto"`` tries all and takes what steers best.
        layers: Indices of the decoder layers to steer at; empty to try windows of layers.
        answers: Most answers, half bad and half good, on which vectors are tried and calibrated.
            None of them is in a pair.
        check_answers: Most answers on which the calibration is checked; in neither of both.
        attention: Cases of each class whose attention is read.
        shuffles: How many times accuracy is measured with labels drawn at random.
        steer: Whether to steer at all; without, only what is read is reported.
        seed: Of all that is drawn.

    Raises:
        ConfigurationError: A value is out of range.
    """

    pairs: int = 80
    pairing: Pairing = "both"
    method: Method | Literal["auto"] = "auto"
    layers: tuple[int, ...] = ()
    answers: int = 40
    check_answers: int = 24
    attention: int = 12
    shuffles: int = 10
    steer: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        least = {"pairs": 10, "answers": 4, "check_answers": 0, "attention": 0, "shuffles": 0}
        for name, value in least.items():
            if getattr(self, name) < value:
                raise ConfigurationError(f"{name}={getattr(self, name)!r} must be at least {value}")
        if self.method not in (*METHODS, "auto"):
            raise ConfigurationError(
                f"method={self.method!r} must be 'auto' or one of {', '.join(map(repr, METHODS))}"
            )


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan found.

    Attributes:
        model: The aligner's name.
        options: What was done.
        pairs: The pairs of the directions.
        accuracies: At the last prompt token, for each method, with the shuffled control.
        same_accuracies: The same of pairs of one question only; empty if there are none.
        positions: For each of `POSITIONS` accuracy with the chosen method, of pairs of one question
            if there are any.
        length_auc: How well the answers' lengths alone tell the classes apart (AUC).
        cosines: Of the methods' directions with each other, layer by layer.
        method: The chosen method.
        directions: Its directions at the last prompt token, found with all pairs: for the states
            that go into the first layer and for each layer's output.
        correct: The LAT scan while corrections are written, of pairs held out.
        copy: The LAT scan while answers are copied, of the same pairs.
        attention: Attention to the answer, by class; empty for models that do not show it.
        control: What steering did; None if it was not wanted.
    """

    model: str
    options: ScanOptions
    pairs: list[Pair]
    accuracies: list[Accuracy]
    same_accuracies: list[Accuracy]
    positions: list[Accuracy]
    length_auc: float
    cosines: dict[str, list[float]]
    method: Method
    directions: list[Direction]
    correct: Tomogram
    copy: Tomogram
    attention: dict[str, AttentionShare] = field(default_factory=dict)
    control: Control | None = None

    @property
    def steering(self) -> Steering | None:
        """Calibrated vectors, ready to be saved."""
        return self.control.steering if self.control else None

    @property
    def short_name(self) -> str:
        """The model's name without the folders before it."""
        return Path(self.model).name or self.model

    @property
    def layers(self) -> int:
        """How many decoder layers the model has."""
        return len(self.directions) - 1

    def find_best_layer(self) -> int:
        """The layer whose output tells most at the last prompt token; -1 is before the first."""
        chosen = self.find_accuracy(self.method)
        return int(np.argmax(chosen.auc)) - 1

    def find_accuracy(self, method: Method) -> Accuracy:
        """A method's accuracy at the last prompt token, of pairs of one question if there are."""
        found = self.same_accuracies or self.accuracies
        return next(one for one in found if one.method == method)

    def to_dict(self) -> dict[str, Any]:
        """Every number, as plain data; no text of the data."""
        return {
            "model": self.model,
            "options": asdict(self.options),
            "pairs": describe_pairs(self.pairs) | {"length_auc": round(self.length_auc, 4)},
            "accuracies": [one.to_dict() for one in self.accuracies],
            "same_accuracies": [one.to_dict() for one in self.same_accuracies],
            "positions": [one.to_dict() for one in self.positions],
            "cosines": {k: [round(v, 4) for v in values] for k, values in self.cosines.items()},
            "method": self.method,
            "lat": {"correct": self.correct.to_dict(), "copy": self.copy.to_dict()},
            "attention": {name: one.to_dict() for name, one in self.attention.items()},
            "control": self.control.to_dict() if self.control else None,
        }


def scan(
    loaded: LoadedModel,
    triples: Iterable[Triple],
    *,
    calibration: Iterable[Triple] | None = None,
    options: ScanOptions | None = None,
    progress: bool = False,
) -> Scan:
    """Scan an aligner.

    Args:
        loaded: The model; see `aligner_integrations.models.load.load_model`.
        triples: Answers with corrections, and good answers (answer and correction equal).
        calibration: The same from another source for trying and calibrating vectors; by default
            what the pairs leave of ``triples``. Their corrections are not looked at.
        options: What to do.
        progress: Show progress bars.

    Raises:
        DataError: There are too few pairs, or nothing is left to calibrate on.
        ConfigurationError: The model has no such layers.
        MissingExtraError: scikit-learn, scipy or statsmodels is not installed.
    """
    for package in ("sklearn", "scipy", "statsmodels"):
        require(package, "eval")
    told = options or ScanOptions()
    encoder = loaded.encoder
    pairs, rest = _draw_pairs(loaded, triples, calibration, told)
    cases = [pair.correct for pair in pairs] + [pair.copy for pair in pairs]
    states = collect_prompt_states(loaded.model, encoder, cases, progress=progress)
    correct, copy = states[: len(pairs)], states[len(pairs) :]
    last = len(POSITIONS) - 1
    same = [pair.is_same_question for pair in pairs]
    read = correct[:, :, last], copy[:, :, last]
    accuracies, same_accuracies = _measure_methods(*read, same, told)
    found: dict[Method, list[Direction]] = {
        method: find_directions(*read, method, told.seed) for method in METHODS
    }
    controlled = None
    if told.steer:
        offered: tuple[Method, ...] = METHODS if told.method == "auto" else (told.method,)
        controlled = control(
            loaded,
            {method: found[method] for method in offered},
            rest[: told.answers // 2],
            rest[told.answers // 2 :][: told.check_answers // 2],
            layers=told.layers,
            seed=told.seed,
            progress=progress,
        )
    method = _choose_method(told, controlled, same_accuracies or accuracies)
    correct_scan, copy_scan = _scan_outputs(
        loaded, pairs, *read, method, told.seed, progress=progress
    )
    return Scan(
        model=loaded.name,
        options=told,
        pairs=pairs,
        accuracies=accuracies,
        same_accuracies=same_accuracies,
        positions=_measure_positions(correct, copy, same, method, told.seed),
        length_auc=measure_length_accuracy(
            [pair.correct.tokens for pair in pairs], [pair.copy.tokens for pair in pairs]
        ),
        cosines={
            f"{one} and {other}": compare_directions(found[one], found[other])
            for one, other in combinations(METHODS, 2)
        },
        method=method,
        directions=found[method],
        correct=correct_scan,
        copy=copy_scan,
        attention=_read_attention(loaded, pairs, told.attention, progress=progress),
        control=controlled,
    )


def describe_pairs(pairs: Sequence[Pair]) -> dict[str, Any]:
    """How many, of which kinds, and how long their answers are."""
    return {
        "n": len(pairs),
        "same_question": sum(pair.is_same_question for pair in pairs),
        "mean_tokens_correct": round(float(np.mean([p.correct.tokens for p in pairs])), 2),
        "mean_tokens_copy": round(float(np.mean([p.copy.tokens for p in pairs])), 2),
    }


def _draw_pairs(
    loaded: LoadedModel,
    triples: Iterable[Triple],
    calibration: Iterable[Triple] | None,
    told: ScanOptions,
) -> tuple[list[Pair], list[Pair]]:
    """Pairs to find directions with, and others to steer."""
    wanted = (told.answers + told.check_answers) // 2 if told.steer else 0
    most = told.pairs + (0 if calibration is not None else wanted)
    pairs = make_pairs(triples, loaded.encoder, limit=most, pairing=told.pairing, seed=told.seed)
    if calibration is not None:
        others = list(calibration)
        # Real good answers rather than corrections in their place, where there are any.
        pairing: Pairing = "matched" if any(t.is_identity for t in others) else "same"
        return pairs, make_pairs(
            others, loaded.encoder, limit=wanted, pairing=pairing, seed=told.seed
        )
    if not wanted or len(pairs) <= told.pairs:
        # Little data: a third of it is for steering.
        kept = len(pairs) if not wanted else max(len(pairs) * 2 // 3, 1)
        return pairs[:kept], pairs[kept:]
    return pairs[: told.pairs], pairs[told.pairs :]


def _measure_methods(
    correct: Array, copy: Array, same: Sequence[bool], told: ScanOptions
) -> tuple[list[Accuracy], list[Accuracy]]:
    everything, only_same = [], []
    for method in METHODS:
        settings: dict[str, Any] = {
            "position": POSITIONS[-1],
            "shuffles": told.shuffles,
            "seed": told.seed,
        }
        everything.append(measure_accuracy(correct, copy, method, **settings))
        if any(same) and not all(same):
            only_same.append(measure_accuracy(correct, copy, method, only=same, **settings))
    return everything, only_same


def _measure_positions(
    correct: Array, copy: Array, same: Sequence[bool], method: Method, seed: int
) -> list[Accuracy]:
    return [
        measure_accuracy(
            correct[:, :, index],
            copy[:, :, index],
            method,
            position=position,
            only=same if any(same) else None,
            seed=seed,
        )
        for index, position in enumerate(POSITIONS)
    ]


def _choose_method(
    told: ScanOptions, controlled: Control | None, accuracies: Sequence[Accuracy]
) -> Method:
    if told.method != "auto":
        return told.method
    if controlled is not None:
        return controlled.candidates[0].method
    return max(accuracies, key=lambda one: max(one.auc)).method


def _scan_outputs(
    loaded: LoadedModel,
    pairs: Sequence[Pair],
    correct: Array,
    copy: Array,
    method: Method,
    seed: int,
    *,
    progress: bool,
) -> tuple[Tomogram, Tomogram]:
    """LAT scans of a fold's pairs, with directions that were found with the others."""
    held = split_pairs(len(pairs))[-1]
    directions = find_directions(correct[~held], copy[~held], method, seed)
    shown = [pair for pair, out in zip(pairs, held, strict=True) if out]
    model, encoder = loaded.model, loaded.encoder
    scans = [
        scan_outputs(model, encoder, cases, directions, examples=4, progress=progress)
        for cases in ([pair.correct for pair in shown], [pair.copy for pair in shown])
    ]
    return scans[0], scans[1]


def _read_attention(
    loaded: LoadedModel, pairs: Sequence[Pair], count: int, *, progress: bool
) -> dict[str, AttentionShare]:
    classes: Mapping[str, list[Case]] = {
        "correct": [pair.correct for pair in pairs[:count]],
        "copy": [pair.copy for pair in pairs[:count]],
    }
    shares = {
        name: measure_attention(loaded.model, loaded.encoder, cases, progress=progress)
        for name, cases in classes.items()
    }
    return {name: share for name, share in shares.items() if share is not None}
