"""Streamed chains: the aligner reads while the LLM writes, and nothing else changes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from langchain_core.messages import AIMessage, AIMessageChunk, BaseMessage, HumanMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.outputs import ChatGenerationChunk
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.runnables import RunnableGenerator

from aligner_integrations import Aligner, AlignerRunnable
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.engines.readahead import LocalReadAhead
from aligner_integrations.errors import InputTypeError, QuestionNotFoundError
from tests.langchain.conftest import EchoEngine, Upstream, run, text_of

EGGS = "How do I boil eggs?"
RUDE = "Boil them for 8 minutes. You are clearly too stupid to cook. Then cool them in cold water."
POLITE = "Boil them for 8 minutes.  Then cool them in cold water."
CALL = {"name": "search", "args": {"q": "eggs"}, "id": "call-1", "type": "tool_call"}

streamed = pytest.mark.parametrize("mode", ["stream", "astream"])


@dataclass
class Spy:
    """What an engine was asked to read ahead, and when."""

    questions: list[str] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)
    events: list[str] = field(default_factory=list)
    used: list[bool] = field(default_factory=list)

    @property
    def text(self) -> str:
        return "".join(self.texts)


@pytest.fixture
def spy(aligner: Aligner, monkeypatch: pytest.MonkeyPatch) -> Spy:
    seen = Spy()
    engine = aligner.engine
    assert isinstance(engine, LocalEngine)
    read_ahead, submit, extend = engine.read_ahead, engine.submit, LocalReadAhead.extend

    def watched_read_ahead(question: str) -> LocalReadAhead | None:
        seen.questions.append(question)
        return read_ahead(question)

    def watched_extend(ahead: LocalReadAhead, text: str) -> None:
        if text:  # LangChain's last chunk has none
            seen.texts.append(text)
            seen.events.append("read")
        extend(ahead, text)

    def watched_submit(jobs: Any) -> None:
        seen.events.append("corrected")
        seen.used.extend(job.read_ahead is not None for job in jobs)
        submit(jobs)

    monkeypatch.setattr(engine, "read_ahead", watched_read_ahead)
    monkeypatch.setattr(engine, "submit", watched_submit)
    monkeypatch.setattr(LocalReadAhead, "extend", watched_extend)
    return seen


class Words(Upstream):
    """Writes its answer word by word, and says so."""

    told: Any = None

    def _stream(self, messages: list[BaseMessage], *args: Any, **kwargs: Any) -> Iterator[Any]:
        words = self._answer(messages).text.split(" ")
        for index, word in enumerate(words):
            if self.told is not None:
                self.told.append("written")
            time.sleep(self.delay)
            piece = word if index == len(words) - 1 else f"{word} "
            yield ChatGenerationChunk(message=AIMessageChunk(content=piece, id=self.fixed_id))


def rude(messages: list[BaseMessage]) -> str:
    return RUDE


def make_chain(kind: str, aligner: Aligner, **llm: Any) -> Any:
    upstream = Words(answer=rude, **llm)
    if kind == "str":
        return upstream | StrOutputParser() | AlignerRunnable(aligner)
    if kind == "prompt":
        prompt = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{asked}")])
        return {"asked": lambda question: question} | prompt | upstream | AlignerRunnable(aligner)
    return upstream | AlignerRunnable(aligner)


@streamed
@pytest.mark.parametrize("kind", ["message", "str", "prompt"])
async def test_streamed_chains_read_ahead(aligner: Aligner, spy: Spy, kind: str, mode: str) -> None:
    chain = make_chain(kind, aligner, told=spy.events, fixed_id="msg-1")
    wanted = chain.invoke(EGGS)
    assert spy.questions == []
    assert text_of(wanted) == POLITE
    spy.events.clear()
    spy.used.clear()
    output = await run(chain, EGGS, mode)
    assert type(output) is (str if kind == "str" else AIMessageChunk)
    assert text_of(output) == POLITE
    assert spy.questions == [EGGS]
    assert spy.text == RUDE
    assert spy.used == [True]
    assert spy.events == ["written", "read"] * len(RUDE.split(" ")) + ["corrected"]


@streamed
@pytest.mark.parametrize("kind", ["message", "str"])
async def test_raw_text_never_gets_out(aligner: Aligner, spy: Spy, kind: str, mode: str) -> None:
    chain = make_chain(kind, aligner)
    chunks: list[Any] = []
    if mode == "stream":
        chunks = list(chain.stream(EGGS))
    else:
        chunks = [chunk async for chunk in chain.astream(EGGS)]
    texts = [chunk if isinstance(chunk, str) else chunk.text for chunk in chunks]
    assert "".join(texts) == POLITE
    assert len(texts) > 2
    assert spy.questions == [EGGS]


async def test_reading_goes_on_while_the_llm_writes(aligner: Aligner, spy: Spy) -> None:
    """The worker makes its passes between two chunks, not behind the last."""
    engine = aligner.engine
    assert isinstance(engine, LocalEngine)
    lengths: list[int] = []

    def watch(chunks: Iterator[Any]) -> Iterator[Any]:
        for chunk in chunks:
            yield chunk
            deadline = time.monotonic() + 20
            while engine._working:
                assert time.monotonic() < deadline
                time.sleep(0.001)
            reading = [ahead for ahead in engine._ahead if not ahead.closed]
            lengths.append(max((ahead.prefix.cache.length for ahead in reading), default=0))

    chain = Words(answer=rude) | RunnableGenerator(watch) | AlignerRunnable(aligner)
    assert text_of(await run(chain, EGGS, "stream")) == POLITE
    prompt = engine.loaded.encoder.encode(EGGS, RUDE)
    assert lengths[-1] > prompt.answer_span[0]
    assert lengths == sorted(lengths)


@streamed
@pytest.mark.parametrize("how", ["argument", "call", "function", "key"])
async def test_questions_that_are_given(aligner: Aligner, spy: Spy, how: str, mode: str) -> None:
    upstream = Words(answer=rude)
    context = f"Context: pots and pans. Question: {EGGS}"
    prompt = ChatPromptTemplate.from_messages([("human", "Context: pots. Question: {asked}")])
    if how == "argument":
        output = await run(upstream | AlignerRunnable(aligner, question=EGGS), context, mode)
    elif how == "call":
        output = await run(upstream | AlignerRunnable(aligner).bind(question=EGGS), context, mode)
    elif how == "function":
        step = AlignerRunnable(aligner, question=lambda messages: messages[-1].text[-19:])
        output = await run(upstream | step, context, mode)
    else:
        step = AlignerRunnable(aligner, question_key="asked")
        output = await run(prompt | upstream | step, {"asked": EGGS}, mode)
    assert text_of(output) == POLITE
    assert spy.questions == [EGGS]
    assert spy.text == RUDE


class Caller(Upstream):
    """Says something and then asks for a tool."""

    def _stream(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        for word in ("Let ", "me ", "look ", "that ", "up ", "for ", "you, ", "stupid."):
            yield ChatGenerationChunk(message=AIMessageChunk(content=word, id="msg-1"))
        for name, args_ in (("search", '{"q": '), (None, '"eggs"}')):
            call = {"name": name, "args": args_, "id": name and "call-1", "index": 0}
            yield ChatGenerationChunk(
                message=AIMessageChunk(content="", id="msg-1", tool_call_chunks=[call])
            )

    async def _astream(self, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        for chunk in self._stream():
            yield chunk


@streamed
async def test_tool_calls_pass_through(aligner: Aligner, spy: Spy, mode: str) -> None:
    """Their text was read in vain: nothing is corrected, and the chunks are the LLM's own."""
    chain = Caller() | AlignerRunnable(aligner)
    output = await run(chain, EGGS, mode)
    assert output.tool_calls == [CALL]
    assert output.text == "Let me look that up for you, stupid."
    assert spy.questions == [EGGS]
    assert "corrected" not in spy.events
    alone = await run(Caller(), EGGS, mode)
    assert output.content == alone.content
    assert output.tool_call_chunks == alone.tool_call_chunks


@streamed
async def test_bare_tool_calls_and_blanks_begin_nothing(
    aligner: Aligner, spy: Spy, mode: str
) -> None:
    call = AIMessage("", tool_calls=[CALL])
    output = await run(Upstream(answer=lambda m: call) | AlignerRunnable(aligner), EGGS, mode)
    assert output.tool_calls == [CALL]
    blank = await run(Upstream(answer=lambda m: " \n ") | AlignerRunnable(aligner), EGGS, mode)
    assert not blank.text.strip()
    assert spy.questions == []
    assert spy.events == []


def begin_by_itself(upstream: Any) -> RunnableGenerator[Any, Any]:
    """A step that says something before it asks the LLM."""

    def generate(inputs: Iterator[Any]) -> Iterator[Any]:
        asked = "".join(inputs)
        yield "Well. "
        for chunk in upstream.stream(asked):
            yield chunk.text

    async def agenerate(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        asked = "".join([piece async for piece in inputs])
        yield "Well. "
        async for chunk in upstream.astream(asked):
            yield chunk.text

    return RunnableGenerator(generate, agenerate)


@streamed
async def test_a_question_that_is_known_at_the_end_only(
    aligner: Aligner, spy: Spy, mode: str
) -> None:
    chain = begin_by_itself(Words(answer=rude)) | AlignerRunnable(aligner)
    wanted = aligner.correct(EGGS, f"Well. {RUDE}").text
    spy.events.clear()
    spy.used.clear()
    assert await run(chain, EGGS, mode) == wanted
    assert spy.questions == []
    assert spy.used == [False]


def rephrase_first(upstream: Any) -> RunnableGenerator[Any, Any]:
    """A step that asks the LLM twice, and begins its answer in between."""

    def generate(inputs: Iterator[Any]) -> Iterator[Any]:
        asked = "".join(inputs)
        upstream.invoke("Rephrase this question, please.")
        for chunk in upstream.stream(asked):
            yield chunk.text

    return RunnableGenerator(generate)


async def test_a_question_that_turns_out_to_be_another(aligner: Aligner, spy: Spy) -> None:
    """What was read with the wrong one is no part of the correction."""
    questions = iter(["What is the capital of France?", EGGS])
    step = AlignerRunnable(aligner, question=lambda messages: next(questions))
    output = await run(Words(answer=rude) | step, EGGS, "stream")
    assert text_of(output) == POLITE
    assert spy.questions == ["What is the capital of France?"]
    assert spy.used == [True]


async def test_the_last_of_two_llm_calls(aligner: Aligner, spy: Spy) -> None:
    answers = {"Rephrase this question, please.": "How are eggs boiled?", EGGS: RUDE}
    upstream = Words(answer=lambda messages: answers[messages[-1].text])
    chain = rephrase_first(upstream) | AlignerRunnable(aligner)
    assert await run(chain, EGGS, "stream") == POLITE
    assert len(spy.questions) <= 1


@streamed
async def test_a_question_that_is_never_known(aligner: Aligner, spy: Spy, mode: str) -> None:
    def generate(inputs: Iterator[Any]) -> Iterator[Any]:
        yield from RUDE.split(" ")

    async def agenerate(inputs: AsyncIterator[Any]) -> AsyncIterator[Any]:
        for word in RUDE.split(" "):
            yield word

    chain = RunnableGenerator(generate, agenerate) | AlignerRunnable(aligner)
    with pytest.raises(QuestionNotFoundError, match="no LLM run was seen"):
        await run(chain, EGGS, mode)
    assert spy.questions == []


@streamed
async def test_wrong_arguments_are_told_as_ever(aligner: Aligner, spy: Spy, mode: str) -> None:
    chain = Words(answer=rude) | AlignerRunnable(aligner).bind(temperature=1)
    with pytest.raises(InputTypeError, match="'temperature'"):
        await run(chain, EGGS, mode)
    assert spy.questions == []


@streamed
async def test_whole_inputs_are_not_read_ahead(aligner: Aligner, spy: Spy, mode: str) -> None:
    """They are there at once; what comes as a dict or a list can't grow."""
    step = AlignerRunnable(aligner)
    assert await run(step, {"question": EGGS, "answer": RUDE}, mode) == POLITE
    messages = [HumanMessage(EGGS), AIMessage(RUDE)]
    assert text_of(await run(step, messages, mode)) == POLITE
    output = await run(step, {"messages": messages}, mode)
    assert text_of(output["messages"][-1]) == POLITE
    assert spy.questions == []
    assert spy.used == [False] * 3


@streamed
async def test_engines_that_cannot_read_ahead(echo: Aligner, mode: str) -> None:
    assert isinstance(echo.engine, EchoEngine)
    output = await run(Words(answer=rude) | AlignerRunnable(echo), EGGS, mode)
    assert text_of(output) == f"{EGGS} -> {RUDE}"


@streamed
async def test_an_upstream_that_fails_leaves_nothing_behind(
    aligner: Aligner, spy: Spy, mode: str
) -> None:
    def generate(chunks: Iterator[Any]) -> Iterator[Any]:
        for index, chunk in enumerate(chunks):
            if index == 9:
                raise ConnectionError("upstream hung up")
            yield chunk

    async def agenerate(chunks: AsyncIterator[Any]) -> AsyncIterator[Any]:
        at = 0
        async for chunk in chunks:
            if (at := at + 1) == 10:
                raise ConnectionError("upstream hung up")
            yield chunk

    broken = RunnableGenerator(generate, agenerate)
    chain = Words(answer=rude) | broken | AlignerRunnable(aligner, on_error="original")
    with pytest.raises(ConnectionError, match="hung up"):
        await run(chain, EGGS, mode)
    assert len(spy.texts) == 9
    assert "corrected" not in spy.events


def answer_of(messages: list[BaseMessage]) -> str:
    return f"It is {messages[-1].text.removesuffix('?').split()[-1]} minus one, as you know well."


async def test_chains_at_the_same_time_do_not_mix(aligner: Aligner, spy: Spy) -> None:
    chain = Words(answer=answer_of, delay=0.001) | AlignerRunnable(aligner)
    questions = [f"Which number comes before {n}?" for n in range(12, 20)]

    async def ask(question: str, mode: str) -> str:
        if mode == "astream":
            return text_of(await run(chain, question, mode))
        return await asyncio.to_thread(
            lambda: "".join(chunk.text for chunk in chain.stream(question))
        )

    work = [ask(q, mode) for q in questions for mode in ("stream", "astream")]
    outputs = await asyncio.gather(*work)
    wanted = [aligner.correct(q, answer_of([HumanMessage(q)])).text for q in questions]
    assert outputs == [text for text in wanted for _ in range(2)]
    assert sorted(spy.questions) == sorted(questions * 2)
