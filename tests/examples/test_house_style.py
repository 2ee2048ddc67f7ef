"""The tutorial's data: triples in which exactly the house style differs."""

from __future__ import annotations

import runpy
from pathlib import Path

from aligner_integrations.training.config import TrainingConfig
from aligner_integrations.training.data import read_triples

FOLDER = Path(__file__).parents[2] / "examples" / "training" / "house_style"


def test_data(tmp_path: Path) -> None:
    make = runpy.run_path(str(FOLDER / "make_data.py"))["main"]
    paths = [tmp_path / name for name in ("train.jsonl", "eval.jsonl")]
    make(*map(str, paths))
    train, held_out = (list(read_triples(path)) for path in paths)
    assert (len(train), len(held_out)) == (96, 18)
    assert sum(triple.is_identity for triple in train) == 32
    assert not {triple.question for triple in train} & {triple.question for triple in held_out}
    for triple in [*train, *held_out]:
        assert triple.correction.startswith("Dear customer,\n\n")
        assert not any(word in triple.correction for word in ("!", "ASAP", "lol"))
    again = [tmp_path / name for name in ("train2.jsonl", "eval2.jsonl")]
    make(*map(str, again))
    assert [path.read_text() for path in paths] == [path.read_text() for path in again]


def test_config() -> None:
    config = TrainingConfig.from_yaml(FOLDER / "train.yaml")
    assert config.base == "aligner-smol"
