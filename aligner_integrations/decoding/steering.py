"""`Steering`: the vectors that turn a model's correcting up or down, and their files.

Representation engineering (Zou et al. 2023, arXiv 2310.01405) reads a direction from hidden states
and adds it back to steer the model; Ji et al. 2024 (Figure 4c) steer an aligner so. The files stand
beside the weights: `steering.safetensors` has the vectors, `steering.json` all else.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from aligner_integrations.errors import ConfigurationError, SteeringError

if TYPE_CHECKING:
    from transformers import PreTrainedModel

VECTORS_FILE = "steering.safetensors"
DETAILS_FILE = "steering.json"

Method = Literal["pca", "mean", "probe"]
"""How vectors were found: principal component, difference of means, or logistic probe."""

_FORMAT = 1
_BLOCK, _BLOCKS = 65_536, 64  # bytes; what is read of each file of weights
_REMEDY = "make them anew with: aligner scan MODEL --data TRIPLES --save"


@dataclass(frozen=True, slots=True, eq=False)
class Steering:
    """Vectors for some layers of one model, and how far to go along them.

    Args:
        vectors: For the index of a decoder layer what ``coefficient`` multiplies before it is
            added to the layer's output: float32, shape (hidden size,).
        calibration: ``(strength, coefficient)`` points from strength -1 to 1 by way of
            ``(0, 0)``, both rising.
        num_layers: Decoder layers of the model.
        method: How the vectors were found.
        measured: What was measured with them, as plain data.

    Raises:
        SteeringError: These are no such vectors or points.

    Example:
        >>> import torch
        >>> steering = Steering({1: torch.ones(4)}, [(-1, -3), (0, 0), (1, 2)], num_layers=2)
        >>> steering.coefficient(0.5), steering.coefficient(-0.5)
        (1.0, -1.5)
    """

    vectors: Mapping[int, torch.Tensor]
    calibration: Sequence[tuple[float, float]]
    num_layers: int
    method: Method = "pca"
    measured: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not self.vectors:
            raise SteeringError("there are no vectors to steer with; give at least one layer's")
        for layer, vector in self.vectors.items():
            if not 0 <= layer < self.num_layers:
                raise SteeringError(
                    f"there is no layer {layer}: layers count from 0 to {self.num_layers - 1}"
                )
            if vector.shape != (self.hidden_size,) or not bool(vector.isfinite().all()):
                raise SteeringError(
                    f"the vector of layer {layer} must hold {self.hidden_size} finite numbers; "
                    f"its shape is {tuple(vector.shape)}"
                )
        if self.method not in get_args(Method):
            raise SteeringError(
                f"method={self.method!r} must be one of {', '.join(map(repr, get_args(Method)))}"
            )
        points = _check_calibration(self.calibration)
        vectors = {layer: self.vectors[layer].float() for layer in sorted(self.vectors)}
        object.__setattr__(self, "vectors", vectors)
        object.__setattr__(self, "calibration", points)

    @property
    def hidden_size(self) -> int:
        """Numbers in each vector."""
        return next(iter(self.vectors.values())).numel()

    def coefficient(self, strength: float) -> float:
        """What the vectors are multiplied by, linearly between the points of the calibration.

        Raises:
            ConfigurationError: ``strength`` is not between -1 and 1.
        """
        if not -1 <= strength <= 1:
            raise ConfigurationError(f"strength={strength!r} must be between -1 and 1")
        strengths, coefficients = np.array(self.calibration).T
        return float(np.interp(strength, strengths, coefficients))

    def fit(self, model: PreTrainedModel) -> Steering:
        """The same, with each vector on the device of its layer.

        Raises:
            SteeringError: The model has other layers, or hidden states of another size.
        """
        layers = find_layers(model)
        hidden = model.config.get_text_config().hidden_size
        if (len(layers), hidden) != (self.num_layers, self.hidden_size):
            raise SteeringError(
                f"the vectors are for {self.num_layers} layers of size {self.hidden_size}, but the "
                f"model has {len(layers)} of size {hidden}; {_REMEDY}"
            )
        devices = [next(layer.parameters()).device for layer in layers]
        vectors = {
            i: v if devices[i].type == "meta" else v.to(devices[i])  # meta: offloaded weights
            for i, v in self.vectors.items()
        }
        return replace(self, vectors=vectors)

    def save(self, directory: Path, *, weights: Path | None = None) -> None:
        """Write the two files.

        Args:
            directory: The directory of the model's (or the adapter's) weights; they are found
                nowhere else.
            weights: Where the weights are, if elsewhere: for files that are to be copied there.

        Raises:
            SteeringError: There are no weights.
        """
        from safetensors.torch import save_file

        details = {
            "format": _FORMAT,
            "layers": list(self.vectors),
            "method": self.method,
            "calibration": [list(point) for point in self.calibration],
            "model": {
                "hidden_size": self.hidden_size,
                "num_layers": self.num_layers,
                "fingerprint": find_fingerprint(weights or directory),
            },
            "measured": dict(self.measured),
        }
        text = json.dumps(details, indent=2) + "\n"
        tensors = {f"layer.{i}": v.cpu().contiguous() for i, v in self.vectors.items()}
        scratch = directory / f"{VECTORS_FILE}.part"
        save_file(tensors, scratch)
        scratch.replace(directory / VECTORS_FILE)
        (directory / DETAILS_FILE).write_text(text, encoding="utf-8")

    @classmethod
    def from_directory(cls, directory: Path) -> Steering:
        """Read the two files beside a model's weights.

        Raises:
            SteeringError: A file is missing or broken, or the weights are others than those that
                the vectors were made for.
        """
        from safetensors.torch import load_file

        for name in (DETAILS_FILE, VECTORS_FILE):
            if not (directory / name).is_file():
                raise SteeringError(f"there is no {name} in {directory}; {_REMEDY}")
        try:
            details = json.loads((directory / DETAILS_FILE).read_text(encoding="utf-8"))
            if details["format"] != _FORMAT:
                raise SteeringError(
                    f"format {details['format']!r} is not {_FORMAT}; another version wrote it"
                )
            tensors = load_file(directory / VECTORS_FILE)
            made_for = details["model"]
            steering = cls(
                vectors={int(i): tensors.pop(f"layer.{i}") for i in details["layers"]},
                calibration=[(float(s), float(c)) for s, c in details["calibration"]],
                num_layers=int(made_for["num_layers"]),
                method=details["method"],
                measured=dict(details.get("measured", {})),
            )
            if tensors or steering.hidden_size != made_for["hidden_size"]:
                raise SteeringError(f"{DETAILS_FILE} says other layers than {VECTORS_FILE} holds")
            fingerprint = made_for["fingerprint"]
        except Exception as error:  # of files that anything may have written
            reason = f"no {error}" if isinstance(error, KeyError) else error
            raise SteeringError(
                f"the steering files in {directory} are broken: {reason}; {_REMEDY}"
            ) from error
        if fingerprint != find_fingerprint(directory):
            raise SteeringError(
                f"the steering files in {directory} were made for other weights than those beside "
                f"them; {_REMEDY}"
            )
        return steering


def find_layers(model: PreTrainedModel) -> Sequence[torch.nn.Module]:
    """A causal language model's decoder layers, whatever its architecture calls them.

    Raises:
        SteeringError: None can be told.
    """
    count = model.config.get_text_config().num_hidden_layers
    for start in (model.get_decoder(), model):
        for module in () if start is None else start.modules():
            if isinstance(module, torch.nn.ModuleList) and len(module) == count:
                return list(module)
    raise SteeringError(
        f"{type(model).__name__} can't be steered: it has no list of {count} decoder layers; "
        "use strength=0"
    )


def find_fingerprint(directory: Path) -> str:
    """What tells the weights in a directory from others, without reading gigabytes.

    The names and sizes of the safetensors files, their headers, and 64 blocks of each. It does not
    depend on dtype or device, since these are chosen when the files are loaded.

    Raises:
        SteeringError: There are no weights.
    """
    files = sorted(
        path
        for path in directory.glob("*.safetensors")
        if path.is_file() and path.name != VECTORS_FILE
    )
    if not files:
        raise SteeringError(f"{directory} holds no .safetensors weights that vectors could fit")
    digest = hashlib.sha256()
    for path in files:
        size = path.stat().st_size
        digest.update(f"{path.name} {size}\n".encode())
        step = max(_BLOCK, math.ceil(size / _BLOCKS))
        with path.open("rb") as file:
            for start in (*range(0, size, step), max(0, size - _BLOCK)):
                file.seek(start)
                digest.update(file.read(_BLOCK))
    return digest.hexdigest()[:32]


def _check_calibration(points: Sequence[tuple[float, float]]) -> tuple[tuple[float, float], ...]:
    checked = tuple((float(strength), float(coefficient)) for strength, coefficient in points)
    rising = all(a[0] < b[0] and a[1] < b[1] for a, b in pairwise(checked))
    finite = all(math.isfinite(number) for point in checked for number in point)
    ends = len(checked) > 2 and checked[0][0] == -1 and checked[-1][0] == 1
    if not (finite and rising and ends and (0, 0) in checked):
        raise SteeringError(
            f"calibration={checked!r:.200} must be (strength, coefficient) points from strength -1 "
            "to 1, both rising, with (0, 0) among them"
        )
    return checked
