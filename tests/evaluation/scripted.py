"""Chat models and judges with known answers that count what they are asked."""

from __future__ import annotations

import json
import os
import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from aligner_integrations.evaluation.records import Case, Judgement
from tests.training.data.chat_models import Scripted

RESPONSES = re.compile(
    r"\[\[FIRST RESPONSE \w+\]\](.*)\[\[END OF FIRST RESPONSE \w+\]\].*"
    r"\[\[SECOND RESPONSE \w+\]\](.*)\[\[END OF SECOND RESPONSE \w+\]\]",
    re.DOTALL,
)


def make_judge(better: Callable[[str], float], **more: Any) -> Scripted:
    """A pairwise judge: the text for which ``better`` is higher wins."""

    def say(prompt: str) -> str:
        found = RESPONSES.search(prompt)
        assert found, prompt
        first, second = (better(text.strip()) for text in found.groups())
        verdict = "tie" if first == second else "first" if first > second else "second"
        return json.dumps({"reason": "By rule.", "better": verdict})

    return Scripted(says=say, model_name="by-rule", **more)


def make_logging_llm(path: str, seconds: float = 0.0) -> Scripted:
    """For other processes: a line in a file for each question, before the answer.

    It answers, criticises, rewrites (see `RefinePrompts`) and judges in a way that the prompt
    decides.
    """

    def say(prompt: str) -> str:
        line = json.dumps({"prompt": prompt, "process": os.getpid()})
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(line + "\n")
        time.sleep(seconds)
        question = re.search(r"Q\d+", prompt)
        name = question[0] if question else "?"
        if "FIRST RESPONSE" in prompt:
            return json.dumps({"reason": "It is shorter.", "better": "second"})
        if "Critique:" in prompt:
            return f"A better answer to {name}."
        return f"{name} is answered rudely." if "Answer:" in prompt else f"An answer to {name}."

    return Scripted(says=say, model_name="logging")


class CountingJudge:
    """Says win where the correction differs; counts what it is asked; fails where it is told to."""

    dimensions = ("difference",)

    def __init__(
        self,
        version: int = 1,
        fails: Callable[[Case], str | None] = lambda case: None,
        stops_after: int | None = None,
    ) -> None:
        self.name = "counting"
        self.version = version
        self.fails = fails
        self.stops_after = stops_after
        self.asked: list[Case] = []

    @property
    def identity(self) -> Mapping[str, Any]:
        return {"judge": self.name, "version": self.version}

    def judge(self, cases: Sequence[Case]) -> Iterator[tuple[int, tuple[Judgement, ...]]]:
        for index, case in enumerate(cases):
            if self.stops_after is not None and len(self.asked) >= self.stops_after:
                raise KeyboardInterrupt
            self.asked.append(case)
            error = self.fails(case)
            verdict = None if error else "win" if case.changed else "tie"
            yield index, (Judgement(self.name, "difference", verdict, error=error),)
