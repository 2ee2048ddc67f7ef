"""Cases and judges that the tests share."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from typing import Any

from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.utils.function_calling import convert_to_openai_tool
from pydantic import PrivateAttr

from aligner_integrations.evaluation.judging import Judge
from aligner_integrations.evaluation.records import Case, Judgement, Sample

FENCED = re.compile(
    r"\[\[FIRST RESPONSE (\w+)\]\]\n(.*?)\n\[\[END OF FIRST RESPONSE \1\]\]\n\n"
    r"\[\[SECOND RESPONSE \1\]\]\n(.*?)\n\[\[END OF SECOND RESPONSE \1\]\]",
    re.DOTALL,
)


def make_case(answer: str, correction: str, question: str = "Why?", **sample: Any) -> Case:
    return Case(Sample("made", "1", question, **sample), "recorded", "aligner", answer, correction)


def judge_all(judge: Judge, cases: Sequence[Case]) -> list[tuple[Judgement, ...]]:
    """Judgements in the order of the cases; each case is judged once, on each dimension."""
    found = list(judge.judge(cases))
    assert sorted(index for index, _ in found) == list(range(len(cases)))
    for _, judgements in found:
        assert tuple(one.dimension for one in judgements) == judge.dimensions
        assert {one.judge for one in judgements} == {judge.name}
    return [judgements for _, judgements in sorted(found, key=lambda item: item[0])]


def read_pair(prompt: str) -> tuple[str, str]:
    """The two responses as the judge sees them."""
    match = FENCED.search(prompt)
    assert match, prompt
    return match[2], match[3]


def say(better: str, reason: str = "So it is.") -> str:
    return json.dumps({"reason": reason, "better": better})


def prefer(is_better: Callable[[str, str], bool | None]) -> Callable[[str], str]:
    """A judge that sees the texts alone; True where the first is better, None for a tie."""

    def decide(prompt: str) -> str:
        first_wins = is_better(*read_pair(prompt))
        return say("tie" if first_wins is None else "first" if first_wins else "second")

    return decide


class ToolCaller(BaseChatModel):
    """Replies by calling the tool that it was given, with the arguments that ``calls`` returns."""

    calls: Callable[[list[BaseMessage]], dict[str, Any] | str]
    _asked: list[list[BaseMessage]] = PrivateAttr(default_factory=list)
    _tools: list[Any] = PrivateAttr(default_factory=list)

    @property
    def asked(self) -> list[list[BaseMessage]]:
        return self._asked

    @property
    def tools(self) -> list[Any]:
        return self._tools

    def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
        return self.bind(tools=[convert_to_openai_tool(tool) for tool in tools])

    def _generate(self, messages: Any, *_: Any, tools: Any = (), **__: Any) -> ChatResult:
        self._asked.append(list(messages))
        self._tools[:] = tools
        said = self.calls(messages)
        if isinstance(said, str):
            message = AIMessage(said)
        else:
            name = tools[0]["function"]["name"]
            message = AIMessage("", tool_calls=[{"name": name, "args": said, "id": "1"}])
        return ChatResult(generations=[ChatGeneration(message=message)])

    @property
    def _llm_type(self) -> str:
        return "tool-caller"
