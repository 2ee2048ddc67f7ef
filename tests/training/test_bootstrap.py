"""Bootstrapping end to end: a tiny upstream becomes what a tiny aligner writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from aligner_integrations import Aligner
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.training import bootstrap as module
from aligner_integrations.training.baselines.trainers import CorrectionTrainer, PreferenceTrainer
from aligner_integrations.training.baselines.upstream import Upstream, load_upstream
from aligner_integrations.training.bootstrap import BootstrapConfig, bootstrap

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing. is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*"),
]
FOODS = ["eggs", "rice", "beans", "corn", "peas", "leeks"]


@pytest.fixture
def make_config(tmp_path: Path, tiny_model_dir: Callable[..., Path]) -> Callable[..., Any]:
    for name, foods in (("questions", FOODS), ("held", ["eggs", "figs", "plums"])):
        rows = [{"question": f"How do I cook {food}?"} for food in foods]
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))

    def make(output: str = "out", **more: Any) -> BootstrapConfig:
        return BootstrapConfig.from_dict(
            {
                "upstream": str(tiny_model_dir(writes="Boil them.")),
                "output": str(tmp_path / output),
                "questions": [str(tmp_path / "questions.jsonl")],
                "eval_questions": [str(tmp_path / "held.jsonl")],
                "rounds": 2,
                "sampling": {"max_new_tokens": 24, "batch": 2, "temperature": 0.7},
                "method": "full",
                "device": "cpu",
                "precision": "float32",
                "batch": {"size": 4},
                "checkpoints": {"every": 2},
                "sft": {"epochs": 2, "learning_rate": 0.01},
                "dpo": {"epochs": 2, "learning_rate": 0.001},
                **more,
            }
        )

    return make


def read(path: Path) -> Any:
    return json.loads(path.read_text())


def test_the_changed_share_falls(make_config: Callable[..., Any], writer: Aligner) -> None:
    config = make_config(sft={"epochs": 20, "learning_rate": 0.1}, dpo={"epochs": 1})
    model = bootstrap(config, aligner=writer)
    output = Path(config.output)
    summary = read(output / "bootstrap.json")
    rounds = summary["rounds"]
    assert summary["model"] == str(model)
    assert rounds[0]["train"]["changed_share"] == rounds[0]["held_out"]["changed_share"] == 1
    assert rounds[0]["train"]["questions"] == 5  # eggs are held out
    assert rounds[0]["trained"] == ["sft", "dpo"]
    assert rounds[0]["train"]["similarity"] < 0.5
    assert len(rounds) == 2  # nothing was left to learn
    assert rounds[1]["train"]["changed_share"] == rounds[1]["held_out"]["changed_share"] == 0
    assert rounds[1]["model"] == str(output / "round-1" / "model")
    pair = json.loads((output / "round-1" / "pairs.jsonl").read_text().splitlines()[0])
    assert (pair["chosen"], pair["rejected"]) == ("Cool water, 😀 kindly.", "Boil them.")
    assert load_upstream(str(model), device="cpu").ask("Figs?") == "Cool water, 😀 kindly."
    AutoModelForCausalLM.from_pretrained(model)
    assert not list(output.rglob("checkpoints"))


def test_stopped_anywhere_it_ends_as_uninterrupted(
    make_config: Callable[..., Any], writer: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bootstrap(make_config("whole"), aligner=writer)
    reports = read(whole.parents[1] / "bootstrap.json")["rounds"]
    assert [report["trained"] for report in reports] == [["sft", "dpo"], ["sft", "dpo"], []]

    def stop(target: Any, name: str, call: int) -> None:
        calls = 0
        function = getattr(target, name)

        def stopping(*args: Any, **kwargs: Any) -> Any:
            nonlocal calls
            calls += 1
            if calls == call:
                raise KeyboardInterrupt
            return function(*args, **kwargs)

        monkeypatch.setattr(target, name, stopping)

    for target, name, call in [
        (Upstream, "answer", 2),
        (Aligner, "correct_batch", 1),
        (module, "train_student", 1),
        (CorrectionTrainer, "training_step", 4),
        (module, "train_student", 2),
        (PreferenceTrainer, "training_step", 4),
        (module, "write_json", 1),
        (Upstream, "answer", 3),
        (module, "train_student", 2),
        (module, "write_json", 2),
    ]:
        stop(target, name, call)
        with pytest.raises(KeyboardInterrupt):
            bootstrap(make_config("parts"), aligner=writer)
        monkeypatch.undo()
    parts = bootstrap(make_config("parts"), aligner=writer)
    weights = [load_file(path / "model.safetensors") for path in (whole, parts)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])
    again = read(parts.parents[1] / "bootstrap.json")["rounds"]
    paths = ("asked", "model")
    assert [{k: v for k, v in one.items() if k not in paths} for one in again] == [
        {k: v for k, v in one.items() if k not in paths} for one in reports
    ]


def test_more_rounds_later(
    make_config: Callable[..., Any], writer: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = make_config(dpo={"epochs": 0})
    first = bootstrap(config, aligner=writer, rounds=1)
    assert first.parent.name == "round-1"
    asked = 0
    answer = Upstream.answer

    def counted(self: Any, questions: Any, *args: Any, **kwargs: Any) -> Any:
        nonlocal asked
        asked += len(questions)
        return answer(self, questions, *args, **kwargs)

    monkeypatch.setattr(Upstream, "answer", counted)
    assert bootstrap(config, aligner=writer, rounds=2).parent.name == "round-2"
    assert asked == 8  # what round 1's model says was known
    assert [one["trained"] for one in read(Path(config.output) / "bootstrap.json")["rounds"]] == [
        ["sft"],
        ["sft"],
        [],
    ]


def test_errors_are_our_own(
    make_config: Callable[..., Any], writer: Aligner, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(ConfigurationError, match=r"sampling\.batch=0"):
        make_config(sampling={"batch": 0})
    with pytest.raises(ConfigurationError, match="both 0"):
        make_config(sft={"epochs": 0}, dpo={"epochs": 0})
    with pytest.raises(ConfigurationError, match="patience needs held-out pairs"):
        make_config(checkpoints={"patience": 1})
    all_held_out = make_config(eval_questions=make_config().questions)
    with pytest.raises(ConfigurationError, match="no question is left"):
        bootstrap(all_held_out, aligner=writer)
    cut = make_config("cut", sampling={"max_new_tokens": 2})
    with pytest.raises(ConfigurationError, match=r"'cut': 5.*raise sampling\.max_new_tokens"):
        bootstrap(cut, aligner=writer)
    with pytest.raises(ConfigurationError, match="holds a run with seed=0, now it is 1"):
        bootstrap(make_config("cut", seed=1), aligner=writer)
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(ConfigurationError, match="one process"):
        bootstrap(cut, aligner=writer)
