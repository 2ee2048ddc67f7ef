"""What `AlignerRunnable` can be told about which answers it corrects, and how."""

from __future__ import annotations

from typing import Any

import pytest
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage, ToolMessage
from langchain_core.prompts import ChatPromptTemplate

from aligner_integrations import Aligner, AlignerRunnable, Correction, CorrectWhen
from aligner_integrations.engines.base import Job
from aligner_integrations.errors import (
    ConfigurationError,
    CorrectionError,
    LatencyError,
    QuestionNotFoundError,
)
from aligner_integrations.langchain.questions import read_turns
from tests.langchain.conftest import CANARY, MODES, CanaryEngine, EchoEngine, Upstream, run, text_of

PAIR = {"question": "Eggs?", "answer": f"Boil them, {CANARY} you."}
GOOD = "Boil them, you."
every_mode = pytest.mark.parametrize("mode", MODES)


@every_mode
@pytest.mark.parametrize("answer", [PAIR["answer"], AIMessage(PAIR["answer"], id="m-1")])
async def test_return_correction(guard: Aligner, mode: str, answer: Any) -> None:
    step = AlignerRunnable(guard, return_correction=True)
    correction = await run(step, {"question": "Eggs?", "answer": answer}, mode)
    assert isinstance(correction, Correction)
    assert (correction.question, correction.text) == ("Eggs?", GOOD)
    assert correction.answer == PAIR["answer"]
    assert correction.edits


@every_mode
async def test_return_correction_where_there_is_nothing_to_correct(
    canary: CanaryEngine, mode: str
) -> None:
    step = AlignerRunnable(Aligner(canary), return_correction=True)
    call = {"name": "f", "args": {}, "id": "1"}
    for answer, skipped in [
        (AIMessage("x", tool_calls=[call]), "tool_calls"),
        (AIMessage(" "), "blank"),
        (" ", "blank"),
        ('{"a": 1}', "json"),
        ("```py\nx\n```", "code"),
    ]:
        correction = await run(step, {"question": "Q?", "answer": answer}, mode)
        assert isinstance(correction, Correction)
        assert correction.skipped == skipped
        assert not correction.changed
    assert not canary.jobs


async def test_return_correction_in_a_chain(guard: Aligner) -> None:
    llm = Upstream(answer=lambda messages: PAIR["answer"])
    chain = llm | AlignerRunnable(guard, return_correction=True)
    for mode in MODES:
        correction = await run(chain, "Eggs?", mode)
        assert (correction.question, correction.text.strip()) == ("Eggs?", GOOD)


@every_mode
async def test_json_and_code_pass(guard: Aligner, mode: str) -> None:
    answer = f'{{"word": "{CANARY}"}}'
    output = await run(AlignerRunnable(guard), {"question": "Q?", "answer": answer}, mode)
    assert output == answer
    message = AIMessage(answer, id="m-1")
    output = await run(AlignerRunnable(guard), {"question": "Q?", "answer": message}, mode)
    assert (output.text, output.id) == (answer, "m-1")
    assert output.response_metadata["aligner"]["skipped"] == "json"
    strict = AlignerRunnable(guard, options={"pass_through": ["code"]})
    output = await run(strict, {"question": "Q?", "answer": answer}, mode)
    assert CANARY not in output


@every_mode
async def test_gates(canary: CanaryEngine, mode: str) -> None:
    aligner = Aligner(canary)
    for gate, corrected in [
        (CorrectWhen(longer_than=10), True),
        (CorrectWhen(longer_than=100), False),
        ({"matches": "Boil"}, True),
        ({"matches": "Fry"}, False),
        (lambda question, answer: question == "Eggs?", True),
        (lambda question, answer: False, False),
        (CorrectWhen(tags=("public",)), False),
    ]:
        output = await run(AlignerRunnable(aligner, correct_when=gate), PAIR, mode)
        assert (output == GOOD) is corrected
    gated = AlignerRunnable(aligner, correct_when=CorrectWhen(tags=("public", "web")))
    assert await run(gated, PAIR, mode, config={"tags": ["public"]}) == GOOD
    assert await run(gated.with_config(tags=["web"]), PAIR, mode) == GOOD
    chain = Upstream(answer=lambda messages: PAIR["answer"]) | gated
    assert text_of(await run(chain, "Eggs?", mode, config={"tags": ["web"]})) == GOOD


@pytest.mark.parametrize("mode", ["batch", "abatch"])
async def test_tags_of_each_in_a_batch(guard: Aligner, mode: str) -> None:
    gated = AlignerRunnable(guard, correct_when=CorrectWhen(tags=("public",)))
    configs = [{"tags": ["public"]}, {}, {"tags": ["public"]}]
    values = [PAIR] * 3
    outputs = gated.batch(values, configs)
    if mode == "abatch":
        outputs = await gated.abatch(values, configs)
    assert outputs == [GOOD, PAIR["answer"], GOOD]


TURNS = [
    SystemMessage("Be kind."),
    HumanMessage("I have eggs."),
    AIMessage("", tool_calls=[{"name": "f", "args": {}, "id": "1"}]),
    ToolMessage("8 minutes", tool_call_id="1"),
    AIMessage("Good!"),
    HumanMessage([{"type": "text", "text": "How "}, {"type": "text", "text": "long?"}]),
]
ALL = "User: I have eggs.\nAssistant: Good!\nUser: How long?"


@every_mode
async def test_history(engine: EchoEngine, mode: str) -> None:
    llm = Upstream(answer=lambda messages: "8 minutes.")
    for arguments, question in [
        ({"history": "last"}, "How long?"),
        ({"history": "all"}, ALL),
        ({"history": lambda messages: messages[-2:]}, "Assistant: Good!\nUser: How long?"),
        ({"history": lambda messages: f"{len(messages)} messages"}, "6 messages"),
    ]:
        step = AlignerRunnable(Aligner(engine), **arguments)
        assert text_of(await run(llm | step, TURNS, mode)) == f"{question} -> 8 minutes."
        state = {"messages": [*TURNS, AIMessage("8 minutes.")]}
        output = await run(step, state, mode)
        assert output["messages"][-1].text == f"{question} -> 8 minutes."


async def test_history_without_a_user(engine: EchoEngine) -> None:
    step = AlignerRunnable(Aligner(engine), history="all")
    with pytest.raises(QuestionNotFoundError, match="no text from the user"):
        step.invoke([SystemMessage("Be kind."), AIMessage("8 minutes.")])
    assert read_turns([HumanMessage(" "), ToolMessage("x", tool_call_id="1")]) == []


class Silent(CanaryEngine):
    """Takes jobs and never answers; or, with a piece, answers that and no more."""

    piece = ""

    def submit(self, jobs: Any) -> None:
        taken: list[Job] = list(jobs)
        self.jobs += taken
        for job in taken:
            if self.piece:
                job.emit(self.piece)


@every_mode
async def test_deadline(mode: str) -> None:
    engine = Silent()
    aligner = Aligner(engine, refusal_text="No.")
    with pytest.raises(LatencyError, match=r"longer than max_latency=0\.02 s"):
        await run(AlignerRunnable(aligner, max_latency=0.02), PAIR, mode)
    assert engine.jobs[-1].cancelled
    for policy, text in (("original", PAIR["answer"]), ("refuse", "No.")):
        step = AlignerRunnable(aligner, max_latency=0.02, on_error=policy)
        assert await run(step, PAIR, mode) == text
    engine.piece = "Boil"
    if "stream" in mode:  # what was sent can't be taken back
        with pytest.raises(LatencyError):
            await run(AlignerRunnable(aligner, max_latency=0.02, on_error="refuse"), PAIR, mode)
    else:
        step = AlignerRunnable(aligner, max_latency=0.02, on_error="refuse")
        assert await run(step, PAIR, mode) == "No."


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_streaming_units(guard: Aligner, mode: str) -> None:
    answer = f"Boil them, {CANARY} you. Then cool them! Done"
    value = {"question": "Eggs?", "answer": answer}
    for unit, pieces in [
        ("sentence", ["Boil them, you. ", "Then cool them! ", "Done"]),
        ("word", ["Boil ", "them, ", "you. ", "Then ", "cool ", "them! ", "Done"]),
    ]:
        step = AlignerRunnable(guard, options={"stream_by": unit})
        if mode == "stream":
            assert list(step.stream(value)) == pieces
        else:
            assert [piece async for piece in step.astream(value)] == pieces


async def test_protected_parts(aligner: Aligner) -> None:
    answer = "Boil them for 8 minutes [1]. You are clearly too stupid to cook."
    step = AlignerRunnable(aligner, protect=["citations", "numbers"], return_correction=True)
    correction = step.invoke({"question": "How do I boil eggs?", "answer": answer})
    assert correction.text == "Boil them for 8 minutes [1]."
    assert correction.lost == ()


@pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
def test_serialisation() -> None:
    step = AlignerRunnable(
        history="all",
        correct_when={"longer_than": 9, "tags": ["a"]},
        protect=["urls"],
        max_latency=1.5,
        return_correction=True,
    )
    again = loads(
        dumps(step),
        valid_namespaces=["aligner_integrations"],
        allowed_objects=[AlignerRunnable],
    )
    assert again == step
    assert again.correct_when == CorrectWhen(longer_than=9, tags=("a",))


def test_wrong_arguments(guard: Aligner) -> None:
    for arguments, message in [
        ({"history": "some"}, "history='some' must be 'last', 'all' or a function"),
        ({"protect": "urls"}, "protect='urls' must be a list"),
        ({"protect": ["("]}, r"protect='\(' is no regular expression"),
        ({"max_latency": 0}, "max_latency=0 must be a number of seconds above 0"),
        ({"correct_when": 3}, "correct_when=3 must be a function"),
        ({"correct_when": {"shorter_than": 3}}, "has no condition 'shorter_than'"),
        ({"model": "x"}, "two aligners"),
    ]:
        with pytest.raises(ConfigurationError, match=message):
            AlignerRunnable(guard, **arguments)


@every_mode
async def test_configurable(canary: CanaryEngine, mode: str) -> None:
    from langchain_core.runnables import ConfigurableField

    canary.error = CorrectionError("broken")
    step = AlignerRunnable(Aligner(canary)).configurable_fields(
        on_error=ConfigurableField(id="on_error")
    )
    output = await run(step, PAIR, mode, config={"configurable": {"on_error": "original"}})
    assert output == PAIR["answer"]
    prompt = ChatPromptTemplate.from_template("{q}")
    chain = prompt | Upstream(answer=lambda messages: "8.") | step
    output = await run(chain, {"q": "Q"}, mode, config={"configurable": {"on_error": "original"}})
    assert text_of(output) == "8."
