from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligner_integrations.errors import ConfigurationError
from aligner_integrations.evaluation.judges import LikelihoodJudge
from aligner_integrations.evaluation.records import make_key
from tests.evaluation.judges.cases import judge_all, make_case

QUESTION = "How do I boil eggs?"
GOOD = ("For 8 minutes.", "In hot water, for a few minutes.")
WRONG = ("In cold water.", "Never.", "With a torch, for 42 years.")


def compute_directly(directory: Path, text: str, choices: tuple[str, ...]) -> list[float]:
    """One choice at a time, one token at a time."""
    model = AutoModelForCausalLM.from_pretrained(directory).eval()
    tokenizer = AutoTokenizer.from_pretrained(directory)
    prompt = f"Question: {QUESTION}\nNotes: {text}\nAnswer:"
    found = []
    for choice in choices:
        head = tokenizer(prompt)["input_ids"]
        ids = tokenizer(f"{prompt} {choice}")["input_ids"]
        assert ids[: len(head)] == head
        total = 0.0
        for i in range(len(head), len(ids)):
            with torch.no_grad():
                logits = model(torch.tensor([ids[:i]])).logits[0, -1]
            total += float(logits.double().log_softmax(-1)[ids[i]])
        found.append(total)
    return found


@pytest.mark.parametrize("tokenizer", ["byte-level", "llama-2"])
@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_scores_are_those_of_a_direct_computation(
    tiny_model_dir: Callable[..., Path], architecture: str, tokenizer: str
) -> None:
    directory = tiny_model_dir(architecture, tokenizer=tokenizer)
    texts = ["Boil them.", "Then cool them in cold water."]
    case = make_case(texts[0], texts[1], QUESTION, references=GOOD, wrong=WRONG)
    logs = [compute_directly(directory, text, GOOD + WRONG) for text in texts]
    judge = LikelihoodJudge(str(directory), device="cpu", batch_size=2)
    for text, expected in zip(texts, logs, strict=True):
        found = judge.find_log_likelihoods(QUESTION, text, GOOD + WRONG)
        assert found == pytest.approx(expected, abs=1e-3)
    mc1, mc2 = judge_all(judge, [case])[0]
    for score1, score2, expected in zip(
        (mc1.before, mc1.after), (mc2.before, mc2.after), logs, strict=True
    ):
        assert score1 == float(expected[0] > max(expected[2:]))
        shares = [math.exp(one - max(expected)) for one in expected]
        assert score2 == pytest.approx(sum(shares[:2]) / sum(shares), abs=1e-4)
    assert mc2.after is not None
    assert mc2.before is not None
    assert mc2.verdict == ("win" if mc2.after > mc2.before else "loss")


def test_mc1_looks_at_the_best_reference_alone(tiny_model_dir: Callable[..., Path]) -> None:
    judge = LikelihoodJudge(str(tiny_model_dir()), device="cpu")
    logs = judge.find_log_likelihoods(QUESTION, "x", GOOD + WRONG)
    ranked = [choice for _, choice in sorted(zip(logs, GOOD + WRONG, strict=True), reverse=True)]
    likely, middle, *_, unlikely = ranked
    cases = [
        make_case("x", "x", QUESTION, references=(likely, unlikely), wrong=(middle,)),
        make_case("x", "x", QUESTION, references=(unlikely, likely), wrong=(middle,)),
    ]
    assert [mc1.before for mc1, _ in judge_all(judge, cases)] == [1, 0]


def test_texts_are_scored_once_and_equal_ones_tie(
    tiny_model_dir: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    judge = LikelihoodJudge(str(tiny_model_dir()), device="cpu")
    asked: list[str] = []
    find = judge.find_log_likelihoods

    def note(question: str, text: str, choices: Any) -> list[float]:
        asked.append(text)
        return find(question, text, choices)

    monkeypatch.setattr(judge, "find_log_likelihoods", note)
    cases = [
        make_case("a", "a", QUESTION, references=GOOD, wrong=WRONG),
        make_case("a", "b", QUESTION, references=GOOD, wrong=WRONG),
        make_case("b", "a", QUESTION, references=GOOD, wrong=WRONG),
    ]
    same, one, turned = judge_all(judge, cases)
    assert asked == ["a", "b"]
    assert [judgement.verdict for judgement in same] == ["tie", "tie"]
    assert (one[1].before, one[1].after) == (turned[1].after, turned[1].before)


def test_what_cannot_be_judged_is_an_error_and_stops_no_other(
    tiny_model_dir: Callable[..., Path],
) -> None:
    cases = [
        make_case("a", "b", QUESTION, wrong=WRONG),
        make_case("a", "b", QUESTION, references=GOOD),
        make_case("a", "long " * 400, QUESTION, references=GOOD, wrong=WRONG),
        make_case("a", "b", QUESTION, references=(" ",), wrong=WRONG),
        make_case("a", "b", QUESTION, references=GOOD, wrong=WRONG),
    ]
    judge = LikelihoodJudge(str(tiny_model_dir()), device="cpu")
    *failed, judged = judge_all(judge, cases)
    words = ["no references", "no wrong answers", "correction: ", "blank"]
    for judgements, word in zip(failed, words, strict=True):
        for one in judgements:
            assert one.verdict is None
            assert one.error is not None
            assert word in one.error
    assert all(one.error is None for one in judged)


def test_margins_make_ties_of_mc2(tiny_model_dir: Callable[..., Path]) -> None:
    judge = LikelihoodJudge(str(tiny_model_dir()), device="cpu", margin=1.0)
    case = make_case("Boil them.", "Cool them.", QUESTION, references=GOOD, wrong=WRONG)
    assert judge_all(judge, [case])[0][1].verdict == "tie"


@pytest.mark.parametrize(
    ("arguments", "word"),
    [
        ({"template": "{question}"}, "text"),
        ({"template": "{question} {text}: "}, "end"),
        ({"template": "{question} {text} {0}"}, "other"),
        ({"batch_size": 0}, "batch_size"),
        ({"margin": -1}, "margin"),
    ],
)
def test_what_cannot_work_is_said(arguments: Any, word: str) -> None:
    with pytest.raises(ConfigurationError, match=word):
        LikelihoodJudge("a/b", **arguments)


def test_identities_differ(tiny_model_dir: Callable[..., Path]) -> None:
    name = str(tiny_model_dir())
    judges = [
        LikelihoodJudge(name),
        LikelihoodJudge("a/b"),
        LikelihoodJudge(name, template="{question} {text} So:"),
        LikelihoodJudge(name, margin=0.1),
    ]
    assert len({make_key(judge.identity) for judge in judges}) == 4
