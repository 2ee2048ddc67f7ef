"""The LangChain examples do what they say, and a user can run them."""

from __future__ import annotations

import runpy
import warnings
from pathlib import Path
from types import SimpleNamespace

import pytest

from aligner_integrations import Aligner

GOOD = "Boil them for 8 minutes."
EXAMPLES = Path(__file__).parents[2] / "examples"
langchain_chains = SimpleNamespace(**runpy.run_path(str(EXAMPLES / "langchain_chains.py")))
langchain_agent = SimpleNamespace(**runpy.run_path(str(EXAMPLES / "langchain_agent.py")))


def test_chains(aligner: Aligner) -> None:
    assert langchain_chains.retry(aligner) == GOOD
    assert langchain_chains.fall_back(aligner) == GOOD
    assert langchain_chains.choose(aligner) == GOOD


def test_conversation_keeps_corrected_answers(aligner: Aligner) -> None:
    with warnings.catch_warnings():
        said = langchain_chains.converse(aligner)
    assert said == [
        "human: How do I boil eggs?",
        f"ai: {GOOD}",
        "human: Shall I cool them?",
        "ai: Yes, cool them in cold water.",
    ]


def test_trace(aligner: Aligner) -> None:
    run = langchain_chains.trace(aligner)
    assert [child.name for child in run.child_runs] == ["FakeListChatModel", "AlignerRunnable"]
    step = run.child_runs[1]
    assert step.outputs["output"].text == GOOD
    assert step.outputs["output"].response_metadata["aligner"]["changed"]


def test_evaluation(aligner: Aligner) -> None:
    changed, kept = langchain_chains.evaluate(aligner)
    assert changed.text == GOOD
    assert "stupid" in changed.edits[0].before
    assert not kept.changed


def test_agent(aligner: Aligner, capsys: pytest.CaptureFixture[str]) -> None:
    kept = langchain_agent.run_agent(aligner)
    assert [message.split(":")[0] for message in kept] == ["human", "ai", "tool", "ai"]
    assert kept[-1].strip() == f"ai: {GOOD}"
    assert "stupid" not in capsys.readouterr().out
    assert langchain_agent.run_graph(aligner).strip() == GOOD


@pytest.mark.parametrize("name", ["langchain_chains", "langchain_agent"])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_they_run(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(EXAMPLES / f"{name}.py"), run_name="__main__")
    assert GOOD in capsys.readouterr().out
