"""`Steering`: its coefficients, its files, and what is said of those that can't be used."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file, save_file

from aligner_integrations import Aligner
from aligner_integrations.decoding.steering import (
    DETAILS_FILE,
    VECTORS_FILE,
    Steering,
    find_fingerprint,
    find_layers,
)
from aligner_integrations.errors import ConfigurationError, SteeringError
from tests.steered import save_steered
from tests.tiny import make_model

POINTS = [(-1.0, -4.0), (-0.5, -1.0), (0.0, 0.0), (0.5, 0.25), (1.0, 3.0)]


def make_steering(**changes: Any) -> Steering:
    values = {"vectors": {0: torch.arange(4.0), 2: torch.ones(4)}, "calibration": POINTS}
    return Steering(**{**values, "num_layers": 3, **changes})


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return save_steered(tmp_path / "model")


@pytest.mark.parametrize(
    ("strength", "coefficient"),
    [*POINTS, (-0.75, -2.5), (-0.25, -0.5), (0.25, 0.125), (0.75, 1.625)],
)
def test_coefficients_lie_on_lines_between_the_points(strength: float, coefficient: float) -> None:
    assert make_steering().coefficient(strength) == coefficient


@given(st.floats(-1, 1), st.floats(-1, 1))
def test_more_strength_is_never_a_smaller_coefficient(one: float, other: float) -> None:
    steering = make_steering()
    less, more = sorted((one, other))
    assert -4 <= steering.coefficient(less) <= steering.coefficient(more) <= 3
    assert steering.coefficient(0) == 0


@pytest.mark.parametrize("strength", [-1.01, 2, float("nan"), float("inf")])
def test_a_strength_beyond_the_range_is_refused(strength: float) -> None:
    with pytest.raises(ConfigurationError, match=r"strength=.* must be between -1 and 1"):
        make_steering().coefficient(strength)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"vectors": {}}, "no vectors to steer with"),
        ({"vectors": {3: torch.ones(4)}}, "no layer 3: layers count from 0 to 2"),
        ({"vectors": {-1: torch.ones(4)}}, "no layer -1"),
        ({"vectors": {0: torch.ones(4), 1: torch.ones(5)}}, "layer 1 must hold 4 finite numbers"),
        ({"vectors": {0: torch.tensor([1.0, float("nan")])}}, "must hold 2 finite numbers"),
        ({"vectors": {0: torch.ones(2, 2)}}, r"its shape is \(2, 2\)"),
        ({"method": "magic"}, "method='magic' must be one of 'pca', 'mean', 'probe'"),
        ({"calibration": []}, "must be"),
        ({"calibration": [(0, 0)]}, "must be"),
        ({"calibration": [(-1, -1), (1, 1)]}, r"with \(0, 0\) among them"),
        ({"calibration": [(-1, -1), (0, 0.5), (1, 1)]}, "among them"),
        ({"calibration": [(-0.5, -1), (0, 0), (1, 1)]}, "from strength -1"),
        ({"calibration": [(-1, -1), (0, 0), (0.5, 1)]}, "from strength -1"),
        ({"calibration": [(1, 1), (0, 0), (-1, -1)]}, "both rising"),
        ({"calibration": [(-1, -1), (0, 0), (0.5, 2), (1, 1)]}, "both rising"),
        ({"calibration": [(-1, float("-inf")), (0, 0), (1, 1)]}, "must be"),
    ],
)
def test_values_that_cannot_work_are_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(SteeringError, match=message):
        make_steering(**changes)


def test_files_come_back_as_they_were_written(directory: Path) -> None:
    vectors = {2: torch.randn(448, dtype=torch.float64), 0: torch.randn(448).to(torch.bfloat16)}
    made = make_steering(vectors=vectors, method="probe", measured={"accuracy": [0.5, 0.9], "n": 7})
    made.save(directory)
    read = Steering.from_directory(directory)
    assert list(read.vectors) == [0, 2]
    for layer, vector in read.vectors.items():
        assert torch.equal(vector, vectors[layer].float())
    assert read.calibration == tuple(POINTS)
    assert (read.method, read.num_layers, read.hidden_size) == ("probe", 3, 448)
    assert read.measured == {"accuracy": [0.5, 0.9], "n": 7}
    assert not list(directory.glob("*.part"))


def test_the_files_are_as_documented(directory: Path) -> None:
    details = json.loads((directory / DETAILS_FILE).read_text())
    assert details == {
        "format": 1,
        "layers": [0],
        "method": "pca",
        "calibration": [[-1.0, -2.0], [0.0, 0.0], [1.0, 2.0]],
        "model": {
            "hidden_size": 448,
            "num_layers": 1,
            "fingerprint": find_fingerprint(directory),
        },
        "measured": {"pairs": 3},
    }
    (tensor,) = load_file(directory / VECTORS_FILE).items()
    assert (tensor[0], tensor[1].shape, tensor[1].dtype) == ("layer.0", (448,), torch.float32)


def _edit(**changes: Any) -> Callable[[Path], None]:
    def edit(directory: Path) -> None:
        path = directory / DETAILS_FILE
        path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))

    return edit


def _drop(key: str) -> Callable[[Path], None]:
    def drop(directory: Path) -> None:
        path = directory / DETAILS_FILE
        details = json.loads(path.read_text())
        del details[key]
        path.write_text(json.dumps(details))

    return drop


def _put(name: str, content: bytes) -> Callable[[Path], None]:
    def put(directory: Path) -> None:
        (directory / name).write_bytes(content)

    return put


def _put_tensors(**tensors: torch.Tensor) -> Callable[[Path], None]:
    named = {name.replace("_", "."): tensor for name, tensor in tensors.items()}
    return lambda directory: save_file(named, directory / VECTORS_FILE)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda directory: (directory / DETAILS_FILE).unlink(), f"no {DETAILS_FILE} in"),
        (lambda directory: (directory / VECTORS_FILE).unlink(), f"no {VECTORS_FILE} in"),
        (_put(DETAILS_FILE, b"{"), "are broken"),
        (_put(DETAILS_FILE, b"[1]"), "are broken"),
        (_put(DETAILS_FILE, b"\xff\xfe"), "are broken"),
        (_put(VECTORS_FILE, b""), "are broken"),
        (_put(VECTORS_FILE, b"\x80\x04cos\nsystem\n"), "are broken"),  # a pickle is never read
        (_edit(format=2), "format 2 is not 1"),
        (_edit(layers=[0, 0]), "are broken"),
        (_edit(layers=[4]), "are broken: no 'layer.4'"),
        (_edit(layers="all"), "are broken"),
        (_edit(calibration=[[0, 0]]), "from strength -1"),
        (_edit(calibration=[["a", "b"]]), "are broken"),
        (_edit(method="magic"), "method='magic'"),
        (_edit(method=["pca"]), "method="),
        (_edit(measured=3), "are broken"),
        (_edit(model={"hidden_size": 448, "num_layers": 1}), "no 'fingerprint'"),
        (_edit(model={"hidden_size": 8, "num_layers": 1, "fingerprint": ""}), "other layers than"),
        (_drop("calibration"), "are broken: no 'calibration'"),
        (_put_tensors(layer_0=torch.ones(448), layer_1=torch.ones(448)), "says other layers than"),
        (_put_tensors(layer_0=torch.ones(447)), "says other layers than"),
        (_put_tensors(layer_0=torch.full((448,), float("inf"))), "finite numbers"),
    ],
)
def test_broken_files_say_so(directory: Path, spoil: Callable[[Path], None], message: str) -> None:
    spoil(directory)
    with pytest.raises(SteeringError, match=message) as raised:
        Steering.from_directory(directory)
    assert "aligner scan" in str(raised.value)


def test_other_weights_are_noticed(directory: Path, tmp_path: Path) -> None:
    shutil.copytree(directory, tmp_path / "copy")
    Steering.from_directory(tmp_path / "copy")  # the same weights elsewhere
    weights = load_file(directory / "model.safetensors")
    weights["lm_head.weight"][100] += 1e-3
    save_file(weights, directory / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(SteeringError, match="made for other weights than those beside them"):
        Steering.from_directory(directory)
    (directory / "model.safetensors").unlink()
    with pytest.raises(SteeringError, match=r"holds no .safetensors weights"):
        Steering.from_directory(directory)
    with pytest.raises(SteeringError, match=r"holds no .safetensors weights"):
        make_steering().save(directory)


def test_files_of_another_shape_of_model_do_not_fit(directory: Path) -> None:
    make_steering(vectors={2: torch.ones(448)}).save(directory)
    aligner = Aligner.from_pretrained(str(directory), device="cpu")
    message = "for 3 layers of size 448, but the model has 1 of size 448"
    with pytest.raises(SteeringError, match=message):
        aligner.correct("q", "a", strength=1)
    with pytest.raises(SteeringError, match=message):
        Aligner.from_pretrained(str(directory), device="cpu", options={"strength": 1})


def test_layers_are_found_whatever_they_are_called() -> None:
    for name in ("llama", "gpt2", "gemma3"):
        model = make_model(name, num_hidden_layers=3)
        layers = find_layers(model)
        assert len(layers) == 3
        assert all(
            "Layer" in type(layer).__name__ or "Block" in type(layer).__name__ for layer in layers
        )
    odd = make_model()
    odd.config.num_hidden_layers = 5
    with pytest.raises(SteeringError, match="no list of 5 decoder layers; use strength=0"):
        find_layers(odd)
