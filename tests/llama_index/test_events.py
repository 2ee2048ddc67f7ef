from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from llama_index.core.agent.workflow import AgentOutput
from llama_index.core.chat_engine import SimpleChatEngine
from llama_index.core.instrumentation import get_dispatcher
from llama_index.core.instrumentation.dispatcher import instrument_tags
from llama_index.core.instrumentation.events import BaseEvent
from llama_index.core.instrumentation.span_handlers import SimpleSpanHandler
from llama_index.core.memory import ChatMemoryBuffer
from llama_index.core.response_synthesizers import get_response_synthesizer

from aligner_integrations import (
    AlignedLLM,
    Aligner,
    AlignerChatEngine,
    AlignerFunctionAgent,
    AlignerPostprocessor,
    AlignerQueryEngine,
    AlignerSynthesizer,
    CorrectWhen,
)
from aligner_integrations.errors import CorrectionError
from aligner_integrations.llama_index import CorrectionEndEvent, CorrectionStartEvent
from tests.llama_index import test_agent, test_chat_engine, test_llm, test_synthesizer
from tests.llama_index.clients import (
    FORMS,
    WORKFLOW_WARNINGS,
    as_async,
    ask,
    make_node,
    postprocess,
    read,
)
from tests.llama_index.conftest import MakeEngine
from tests.llama_index.leaks import EventLog, find_leaks
from tests.llama_index.upstream import ANSWER, QUESTION, CallingLLM, ScriptedLLM

pytestmark = WORKFLOW_WARNINGS

COMPONENTS = [
    "AlignedLLM",
    "AlignerChatEngine",
    "AlignerFunctionAgent",
    "AlignerPostprocessor",
    "AlignerQueryEngine",
    "AlignerSynthesizer",
]


@pytest.fixture
def log() -> Iterator[EventLog]:
    log = EventLog()
    get_dispatcher().add_event_handler(log)
    yield log
    get_dispatcher().event_handlers.remove(log)


@pytest.fixture
def spans() -> Iterator[SimpleSpanHandler]:
    spans = SimpleSpanHandler()
    get_dispatcher().add_span_handler(spans)
    yield spans
    get_dispatcher().span_handlers.remove(spans)


async def use(
    name: str,
    aligner: Aligner,
    make_engine: MakeEngine,
    is_async: bool,
    streaming: bool,
    **step: Any,
) -> None:
    """Let a component correct one answer."""
    if name == "AlignedLLM":
        llm = AlignedLLM(ScriptedLLM(), aligner, **step)
        await test_llm.run(llm, "chat", is_async, streaming)
    elif name == "AlignerChatEngine":
        engine = SimpleChatEngine.from_defaults(
            llm=ScriptedLLM(), memory=ChatMemoryBuffer.from_defaults()
        )
        await test_chat_engine.say(AlignerChatEngine(engine, aligner, **step), is_async, streaming)
    elif name == "AlignerFunctionAgent":
        llm = CallingLLM(steps=[ANSWER])
        agent = AlignerFunctionAgent(llm=llm, aligner=aligner, streaming=streaming, **step)
        assert isinstance((await test_agent.run(agent))[0], AgentOutput)
    elif name == "AlignerPostprocessor":
        await postprocess(AlignerPostprocessor(aligner, **step), [make_node()], is_async)
    elif name == "AlignerQueryEngine":
        engine = AlignerQueryEngine(make_engine(streaming=streaming), aligner, **step)
        await read(await ask(engine, is_async))
    else:
        inner = get_response_synthesizer(llm=ScriptedLLM(), streaming=streaming)
        synthesizer = AlignerSynthesizer(inner, aligner, **step)
        await read(await test_synthesizer.synthesize(synthesizer, is_async))


@FORMS
@pytest.mark.parametrize("name", COMPONENTS)
async def test_events_and_spans(
    aligner: Aligner,
    make_engine: MakeEngine,
    log: EventLog,
    spans: SimpleSpanHandler,
    is_async: bool,
    streaming: bool,
    name: str,
) -> None:
    with instrument_tags({"tenant": "acme"}):
        await use(name, aligner, make_engine, is_async, streaming)

    start, end = log.of_corrections()
    component = "AlignedLLM" if name == "AlignerFunctionAgent" else name
    assert (start.class_name(), end.class_name()) == ("CorrectionStartEvent", "CorrectionEndEvent")
    assert isinstance(start, CorrectionStartEvent)
    assert isinstance(end, CorrectionEndEvent)
    assert isinstance(end, BaseEvent)
    assert (start.question, start.component) == (end.question, end.component)
    assert (end.question, end.component) == (QUESTION, component)
    assert end.record["changed"] is True
    assert find_leaks([start, end]) == []
    assert end.model_dump()["class_name"] == "CorrectionEndEvent"
    ours = [span for span in spans.completed_spans if span.id_ == end.span_id]
    assert [span.id_.partition(".")[0] for span in ours] == [component]
    if name != "AlignerFunctionAgent":  # a workflow's steps have tags of their own
        assert end.tags["tenant"] == "acme"


@FORMS
async def test_only_the_raw_llms_own_events_hold_raw_text(
    aligner: Aligner, make_engine: MakeEngine, log: EventLog, is_async: bool, streaming: bool
) -> None:
    """And what LlamaIndex reports from inside the wrapped engine: the operator's log."""
    llm = AlignedLLM(ScriptedLLM(), aligner)
    await test_llm.run(llm, "chat", is_async, streaming)
    inner = get_response_synthesizer(llm=ScriptedLLM(), streaming=streaming)
    await read(await test_synthesizer.synthesize(AlignerSynthesizer(inner, aligner), is_async))

    leaking = {type(event).__name__ for event in log.events if find_leaks(event)}
    allowed = ("LLMChat", "LLMCompletion", "LLMPredict")
    assert leaking
    assert all(name.startswith(allowed) for name in leaking)


@FORMS
@pytest.mark.parametrize("name", COMPONENTS)
async def test_failures_drop_the_span(
    aligner: Aligner,
    make_engine: MakeEngine,
    log: EventLog,
    spans: SimpleSpanHandler,
    silence: Callable[[Aligner], None],
    is_async: bool,
    streaming: bool,
    name: str,
) -> None:
    silence(aligner)
    with pytest.raises(CorrectionError, match="max_latency"):
        await use(name, aligner, make_engine, is_async, streaming, max_latency=1e-9)

    (start,) = log.of_corrections()
    assert start.span_id in [span.id_ for span in spans.dropped_spans]
    assert any(event.class_name() == "SpanDropEvent" for event in log.events)


@FORMS
@pytest.mark.parametrize("name", sorted(set(COMPONENTS) - {"AlignerFunctionAgent"}))
async def test_tags_open_the_gate(
    aligner: Aligner,
    make_engine: MakeEngine,
    log: EventLog,
    is_async: bool,
    streaming: bool,
    name: str,
) -> None:
    for tags in ({}, {"acme": 1}):
        with instrument_tags(tags):
            gate = CorrectWhen(tags=("acme",))
            await use(name, aligner, make_engine, is_async, streaming, correct_when=gate)

    ends = log.of_corrections()[1::2]
    assert [end.record["skipped"] for end in ends] == ["correct_when", None]


@pytest.mark.parametrize("is_async", [False, True], ids=["sync", "async"])
@pytest.mark.parametrize("name", ["llm", "query", "synthesizer", "chat"])
async def test_streams_keep_the_tags_that_they_were_asked_with(
    aligner: Aligner, make_engine: MakeEngine, is_async: bool, name: str
) -> None:
    """A server reads them elsewhere; were the tags lost, the gate would let the raw answer out."""
    gate = CorrectWhen(tags=("acme",))
    with instrument_tags({"tenant": "acme"}):
        if name == "llm":
            llm = AlignedLLM(ScriptedLLM(), aligner, correct_when=gate)
            pieces = (
                await llm.astream_complete(QUESTION) if is_async else llm.stream_complete(QUESTION)
            )
        elif name == "query":
            engine = AlignerQueryEngine(make_engine(streaming=True), aligner, correct_when=gate)
            pieces = (await ask(engine, is_async)).response_gen
        elif name == "synthesizer":
            inner = get_response_synthesizer(llm=ScriptedLLM(), streaming=True)
            synthesizer = AlignerSynthesizer(inner, aligner, correct_when=gate)
            pieces = (await test_synthesizer.synthesize(synthesizer, is_async)).response_gen
        else:
            simple = SimpleChatEngine.from_defaults(
                llm=ScriptedLLM(), memory=ChatMemoryBuffer.from_defaults()
            )
            chat = AlignerChatEngine(simple, aligner, correct_when=gate)
            if is_async:
                pieces = (await chat.astream_chat(QUESTION)).async_response_gen()
            else:
                pieces = chat.stream_chat(QUESTION).response_gen

    read = [piece async for piece in as_async(pieces)]
    assert len(read) > 1
    assert find_leaks(read) == []
