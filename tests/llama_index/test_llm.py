from __future__ import annotations

import asyncio
import pickle
from collections.abc import Callable
from typing import Any

import pytest
from llama_index.core import PromptTemplate
from llama_index.core.base.llms.types import (
    ChatMessage,
    ChatResponse,
    CompletionResponse,
    ImageBlock,
    TextBlock,
    ThinkingBlock,
)
from llama_index.core.bridge.pydantic import BaseModel
from llama_index.core.callbacks import CallbackManager
from llama_index.core.llms import MockLLM
from llama_index.core.llms.mock import MockFunctionCallingLLM
from llama_index.core.tools import FunctionTool

from aligner_integrations import AlignedLLM, Aligner, CorrectWhen
from aligner_integrations.engines.base import Job
from aligner_integrations.errors import ConfigurationError, InputTypeError, QuestionNotFoundError
from tests.llama_index.clients import ASYNC, FORMS, as_async
from tests.llama_index.leaks import find_leaks
from tests.llama_index.upstream import (
    ANSWER,
    CANARY,
    CORRECTED,
    QUESTION,
    RICE_ANSWER,
    RICE_CORRECTED,
    RICE_QUESTION,
    CallingLLM,
    ScriptedLLM,
)

KINDS = pytest.mark.parametrize("kind", ["chat", "complete", "tools"])


def minutes(dish: str) -> str:
    """How long it takes."""
    return f"{dish}: 8"


TOOL = FunctionTool.from_defaults(minutes)


async def run(
    llm: Any, kind: str, is_async: bool, streaming: bool, messages: Any = QUESTION
) -> list[Any]:
    """What a client gets, in whichever form it asks."""
    chat = [ChatMessage(messages)] if isinstance(messages, str) else messages
    name = {"chat": "chat", "complete": "complete", "tools": "chat_with_tools"}[kind]
    name = f"{'a' if is_async else ''}{'stream_' if streaming else ''}{name}"
    arguments: Any = {"chat": [chat], "complete": [messages], "tools": [[TOOL]]}[kind]
    more = {"chat_history": chat} if kind == "tools" else {}
    found = getattr(llm, name)(*arguments, **more)
    if is_async:
        found = await found
    return [piece async for piece in as_async(found)] if streaming else [found]


def text(response: ChatResponse | CompletionResponse) -> str:
    return response.message.content if isinstance(response, ChatResponse) else response.text


@FORMS
@KINDS
async def test_answers_are_corrected_and_nothing_leaks(
    aligner: Aligner, is_async: bool, streaming: bool, kind: str
) -> None:
    llm = AlignedLLM(CallingLLM(steps=[ANSWER]), aligner)

    responses = await run(llm, kind, is_async, streaming)

    assert text(responses[-1]) == CORRECTED
    assert find_leaks(responses) == []
    record = responses[-1].additional_kwargs["aligner"]
    assert (record["changed"], record["model"]) == (True, "aligner-smol")
    assert responses[-1].raw == {"usage": {"total_tokens": 7}, "model": "calling"}
    assert responses[-1].additional_kwargs["prompt_tokens"] == 3
    if streaming:
        assert len(responses) > 2
        seen = ""
        for response in responses:
            seen += response.delta
            assert text(response) == seen
        assert [r for r in responses if "aligner" in r.additional_kwargs] == [responses[-1]]
        assert [r for r in responses if r.raw] == [responses[-1]]


@FORMS
@pytest.mark.parametrize("kind", ["chat", "complete"])
async def test_llms_that_call_no_functions(
    aligner: Aligner, is_async: bool, streaming: bool, kind: str
) -> None:
    llm = AlignedLLM(ScriptedLLM(), aligner)

    responses = await run(llm, kind, is_async, streaming)

    assert text(responses[-1]) == CORRECTED
    assert find_leaks(responses) == []
    assert llm.metadata.is_function_calling_model is False
    assert llm.metadata.model_name == "scripted"
    with pytest.raises(ConfigurationError, match="calls no functions"):
        llm.chat_with_tools([TOOL], QUESTION)


@FORMS
async def test_tool_calls_pass_through(
    aligner: Aligner, jobs: list[Job], is_async: bool, streaming: bool
) -> None:
    inner = CallingLLM(steps=[("minutes", {"dish": "eggs"})])
    llm = AlignedLLM(inner, aligner)

    responses = await run(llm, "tools", is_async, streaming)

    assert responses == await run(inner, "tools", is_async, streaming)
    calls = llm.get_tool_calls_from_response(responses[-1])
    assert [(call.tool_name, call.tool_kwargs) for call in calls] == [("minutes", {"dish": "eggs"})]
    assert jobs == []
    assert llm.predict_and_call([TOOL], QUESTION).response == "eggs: 8"


@FORMS
@pytest.mark.parametrize("answer", ["", " \n"])
async def test_blank_answers_pass_through(
    aligner: Aligner, jobs: list[Job], is_async: bool, streaming: bool, answer: str
) -> None:
    inner = ScriptedLLM(answer=answer)
    responses = await run(AlignedLLM(inner, aligner), "complete", is_async, streaming)
    assert responses == await run(inner, "complete", is_async, streaming)
    assert jobs == []


@FORMS
async def test_unchanged_answers_keep_all_that_the_provider_sent(
    aligner: Aligner, is_async: bool, streaming: bool
) -> None:
    inner = CallingLLM(steps=["Boil them for 8 minutes."])
    responses = await run(AlignedLLM(inner, aligner), "chat", is_async, streaming)
    raw = (await run(inner, "chat", is_async, streaming))[-1]
    assert responses[-1].additional_kwargs.pop("aligner")["changed"] is False
    assert responses[-1].model_copy(update={"delta": raw.delta}) == raw


@FORMS
async def test_react_scaffolding_is_left_alone(
    aligner: Aligner, jobs: list[Job], is_async: bool, streaming: bool
) -> None:
    system = ChatMessage("Use Thought:, Action:, Action Input: and Answer:", role="system")
    step = "Thought: I need a tool.\nAction: minutes\nAction Input: {'dish': 'eggs'}"
    llm = AlignedLLM(
        CallingLLM(steps=[step, f"Thought: I know.\nAnswer: {ANSWER}"], piece_length=3), aligner
    )
    messages = [system, ChatMessage(QUESTION)]

    responses = await run(llm, "chat", is_async, streaming, messages)

    assert text(responses[-1]) == step
    assert jobs == []
    messages += [ChatMessage(step, role="assistant"), ChatMessage("Observation: 8")]
    responses = await run(llm, "chat", is_async, streaming, messages)
    assert text(responses[-1]) == f"Thought: I know.\nAnswer: {CORRECTED}"
    assert find_leaks(responses) == []
    assert "".join(r.delta or "" for r in responses) in ("", text(responses[-1]))
    assert [job.question for job in jobs] == [QUESTION]


@ASYNC
async def test_scaffolding_is_no_way_around_the_aligner(aligner: Aligner, is_async: bool) -> None:
    answer = f"{ANSWER}\nAction: none\nAction Input: {{}}"
    responses = await run(AlignedLLM(ScriptedLLM(answer=answer), aligner), "chat", is_async, True)
    assert find_leaks(responses) == []


@ASYNC
async def test_blocks_that_are_no_text_keep_their_order(aligner: Aligner, is_async: bool) -> None:
    class Blocks(CallingLLM):
        def _answer(self, messages: Any) -> ChatResponse:
            blocks = [
                ThinkingBlock(content="Eggs."),
                TextBlock(text=ANSWER[:40]),
                ImageBlock(url="http://localhost/egg.png"),
                TextBlock(text=ANSWER[40:]),
            ]
            return ChatResponse(message=ChatMessage(role="assistant", blocks=blocks))

    response = (await run(AlignedLLM(Blocks(), aligner), "chat", is_async, False))[0]

    kinds = [block.block_type for block in response.message.blocks]
    assert kinds == ["thinking", "text", "image"]
    assert find_leaks(response) == []


@ASYNC
async def test_thoughts_of_a_stream_come_before_the_answer(
    aligner: Aligner, is_async: bool
) -> None:
    class Thinking(CallingLLM):
        def _pieces(self, messages: Any) -> Any:
            for thought in ("Eggs ", "boil."):
                more = {"thinking_delta": thought}
                yield ChatResponse(message=ChatMessage(""), delta="", additional_kwargs=more)
            yield from super()._pieces(messages)

    llm = AlignedLLM(Thinking(steps=[ANSWER]), aligner)
    responses = await run(llm, "chat", is_async, True)
    assert [r.additional_kwargs.get("thinking_delta") for r in responses[:2]] == [
        "Eggs boil.",
        None,
    ]
    assert text(responses[-1]) == CORRECTED


@ASYNC
async def test_structured_predictions_are_the_wrapped_llms(
    aligner: Aligner, jobs: list[Job], is_async: bool
) -> None:
    class Recipe(BaseModel):
        note: str

    llm = AlignedLLM(ScriptedLLM(answer='{"note": "idiot"}'), aligner)
    prompt = PromptTemplate("A recipe.")
    if is_async:
        made = await llm.astructured_predict(Recipe, prompt)
        response = await llm.as_structured_llm(Recipe).acomplete("A recipe.")
        pieces = [p async for p in await llm.astream_structured_predict(Recipe, prompt)]
    else:
        made = llm.structured_predict(Recipe, prompt)
        response = llm.as_structured_llm(Recipe).complete("A recipe.")
        pieces = list(llm.stream_structured_predict(Recipe, prompt))
    assert made == response.raw == Recipe(note="idiot")
    assert pieces
    assert jobs == []


@ASYNC
async def test_history(aligner: Aligner, jobs: list[Job], is_async: bool) -> None:
    inner = CallingLLM(steps=[ANSWER])
    messages = [
        ChatMessage("Be brief.", role="system"),
        ChatMessage("Hi!"),
        ChatMessage("Hello!", role="assistant"),
        ChatMessage(QUESTION),
    ]
    for arguments in (
        {},
        {"history": "all"},
        {"history": lambda found: found[:2]},
        {"history": lambda found: "Eggs?"},
        {"question": lambda found: found[-1].content[:3]},
    ):
        await run(AlignedLLM(inner, aligner, **arguments), "chat", is_async, False, messages)

    everything = f"User: Hi!\nAssistant: Hello!\nUser: {QUESTION}"
    assert [job.question for job in jobs] == [QUESTION, everything, "Hi!", "Eggs?", "How"]


@ASYNC
async def test_without_a_question(aligner: Aligner, is_async: bool) -> None:
    inner = CallingLLM(steps=[ANSWER])
    with pytest.raises(QuestionNotFoundError, match="no text from the user"):
        await run(AlignedLLM(inner, aligner), "chat", is_async, False, [])
    assert inner.asked == []
    llm = AlignedLLM(inner, aligner, question=lambda messages: 3)
    with pytest.raises(InputTypeError, match="must give a str"):
        await run(llm, "chat", is_async, True)


@FORMS
async def test_gate_and_policy(
    aligner: Aligner, silence: Callable[[Aligner], None], is_async: bool, streaming: bool
) -> None:
    silence(aligner)
    inner = CallingLLM(steps=[ANSWER])
    closed = AlignedLLM(inner, aligner, correct_when=CorrectWhen(matches="rice"))
    late = AlignedLLM(inner, aligner, max_latency=1e-9, on_error="refuse")

    skipped = (await run(closed, "chat", is_async, streaming))[-1]
    refused = await run(late, "chat", is_async, streaming)

    assert text(skipped) == ANSWER
    assert skipped.additional_kwargs["aligner"]["skipped"] == "correct_when"
    assert text(refused[-1]).startswith("I'm sorry")
    assert refused[-1].additional_kwargs["aligner"]["policy"] == "refuse"
    assert find_leaks(refused) == []


@ASYNC
async def test_closing_a_stream_frees_the_aligner(
    aligner: Aligner, jobs: list[Job], is_async: bool
) -> None:
    llm = AlignedLLM(CallingLLM(steps=[ANSWER]), aligner)
    if is_async:
        stream = await llm.astream_chat([ChatMessage(QUESTION)])
        await anext(stream)
        await stream.aclose()
    else:
        stream = llm.stream_chat([ChatMessage(QUESTION)])
        next(stream)
        stream.close()
    assert [job.cancelled for job in jobs] == [True]


@ASYNC
async def test_errors_of_the_wrapped_llm_are_its_own(
    aligner: Aligner, jobs: list[Job], is_async: bool
) -> None:
    llm = AlignedLLM(ScriptedLLM(fails_after=3), aligner, on_error="original")
    with pytest.raises(ConnectionError, match="hung up"):
        await run(llm, "complete", is_async, True)
    assert jobs == []


@FORMS
async def test_answers_that_are_json_pass_through(
    aligner: Aligner, is_async: bool, streaming: bool
) -> None:
    llm = AlignedLLM(ScriptedLLM(answer='{"minutes": 8}'), aligner)
    last = (await run(llm, "chat", is_async, streaming))[-1]
    assert (text(last), last.additional_kwargs["aligner"]["skipped"]) == ('{"minutes": 8}', "json")


@FORMS
async def test_llms_whose_stream_says_only_what_is_new(
    aligner: Aligner, is_async: bool, streaming: bool
) -> None:
    """LlamaIndex's own mock, and what breaks its conventions: messages that don't add up."""

    def answer(messages: Any, **kwargs: Any) -> Any:
        pieces = [ANSWER[i : i + 7] for i in range(0, len(ANSWER), 7)]

        async def write() -> Any:
            for piece in pieces:
                yield ChatMessage(piece, role="assistant")

        if not streaming:
            return ChatMessage(ANSWER, role="assistant")
        if is_async:
            return write()
        return (ChatMessage(piece, role="assistant") for piece in pieces)

    llm = AlignedLLM(MockFunctionCallingLLM(response_generator=answer), aligner)
    responses = await run(llm, "chat", is_async, streaming)
    assert text(responses[-1]) == CORRECTED
    assert find_leaks(responses) == []


async def test_calls_at_the_same_time_do_not_mix(aligner: Aligner) -> None:
    scripts = {QUESTION: [ANSWER], RICE_QUESTION: [RICE_ANSWER]}
    llm = AlignedLLM(CallingLLM(scripts=scripts), aligner)
    asked = [QUESTION, RICE_QUESTION] * 3
    forms = [(True, True), (True, False)] * 3
    found = await asyncio.gather(
        *(run(llm, "chat", *form, question) for question, form in zip(asked, forms, strict=True))
    )
    wanted = {QUESTION: CORRECTED, RICE_QUESTION: RICE_CORRECTED}
    assert [text(responses[-1]) for responses in found] == [wanted[q] for q in asked]


def test_predict(aligner: Aligner) -> None:
    llm = AlignedLLM(ScriptedLLM(system_prompt="Be brief."), aligner)
    predicted = llm.predict(PromptTemplate(QUESTION))
    assert predicted == "".join(llm.stream(PromptTemplate(QUESTION)))
    assert predicted.split() == CORRECTED.split()
    assert llm.system_prompt == "Be brief."


def test_callback_manager_reaches_the_wrapped_llm(aligner: Aligner) -> None:
    llm = AlignedLLM(ScriptedLLM(), aligner)
    llm.callback_manager = CallbackManager([])
    assert llm.llm.callback_manager is llm.callback_manager


def test_to_dict_and_back(aligner: Aligner) -> None:
    llm = AlignedLLM(
        MockLLM(max_tokens=5),
        aligner,
        history="all",
        correct_when=CorrectWhen(matches="egg"),
        protect=["urls"],
        max_latency=9,
    )

    data = llm.to_dict()
    restored = AlignedLLM.from_dict(data)

    assert data["class_name"] == AlignedLLM.class_name() == "AlignedLLM"
    assert restored.to_dict() == data
    assert isinstance(restored.llm, MockLLM)
    assert (restored.llm.max_tokens, restored.history) == (5, "all")
    assert AlignedLLM.from_json(llm.to_json()).to_dict() == data
    copied = pickle.loads(pickle.dumps(llm))
    assert copied.to_dict() == data
    assert copied._step().load() is not None


def test_what_cannot_be_written_down(aligner: Aligner) -> None:
    llm = MockLLM()
    for made, message in (
        (AlignedLLM(llm, aligner, history=lambda messages: messages), "history="),
        (AlignedLLM(llm, aligner, question=str), "question="),
        (AlignedLLM(llm, aligner, correct_when=lambda q, a: True), "correct_when="),
        (AlignedLLM(llm, Aligner(aligner.engine)), "from_pretrained"),
    ):
        with pytest.raises(ConfigurationError, match=message):
            made.to_dict()
    with pytest.raises(ConfigurationError, match="can't be pickled"):
        pickle.dumps(made := AlignedLLM(llm, aligner, question=lambda messages: "?"))
    assert made.question([]) == "?"
    data = AlignedLLM(llm, aligner).to_dict()
    with pytest.raises(ConfigurationError, match="import its module"):
        AlignedLLM.from_dict({**data, "llm_class": "os.system"})


@pytest.mark.parametrize("error", [TypeError, IndexError, KeyError, ValueError])
def test_answers_in_which_an_llm_cannot_look_for_calls(
    aligner: Aligner, error: type[Exception]
) -> None:
    class Picky(CallingLLM):
        def get_tool_calls_from_response(self, *args: Any, **kwargs: Any) -> Any:
            raise error("no such field")

    response = AlignedLLM(Picky(steps=[ANSWER]), aligner).chat([ChatMessage(QUESTION)])
    assert text(response) == CORRECTED


@ASYNC
async def test_streams_without_deltas_that_end_empty(aligner: Aligner, is_async: bool) -> None:
    class Whole(CallingLLM):
        def _pieces(self, messages: Any) -> Any:
            for piece in super()._pieces(messages):
                yield piece.model_copy(update={"delta": None})
            yield ChatResponse(message=ChatMessage("", role="assistant"), raw={"usage": 7})

    responses = await run(AlignedLLM(Whole(steps=[ANSWER]), aligner), "chat", is_async, True)
    assert find_leaks(responses) == []
    assert text(responses[-1]) == "".join(r.delta for r in responses) == CORRECTED
    assert responses[-1].raw == {"usage": 7}


@FORMS
async def test_answers_in_parts(aligner: Aligner, is_async: bool, streaming: bool) -> None:
    """Some providers give a text block for each sentence or citation."""
    parts = ["Boil them for 8 minutes.", CANARY, "Then cool them in cold water."]

    class Parts(CallingLLM):
        def _answer(self, messages: Any) -> ChatResponse:
            blocks = [TextBlock(text=part) for part in parts]
            more = {"whole": " ".join(parts), "parts": parts, "finish_reason": "stop"}
            message = ChatMessage(role="assistant", blocks=blocks, additional_kwargs=more)
            return ChatResponse(message=message, additional_kwargs=more, raw={"content": parts})

    responses = await run(AlignedLLM(Parts(), aligner), "chat", is_async, streaming)

    assert text(responses[-1]).split() == CORRECTED.split()
    assert responses[-1].message.additional_kwargs == {"finish_reason": "stop"}
    assert responses[-1].additional_kwargs.pop("aligner")["changed"]
    assert responses[-1].additional_kwargs == {"finish_reason": "stop"}
    assert find_leaks(responses) == []


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"llm": "gpt"}, InputTypeError, "must be a LlamaIndex LLM"),
        ({"llm": AlignedLLM(MockLLM())}, ConfigurationError, "corrected twice"),
        ({"history": "first"}, ConfigurationError, "history='first'"),
        ({"question": "Eggs?"}, ConfigurationError, "question='Eggs"),
        ({"on_error": "ignore"}, ConfigurationError, "on_error='ignore'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        AlignedLLM(**{"llm": MockLLM(), **arguments})
