"""Self-refine with functions, LangChain models and a tiny local one."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from langchain_core.language_models import FakeListChatModel

from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.training.baselines.refine import (
    RefinePrompts,
    refine,
    refine_answers,
)
from aligner_integrations.training.baselines.upstream import load_upstream
from aligner_integrations.training.data import AskingError, read_triples

PAIRS = [(f"How do I cook {food}?", f"Boil the {food}, fool.") for food in ("eggs", "rice", "corn")]


def politely(prompt: str) -> str:
    """A model that finds rude answers rude, and drops what is rude."""
    answer = prompt.split("Answer:\n")[1].split("\n\n", maxsplit=1)[0]
    if "Critique:" in prompt:
        return answer.replace(", fool", "")
    return "It is rude." if "fool" in answer else "NOTHING TO CHANGE"


def test_critique_and_rewrite() -> None:
    done = refine(politely, "Eggs?", "Boil them, fool.", rounds=5)
    assert (done.critiques, done.text) == (("It is rude.",), "Boil them.")
    assert refine(politely, "Eggs?", "Boil them.").text == "Boil them."


def test_a_langchain_model_and_texts_that_look_like_slots() -> None:
    seen: list[str] = []

    class Model(FakeListChatModel):
        def invoke(self, prompt, *args, **kwargs):  # type: ignore[no-untyped-def]
            seen.append(prompt)
            return super().invoke(prompt, *args, **kwargs)

    prompts = RefinePrompts(critique="{question}|{answer}", rewrite="{question}{answer}{critique}")
    model = Model(responses=["{answer}?", "New."])
    assert refine(model, "{critique}", "{question}", prompts=prompts).text == "New."
    assert seen == ["{critique}|{question}", "{critique}{question}{answer}?"]


@pytest.mark.parametrize("concurrency", [1, 2])
def test_many_and_resumed(tmp_path: Path, concurrency: int) -> None:
    out = tmp_path / "refined.jsonl"
    calls = 0
    lock = threading.Lock()

    def counted(prompt: str) -> str:
        nonlocal calls
        with lock:
            calls += 1
        if "corn" in prompt and calls < 100:
            raise TimeoutError("slow")
        return politely(prompt)

    options = {"concurrency": concurrency, "progress": False, "name": "m"}
    first = refine_answers(counted, PAIRS, out, **options)  # type: ignore[arg-type]
    assert (first.written, first.failed) == (2, 1)
    calls = 100
    again = refine_answers(counted, PAIRS, out, **options)  # type: ignore[arg-type]
    assert (again.written, again.done_before, again.failed) == (1, 2, 0)
    assert calls == 102
    triples = {triple.answer: triple.correction for triple in read_triples(out)}
    assert triples == {answer: answer.replace(", fool", "") for _, answer in PAIRS}
    with pytest.raises(DataError, match="'prompts' is"):
        refine_answers(counted, PAIRS, out, rounds=2, progress=False, name="m")


def test_failures(tmp_path: Path) -> None:
    def broken(prompt: str) -> str:
        raise ConnectionError("no route")

    with pytest.raises(AskingError, match=r"last 2 answers failed.*no route"):
        refine_answers(broken, PAIRS, tmp_path / "a.jsonl", progress=False, patience=2)
    blank = tmp_path / "b.jsonl"
    report = refine_answers(
        lambda prompt: "" if "Critique:" in prompt else "Bad.", PAIRS, blank, progress=False
    )
    assert report.failed == 3
    assert "the rewrite is unusable" in json.loads(blank.read_text().splitlines()[0])["error"]
    with pytest.raises(ConfigurationError, match=r"'rewrite' has no \{critique\}"):
        RefinePrompts(rewrite="{question} {answer}")
    with pytest.raises(ConfigurationError, match="rounds=0"):
        refine(politely, "Q", "A", rounds=0)
    with pytest.raises(ConfigurationError, match="int is neither"):
        refine(1, "Q", "A")


def test_a_local_model(tiny_model_dir: Callable[..., Path]) -> None:
    directory = tiny_model_dir(writes="Cool water.")
    upstream = load_upstream(str(directory), device="cpu")
    assert refine(upstream.ask, "Eggs?", "Boil.").text == "Cool water."
