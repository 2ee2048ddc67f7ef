"""Finding the question that an answer belongs to. Never a guess: one question fits, or an error."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any
from uuid import UUID

from langchain_core.messages import AIMessage, BaseMessage, ChatMessage, HumanMessage

from aligner_integrations.conversation import Turn
from aligner_integrations.errors import InputTypeError, QuestionNotFoundError
from aligner_integrations.langchain.recording import RECORDER
from aligner_integrations.langchain.runs import LLMCall

QuestionFunction = Callable[[list[BaseMessage]], str]

_REMEDY = (
    "pass the question yourself: invoke({'question': ..., 'answer': ...}), a message list that "
    "ends with the answer, AlignerRunnable(question=function of the LLM's messages) or "
    "AlignerRunnable(question_key='name of a prompt variable')"
)


def last_human_text(messages: list[BaseMessage]) -> str:
    """The default question: the text of the last human message.

    Raises:
        QuestionNotFoundError: There is no human message.
    """
    for message in reversed(messages):
        if _is_human(message):
            return str(message.text)
    kinds = ", ".join(type(message).__name__ for message in messages) or "none"
    raise QuestionNotFoundError(
        f"no human message among the LLM's messages ({kinds}); pass question=..., a str or a "
        "function of the messages"
    )


def read_turns(messages: list[BaseMessage]) -> list[Turn]:
    """What user and assistant said, without tool calls and what came of them."""
    turns: list[Turn] = []
    for message in messages:
        if not message.text.strip():
            continue
        if _is_human(message):
            turns.append(Turn("user", str(message.text)))
        elif isinstance(message, AIMessage) and not message.tool_calls:
            turns.append(Turn("assistant", str(message.text)))
    return turns


def find_question(
    run_id: UUID, answer: str, message_id: str | None, read: QuestionFunction = last_human_text
) -> str:
    """The question of the LLM run that wrote an answer.

    Looked up from the aligner's own run: by message id, then by the steps before it in the
    nearest surrounding run that holds an LLM call.

    Args:
        run_id: The aligner's run.
        answer: The answer's text.
        message_id: The answer's message id, if it has one.
        read: Takes an LLM run's messages and returns the question.

    Raises:
        QuestionNotFoundError: No LLM run fits, or runs with different questions do.
    """
    for calls in _find_by_id(run_id, message_id) if message_id else ():
        questions = _distinct(calls, read)
        if len(questions) == 1:
            return questions[0]
    if calls := _find_by_step(run_id, answer):
        questions = _distinct(calls, read)
        if len(questions) == 1:
            return questions[0]
        raise QuestionNotFoundError(
            f"{len(calls)} LLM runs with {len(questions)} different questions could have "
            f"written this answer; {_REMEDY}"
        )
    raise QuestionNotFoundError(
        "no LLM run was seen before this AlignerRunnable, so its question is unknown "
        f"(an async function on Python 3.10 must hand its config on); {_REMEDY}"
    )


def find_prompt_value(run_id: UUID, key: str) -> str:
    """A prompt variable from the inputs of the nearest prompt or chain around a run.

    Raises:
        QuestionNotFoundError: No prompt or chain has it, or prompts disagree.
    """
    questions = {as_question(value) for value in _find_prompt_values(run_id, key)}
    if len(questions) == 1:
        return questions.pop()
    if questions:
        raise QuestionNotFoundError(
            f"prompts before this AlignerRunnable have {len(questions)} different values of "
            f"{key!r}; {_REMEDY}"
        )
    raise QuestionNotFoundError(
        f"no prompt or chain before this AlignerRunnable had an input named {key!r}; {_REMEDY}"
    )


def as_question(value: Any) -> str:
    """A question given as text, as a message or as a message list.

    Raises:
        InputTypeError: It is something else.
    """
    if isinstance(value, str):
        return value
    if isinstance(value, BaseMessage):
        return str(value.text)
    if isinstance(value, list) and all(isinstance(item, BaseMessage) for item in value):
        return last_human_text(value)
    raise InputTypeError(
        f"a question must be a str, a message or a message list, not {type(value).__name__}: "
        f"{value!r:.80}"
    )


def _find_by_id(run_id: UUID, message_id: str) -> list[list[LLMCall]]:
    """Calls that answered with a message id: in our own tree, then anywhere."""
    with RECORDER.lock:
        tree = RECORDER.find_tree(run_id)
        own = tree.ids.get(message_id, []) if tree else []
        return [list(own), list(RECORDER.find_calls(message_id))]


def _find_by_step(run_id: UUID, answer: str) -> list[LLMCall]:
    """Calls in a step before ours, of the nearest ancestor that has any: the best fit."""
    with RECORDER.lock:
        tree = RECORDER.find_tree(run_id)
        for ancestor in tree.ancestors(run_id) if tree else ():
            steps: dict[int, list[LLMCall]] = {}
            for call in tree.calls if tree else ():
                step = ancestor.find_step(call.run_id, call.ended)
                if step is not None:
                    steps.setdefault(step, []).append(call)
            for step in sorted(steps, reverse=True):
                if fitting := [call for call in steps[step] if answer.strip() in call.outputs]:
                    return fitting
            if steps:
                return steps[max(steps)]
    return []


def _find_prompt_values(run_id: UUID, key: str) -> list[Any]:
    """A variable's values in the last step before ours that has it, or in the run around us.

    In a step it is taken from a prompt within it, or else from the step's own input.
    """
    with RECORDER.lock:
        tree = RECORDER.find_tree(run_id)
        for ancestor in tree.ancestors(run_id) if tree else ():
            steps: dict[tuple[int, bool], list[Any]] = {}
            for candidate, run in tree.runs.items() if tree else ():
                if not run.inputs or key not in run.inputs:
                    continue
                step = ancestor.find_step(candidate, run.ended)
                if step is not None and (run.is_prompt or run.parent == ancestor.run_id):
                    steps.setdefault((step, run.is_prompt), []).append(run.inputs[key])
            if steps:
                return steps[max(steps)]
            if ancestor.run.inputs and key in ancestor.run.inputs:
                return [ancestor.run.inputs[key]]
    return []


def _is_human(message: BaseMessage) -> bool:
    """Whether the user said it; a `ChatMessage` names its role."""
    if isinstance(message, ChatMessage):
        return message.role.lower() in ("user", "human")
    return isinstance(message, HumanMessage)


def _distinct(calls: Iterable[LLMCall], read: QuestionFunction) -> list[str]:
    return list(dict.fromkeys(as_question(read(call.messages)) for call in calls))
