"""What an evaluation can be told, and what is said of what it can't."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from aligner_integrations.errors import ConfigurationError, PromptFormatError
from aligner_integrations.evaluation.config import AlignerConfig, EvaluationConfig, JudgeConfig
from aligner_integrations.evaluation.panel import load_judges
from tests.training.data.chat_models import Scripted

LEAST: dict[str, Any] = {"datasets": ["q.jsonl"], "output": "out"}


def test_short_and_long_forms(tmp_path: Path) -> None:
    path = tmp_path / "config.yaml"
    path.write_text(
        """
datasets: [a.jsonl, {source: b.csv, kind: xstest, name: mine, limit: 5}]
output: out
upstreams:
  - recorded
  - openai:gpt-4o-mini
  - {name: file, recorded: answers.jsonl}
  - {name: own, model: "local:smollm2-135m-instruct", options: {temperature: 0.7}}
aligners:
  - none
  - aligner-smol
  - {name: better, model: some/dir, prompt: residual, load: {device: cpu}}
  - {refine: openai:gpt-4o-mini, rounds: 2}
  - {zero_shot: smollm2-135m-instruct}
judges:
  - rules
  - reference:
  - pairwise: {model: openai:gpt-4o, dimensions: [helpful]}
probes: [idempotence]
confidence: 0.9
"""
    )
    config = EvaluationConfig.from_yaml(path)
    assert config.datasets[0].source == "a.jsonl"
    assert [one.label for one in config.upstreams] == [
        "recorded",
        "openai:gpt-4o-mini",
        "file",
        "own",
    ]
    assert [one.label for one in config.aligners] == [
        "none",
        "aligner-smol",
        "better",
        "refine openai:gpt-4o-mini",
        "zero-shot smollm2-135m-instruct",
    ]
    assert config.judges[1] == JudgeConfig("reference")
    assert config.judges[2].options["dimensions"] == ["helpful"]
    assert EvaluationConfig.from_dict(config.to_dict()) == config


def test_defaults() -> None:
    config = EvaluationConfig.from_dict(LEAST)
    assert (config.upstreams[0].label, config.aligners[0].label) == ("recorded", "aligner-smol")
    assert config.probes == ["idempotence", "injection", "paraphrase"]
    assert config.judges == [JudgeConfig("rules")]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"judge": []}, "config: unknown key 'judge'; known are datasets"),
        ({"datasets": []}, "datasets is empty"),
        ({"datasets": "q.jsonl"}, "datasets: 'q.jsonl' must be a list"),
        ({"datasets": [{"kind": "xstest"}]}, r"datasets\[0\]: 'source' is missing"),
        ({"datasets": [{"source": "q", "limit": "x"}]}, r"datasets\[0\]: limit: 'x' must be of"),
        ({"aligners": []}, "aligners is empty"),
        ({"aligners": [7]}, r"aligners\[0\]: expected keys and values, not 7"),
        ({"aligners": [{"name": "x"}]}, "'x' has none of them"),
        ({"aligners": [{"model": "a", "refine": "b"}]}, "has model and refine"),
        ({"aligners": ["none", "none"]}, "2 aligners are called 'none'; give each a name"),
        ({"aligners": [{"model": "a", "options": {"temprature": 1}}]}, "unknown option 'temp"),
        ({"aligners": [{"refine": "a", "rounds": 0}]}, "rounds=0 must be at least 1"),
        ({"upstreams": [{"model": "a", "recorded": "b"}]}, "model='a' and recorded='b'"),
        ({"upstreams": [{"recorded": "b.jsonl", "system": "s"}]}, "'b' is recorded, where"),
        ({"upstreams": ["a:b", "a:b"]}, "2 upstreams are called 'a:b'"),
        ({"judges": [{"pairwise": [1]}]}, r"judges\[0\]: options: expected keys and values"),
        ({"judges": [{"a": 1, "b": 2}]}, r"judges\[0\]: unknown key 'a'"),
        ({"probes": ["magic"]}, "the probe 'magic' is unknown; known are idempotence"),
        ({"probes": [1]}, "probes: .* must be a list of strings"),
        ({"correct": {"stength": 1}}, "unknown option 'stength'"),
        ({"concurrency": 0}, "concurrency=0 must be at least 1"),
        ({"seed": -1}, "seed=-1 must be at least 0"),
        ({"confidence": 95}, r"confidence=95\.0 must be from 0\.5"),
    ],
)
def test_wrong_values(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        EvaluationConfig.from_dict({**LEAST, **change})


def test_prompt_formats_are_known() -> None:
    with pytest.raises(PromptFormatError, match="unknown prompt format 'mine'"):
        AlignerConfig(model="a", prompt="mine")


def test_judges() -> None:
    llm = Scripted(says=lambda prompt: "x", model_name="strong")
    config = JudgeConfig(
        "pairwise",
        {
            "model": "strong",
            "dimensions": ["helpful", "brevity"],
            "rubrics": {"brevity": "The shorter response is better."},
            "name": "judge",
        },
    )
    judges = load_judges(config, models={"strong": llm}, concurrency=3)
    assert [(judge.name, judge.dimensions) for judge in judges] == [
        ("judge", ("helpful",)),
        ("judge", ("brevity",)),
    ]
    # Another rubric is another judge of its own dimension only.
    config.options["rubrics"] = {"brevity": "The longer response is worse."}
    other = load_judges(config, models={"strong": llm}, concurrency=3)
    assert [a.identity == b.identity for a, b in zip(judges, other, strict=True)] == [True, False]
    own = JudgeConfig("tests.evaluation.scripted.CountingJudge", {"version": 3})
    assert load_judges(own, models={}, concurrency=1)[0].identity["version"] == 3


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("magic", {}, "the judge 'magic' is unknown; known are pairwise, rules"),
        ("no.such.Judge", {}, "the judge 'no.such.Judge' can't be used: No module"),
        ("pairwise", {}, "pairwise has model=None; name a chat model"),
        ("pairwise", {"model": "m", "dimensions": "helpful"}, "must be a list of names"),
        ("pairwise", {"model": "m", "dimensions": ["wit"]}, "dimension 'wit' has no rubric"),
        ("pairwise", {"model": "m", "turns": 2}, "unexpected keyword argument 'turns'; it takes"),
        ("pairwise", {"model": "nobody:nothing"}, "the chat model 'nobody:nothing' can't be used"),
        ("reward", {}, "missing a required argument: 'model'"),
        ("rules", {"strict": True}, "got an unexpected keyword argument 'strict'"),
        ("pairwise", {"model": "m", "options": {"temperature": 0}}, "takes no options .temp"),
    ],
)
def test_wrong_judges(kind: str, options: dict[str, Any], message: str) -> None:
    llm = Scripted(says=lambda prompt: "x")
    with pytest.raises(ConfigurationError, match=message):
        load_judges(JudgeConfig(kind, options), models={"m": llm}, concurrency=1)
