"""Corrected chains in LangChain: retries, fallbacks, conversations, traces and evaluation.

The upstream LLMs are scripted, so that what goes wrong goes wrong every time; the aligner is real.

    pip install 'aligner-integrations[langchain]'
    python examples/langchain_chains.py
"""

from __future__ import annotations

import warnings
from typing import Any

from langchain_core._api import LangChainDeprecationWarning
from langchain_core.chat_history import InMemoryChatMessageHistory
from langchain_core.language_models import FakeListChatModel
from langchain_core.prompts import ChatPromptTemplate, MessagesPlaceholder
from langchain_core.runnables import Runnable, RunnableLambda
from langchain_core.runnables.history import RunnableWithMessageHistory
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.schemas import Run
from rich.console import Console
from rich.rule import Rule
from rich.tree import Tree

from aligner_integrations import AlignedChatModel, Aligner, AlignerRunnable, Correction, CorrectWhen

QUESTION = "How do I boil eggs?"
RUDE = "Boil them for 8 minutes. You are clearly too stupid to cook."

console = Console()


def say(*answers: str) -> FakeListChatModel:
    """An LLM that gives these answers, one after another."""
    return FakeListChatModel(responses=list(answers))


def retry(aligner: Aligner) -> str:
    """A provider that fails at first: the retried answer is corrected."""
    failures = iter([True, False])

    def flaky(value: Any) -> Any:
        if next(failures):
            raise ConnectionError("the provider is down")
        return value

    llm = RunnableLambda(flaky) | say(RUDE)
    chain = llm.with_retry(wait_exponential_jitter=False) | AlignerRunnable(aligner)
    return str(chain.invoke(QUESTION).text)


def fall_back(aligner: Aligner) -> str:
    """A provider that is down: the other one's answer is corrected."""

    def down(value: Any) -> Any:
        raise ConnectionError("the provider is down")

    llm = (RunnableLambda(down) | say("never said")).with_fallbacks([say(RUDE)])
    return str((llm | AlignerRunnable(aligner)).invoke(QUESTION).text)


def converse(aligner: Aligner) -> list[str]:
    """A conversation whose history holds corrected answers, so no later turn sees the raw ones.

    The aligner reads the whole conversation as the question. (LangChain now advises to keep
    histories with LangGraph, as in langchain_agent.py, and says so with a warning.)
    """
    warnings.simplefilter("ignore", LangChainDeprecationWarning)
    store: dict[str, InMemoryChatMessageHistory] = {}
    prompt = ChatPromptTemplate.from_messages(
        [("system", "You cook."), MessagesPlaceholder("history"), ("human", "{question}")]
    )
    llm = AlignedChatModel(say(RUDE, "Yes, cool them in cold water."), aligner, history="all")
    chain = RunnableWithMessageHistory(
        prompt | llm,
        lambda session_id: store.setdefault(session_id, InMemoryChatMessageHistory()),
        input_messages_key="question",
        history_messages_key="history",
    )
    config = {"configurable": {"session_id": "ann"}}
    for question in (QUESTION, "Shall I cool them?"):
        chain.invoke({"question": question}, config)
    return [f"{message.type}: {message.text}" for message in store["ann"].messages]


class LocalTracer(BaseTracer):
    """Keeps run trees, as LangSmith's tracer sends them away."""

    def __init__(self) -> None:
        super().__init__()
        self.runs: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.runs.append(run)


def trace(aligner: Aligner) -> Run:
    """What traces show: the aligner is a step of its own, with its record as an event."""
    tracer = LocalTracer()
    chain: Runnable[Any, Any] = say(RUDE) | AlignerRunnable(aligner)
    chain.invoke(QUESTION, {"callbacks": [tracer], "run_name": "guarded chat"})
    return tracer.runs[0]


def evaluate(aligner: Aligner) -> list[Correction]:
    """Corrections as values, with edits and statistics: a step for an evaluation."""
    chain = say(RUDE, "Put them into boiling water.") | AlignerRunnable(
        aligner, return_correction=True
    )
    return [chain.invoke(QUESTION), chain.invoke(QUESTION)]


def choose(aligner: Aligner) -> str:
    """Only what is tagged "public" is corrected, and within a minute, or else refused."""
    step = AlignerRunnable(
        aligner,
        correct_when=CorrectWhen(tags=("public",)),
        max_latency=60,
        on_error="refuse",
        protect=["urls", "citations"],
    )
    chain = say(RUDE) | step
    return str(chain.invoke(QUESTION, {"tags": ["public"]}).text)


def draw(run: Run, tree: Tree | None = None) -> Tree:
    """A run and what ran within it."""
    label = f"{run.name} [dim]{run.run_type}[/]"
    branch = Tree(label) if tree is None else tree.add(label)
    for child in run.child_runs:
        draw(child, branch)
    return branch


def main() -> None:
    with console.status("Loading aligner-smol ..."):
        aligner = Aligner.from_pretrained()
    console.print(Rule("with_retry", align="left"), retry(aligner))
    console.print(Rule("with_fallbacks", align="left"), fall_back(aligner))
    console.print(Rule("RunnableWithMessageHistory", align="left"), *converse(aligner), sep="\n")
    console.print(Rule("Tracing", align="left"), draw(trace(aligner)))
    console.print(Rule("return_correction=True", align="left"))
    for correction in evaluate(aligner):
        console.print(correction)
    console.print(Rule("correct_when, max_latency, protect", align="left"), choose(aligner))


if __name__ == "__main__":
    main()
