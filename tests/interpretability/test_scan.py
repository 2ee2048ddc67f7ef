"""A scan of the planted model finds what is planted, and steers with it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from aligner_integrations import Aligner
from aligner_integrations.decoding.steering import Steering
from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.interpretability.choosing import (
    list_windows,
    make_steering,
    measure_copying,
    try_candidates,
)
from aligner_integrations.interpretability.continuing import read_chunks
from aligner_integrations.interpretability.curve import measure_curve
from aligner_integrations.interpretability.directions import compare_directions
from aligner_integrations.interpretability.pairs import Case
from aligner_integrations.interpretability.scan import Scan, ScanOptions, scan
from aligner_integrations.interpretability.steer import mix
from aligner_integrations.models.load import LoadedModel, load_model
from tests.interpretability.planted import (
    COPIED,
    CORRECTED,
    LAYERS,
    make_triples,
    plant_direction,
    save_planted,
)


def test_planted_direction_is_found(found: Scan) -> None:
    planted_direction = plant_direction().numpy()
    assert found.layers == LAYERS
    for direction in found.directions[1:]:
        assert direction.unit @ planted_direction > 0.95
    # All methods agree on it; before the first layer there is nothing at the last prompt token.
    for cosines in found.cosines.values():
        assert min(cosines[1:]) > 0.95
    for one in found.accuracies:
        assert one.values[0] == 0.5
        assert min(one.values[1:]) > 0.95
        assert one.shuffled is not None
        assert all(abs(value - 0.5) < 0.2 for value in one.shuffled)
    assert compare_directions(found.directions, found.directions)[1:] == pytest.approx([1.0] * 3)


def test_decision_is_readable_as_soon_as_the_question_is_read(found: Scan) -> None:
    """The marks stand in the question, so all places behind it tell."""
    assert found.positions[0].position == "end of question"
    assert all(min(one.values[1:]) > 0.95 for one in found.positions)


def test_tomogram(found: Scan) -> None:
    """While outputs are written the two classes stay apart, on their own sides."""
    assert found.correct.counts[0] == found.copy.counts[0] == 6
    assert found.correct.scores.shape == (LAYERS + 1, 20)
    first = found.correct.scores[1:, 0], found.copy.scores[1:, 0]
    assert (first[0] > 0.5).all()
    assert (first[1] < -0.5).all()
    tokens, scores = found.correct.examples[0]
    assert "".join(tokens).startswith(CORRECTED[:4])
    assert tokens[-1] == "⏹"
    assert scores.shape == (LAYERS + 1, len(tokens))
    assert np.isnan(found.correct.scores[:, -1]).all()  # outputs are short


def test_curve(found: Scan) -> None:
    """Subtracting makes it copy bad answers, adding makes it correct good ones."""
    control = found.control
    assert control is not None
    rates = [point.change_rate() for point in control.curve]
    assert rates == sorted(rates)
    assert rates[0] < 0.5 < rates[-1]
    zero = next(point for point in control.curve if point.coefficient == 0)
    assert (zero.change_rate(bad=True), zero.change_rate(bad=False)) == (1, 0)
    assert zero.perplexity == pytest.approx(1, abs=0.05)
    assert control.line is not None
    assert control.line.slope < 0
    assert all(down > 0 > up for down, up in control.effects)


def test_calibration_is_monotone_and_holds_on_other_answers(found: Scan) -> None:
    control = found.control
    assert control is not None
    strengths, coefficients = zip(*control.steering.calibration, strict=True)
    assert strengths == (-1, -0.75, -0.5, -0.25, 0, 0.25, 0.5, 0.75, 1)
    assert (np.diff(coefficients) > 0).all()
    rates = [point.change_rate() for _, point in control.check]
    assert rates == sorted(rates)
    assert rates[0] < rates[2] < rates[-1]


def test_scan_is_deterministic(planted: LoadedModel) -> None:
    options = ScanOptions(pairs=12, attention=1, shuffles=1, steer=False)
    one, same = (
        json.dumps(scan(planted, make_triples(20), options=options).to_dict()) for _ in range(2)
    )
    assert one == same


def test_vectors_go_to_the_aligner(found: Scan, tmp_path: Path) -> None:
    """What is saved is found again, and strength moves what users get."""
    directory = save_planted(tmp_path)
    assert found.steering is not None
    found.steering.save(directory)
    details = json.loads((directory / "steering.json").read_text())
    assert details["measured"]["n"] == 16
    assert details["measured"]["curve"][0]["n"] == 16
    assert Steering.from_directory(directory).calibration == found.steering.calibration
    aligner = Aligner.from_pretrained(str(directory), device="cpu")
    triples = make_triples(12, seed=9)
    pairs = [(one.question, one.answer) for one in triples]

    def count(strength: float) -> int:
        done = aligner.correct_batch(pairs, options={"strength": strength})
        assert {one.text for one in done} <= {COPIED, CORRECTED}
        return sum(one.changed for one in done)

    counts = [count(strength) for strength in (-1, 0, 1)]
    assert counts[1] == 12
    assert counts[0] < counts[1] < counts[2]


def test_without_steering(planted: LoadedModel) -> None:
    options = ScanOptions(pairs=12, attention=0, shuffles=0, steer=False)
    done = scan(planted, make_triples(12), options=options)
    assert done.control is None
    assert done.steering is None
    assert done.attention == {}
    assert done.to_dict()["control"] is None


def test_data_of_its_own_for_calibration(planted: LoadedModel) -> None:
    options = ScanOptions(
        pairs=12, answers=4, check_answers=0, attention=0, shuffles=0, layers=(1,), method="mean"
    )
    done = scan(planted, make_triples(12), calibration=make_triples(6, seed=3), options=options)
    assert len(done.pairs) == 12
    assert done.control is not None
    assert len(done.control.curve[0].outputs) == 4
    assert list(done.control.steering.vectors) == [1]
    assert done.control.check == []


def test_nothing_to_calibrate_on(planted: LoadedModel) -> None:
    with pytest.raises(DataError, match="no pair of a bad and a good answer"):
        scan(planted, make_triples(12), calibration=[])


def test_no_such_layer(planted: LoadedModel, found: Scan) -> None:
    with pytest.raises(ConfigurationError, match="layer 3 must be one of 0 to 2"):
        make_steering(found.directions, [3], planted)


@pytest.mark.parametrize(
    "wrong", [{"pairs": 9}, {"answers": 2}, {"shuffles": -1}, {"method": "sparse"}]
)
def test_options(wrong: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=f"{next(iter(wrong))}="):
        ScanOptions(**wrong)  # type: ignore[arg-type]


def test_windows() -> None:
    windows = list_windows(30)
    assert windows[0] == list(range(30))
    assert {len(window) for window in windows} == {30, 15, 6}
    assert all(window == list(range(window[0], window[-1] + 1)) for window in windows)
    assert list_windows(1) == [[0]]


def test_candidates_are_chosen_by_what_they_do(found: Scan, planted: LoadedModel) -> None:
    """A direction that is no direction loses."""
    draw = np.random.default_rng(0)
    random = [
        replace(one, unit=(u := draw.standard_normal(448)) / np.linalg.norm(u))
        for one in found.directions
    ]
    cases = [pair.correct for pair in found.pairs[:6]]
    candidates = try_candidates(
        planted, {"pca": random, "mean": found.directions}, cases, [[0], [1]]
    )
    assert [one.method for one in candidates] == ["mean", "mean", "pca", "pca"]
    assert candidates[1].gain > 10 * abs(candidates[2].gain)


def test_scores_are_those_of_full_passes(found: Scan, planted_dir: Path) -> None:
    """With shared passes, and without: where the model can't take them."""
    loaded = load_model(str(planted_dir), device="cpu", pack_weights=False)
    cases = mix(found.pairs[:3])
    steering = make_steering(found.directions, [1], loaded)
    packed = measure_copying(loaded, cases, [(steering, c) for c in (-0.7, 0.0, 0.4)])
    (chunk,) = read_chunks(loaded, cases)
    outputs = [prompt.answer_ids for prompt in chunk.prompts]
    chunk._packed = None
    for row, coefficient in enumerate((-0.7, 0.0, 0.4)):
        plain = [float(s[:10].sum()) for s in chunk.score(outputs, steering, coefficient)]
        assert packed[row] == pytest.approx(plain, abs=1e-3)
    assert abs(packed[0] - packed[1]).max() > 0.1


def test_steered_texts_do_not_depend_on_company(found: Scan, planted: LoadedModel) -> None:
    cases = mix(found.pairs[:4])
    steering = make_steering(found.directions, [0, 2], planted)
    together = measure_curve(planted, cases, steering, [-0.4, 0.4])
    alone = [measure_curve(planted, [case], steering, [-0.4, 0.4]) for case in cases]
    for index in (0, 1):
        changed = [one.changed for one in together[index].outputs]
        assert changed == [points[index].outputs[0].changed for points in alone]


def test_an_output_that_does_not_end(planted: LoadedModel, found: Scan) -> None:
    """Pushed far beyond, the model repeats itself; that is seen."""
    case = Case("How?", COPIED, COPIED, 4)
    steering = make_steering(found.directions, [1], planted)
    (point,) = measure_curve(planted, [case], steering, [500.0])
    assert point.unended == 1
    assert not point.is_fluent(100, 0.1)
