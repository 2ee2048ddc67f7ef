"""``llm | AlignerRunnable()`` finds its question by itself, in every shape of chain."""

from __future__ import annotations

import asyncio
import operator
import pickle
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import Annotated, Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.language_models import FakeListLLM
from langchain_core.messages import AIMessage, HumanMessage, SystemMessage
from langchain_core.output_parsers import StrOutputParser
from langchain_core.prompts import ChatPromptTemplate, PromptTemplate
from langchain_core.runnables import (
    RunnableBranch,
    RunnableLambda,
    RunnableParallel,
    RunnablePassthrough,
)
from langgraph.graph import END, START, MessagesState, StateGraph

from aligner_integrations import Aligner, AlignerRunnable
from aligner_integrations.errors import QuestionNotFoundError
from aligner_integrations.langchain.recording import (
    MAX_MESSAGE_IDS,
    MAX_TREES,
    RECORDER,
    parse_prompt,
)
from tests.langchain.conftest import MODES, Upstream, run, text_of


class State(MessagesState):
    notes: Annotated[list[str], operator.add]


PROMPT = ChatPromptTemplate.from_messages([("system", "Be brief."), ("human", "{q}")])
SAME = Upstream(answer=lambda messages: "the same")
BOOM = Upstream(failures=10**9)


def ask_twice(value: str) -> str:
    Upstream().invoke("something else")
    return str(Upstream().invoke(value).text)


CHAINS = {
    "llm": lambda a: Upstream() | a,
    "prompt": lambda a: RunnableLambda(lambda q: {"q": q}) | PROMPT | Upstream() | a,
    "parser": lambda a: Upstream() | StrOutputParser() | a,
    "edited text": lambda a: Upstream() | StrOutputParser() | (lambda text: text + "!") | a,
    "retry": lambda a: Upstream().with_retry() | a,
    "retried chain": lambda a: (
        (RunnableLambda(lambda q: [HumanMessage(q)]) | Upstream()).with_retry() | a
    ),
    "fallback": lambda a: BOOM.with_fallbacks([Upstream()]) | a,
    "fallback chain": lambda a: (
        (BOOM | StrOutputParser()).with_fallbacks([Upstream() | StrOutputParser()]) | a
    ),
    "branch": lambda a: (
        RunnableBranch((lambda q: "zzz" in q, SAME), Upstream() | StrOutputParser()) | a
    ),
    "nested sequence": lambda a: RunnablePassthrough() | (RunnableLambda(str) | Upstream()) | a,
    "nested in a lambda": lambda a: RunnableLambda(lambda q: Upstream().invoke(q)) | a,
    "text from a lambda": lambda a: RunnableLambda(lambda q: Upstream().invoke(q).text + "") | a,
    "chain from a lambda": lambda a: RunnableLambda(lambda q: Upstream() | StrOutputParser()) | a,
    "two calls in a lambda": lambda a: RunnableLambda(ask_twice) | a,
    "aligner in a sequence": lambda a: Upstream() | (RunnablePassthrough() | a),
    "parallel": lambda a: (
        RunnableParallel(x=Upstream() | a, y=SAME | a) | RunnableLambda(lambda d: d["x"])
    ),
    "picked": lambda a: (
        RunnableParallel(
            x=Upstream() | StrOutputParser(),
            y=RunnableLambda(lambda q: "another " + q) | Upstream() | StrOutputParser(),
        )
        | RunnableLambda(lambda d: d["x"])
        | a
    ),
    "second llm": lambda a: (
        RunnableLambda(lambda q: "rephrase " + q)
        | Upstream()
        | StrOutputParser()
        | RunnableLambda(lambda text: text.removeprefix("answer to rephrase ").strip())
        | Upstream()
        | StrOutputParser()
        | a
    ),
    "text model": lambda a: FakeListLLM(responses=["answer to QUESTION"]) | a,
    "text model with a chat prompt": lambda a: (
        RunnableLambda(lambda q: {"q": q})
        | PROMPT
        | FakeListLLM(responses=["answer to QUESTION"])
        | a
    ),
}


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("chain", CHAINS)
async def test_finds_the_question(chain: str, mode: str, echo: Aligner) -> None:
    output = text_of(await run(CHAINS[chain](AlignerRunnable(echo)), "QUESTION", mode))
    assert output.rstrip("!").split() == ["QUESTION", "->", "answer", "to", "QUESTION"]


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "batch", "abatch"])  # streams don't retry
async def test_after_a_failed_attempt(mode: str, echo: Aligner) -> None:
    chain = Upstream(failures=1).with_retry(wait_exponential_jitter=False) | AlignerRunnable(echo)
    assert text_of(await run(chain, "QUESTION", mode)) == "QUESTION -> answer to QUESTION"


@pytest.mark.parametrize("mode", MODES)
async def test_used_twice_in_one_chain(mode: str, echo: Aligner) -> None:
    """Streaming numbers equal steps alike; the second question must still be the second."""
    aligner = AlignerRunnable(echo)
    chain = (
        Upstream()
        | StrOutputParser()
        | aligner
        | RunnableLambda(lambda text: "SECOND")
        | Upstream()
        | StrOutputParser()
        | aligner
    )
    assert text_of(await run(chain, "FIRST", mode)) == "SECOND -> answer to SECOND"


@pytest.mark.parametrize("parse", [False, True])
@pytest.mark.parametrize("identical", [False, True])
async def test_64_at_once_do_not_mix(identical: bool, parse: bool, echo: Aligner) -> None:
    upstream = Upstream(delay=0.02, answer=SAME.answer) if identical else Upstream(delay=0.02)
    chain: Any = upstream | StrOutputParser() if parse else upstream
    chain = chain | AlignerRunnable(echo)
    asked = [f"q{index}" for index in range(64)]
    wanted = [f"{q} -> " + ("the same" if identical else f"answer to {q}") for q in asked]

    assert [text_of(o) for o in chain.batch(asked)] == wanted
    assert [text_of(o) for o in await chain.abatch(asked)] == wanted
    assert [text_of(o) for o in await asyncio.gather(*map(chain.ainvoke, asked))] == wanted
    streams = await asyncio.gather(*(run(chain, q, "astream") for q in asked))
    assert [text_of(o) for o in streams] == wanted
    with ThreadPoolExecutor(32) as pool:
        assert [text_of(o) for o in pool.map(chain.invoke, asked)] == wanted


async def test_id_decides_between_identical_answers(echo: Aligner) -> None:
    """Two questions, one text: the message's id tells them apart."""
    both = RunnableParallel(
        x=RunnableLambda(lambda q: "x" + q) | SAME, y=RunnableLambda(lambda q: "y" + q) | SAME
    )
    for key in "xy":
        chain = both | RunnableLambda(lambda d, key=key: d[key]) | AlignerRunnable(echo)
        assert chain.invoke("?").text == f"{key}? -> the same"
        assert (await chain.ainvoke("?")).text == f"{key}? -> the same"


@pytest.mark.parametrize("mode", MODES)
async def test_ambiguity_is_an_error_with_the_remedy(mode: str, echo: Aligner) -> None:
    chain = (
        RunnableParallel(x=SAME, y=RunnableLambda(lambda q: "other") | SAME)
        | RunnableLambda(lambda d: d["x"].text + "")
        | AlignerRunnable(echo)
    )
    with pytest.raises(QuestionNotFoundError, match=r"2 different questions.*question_key"):
        await run(chain, "QUESTION", mode)


def test_constant_provider_ids_fall_back_to_steps(echo: Aligner) -> None:
    upstream = Upstream(fixed_id="chatcmpl-0")
    chain = upstream | AlignerRunnable(echo)
    for question in ("one", "two", "three"):
        assert chain.invoke(question).text == f"{question} -> answer to {question}"
    with pytest.raises(QuestionNotFoundError):  # outside of a chain nothing tells them apart
        AlignerRunnable(echo).invoke(upstream.invoke("four"))


@pytest.mark.parametrize("mode", MODES)
async def test_message_outside_of_any_chain(mode: str, echo: Aligner) -> None:
    message = Upstream().invoke([SystemMessage("s"), HumanMessage("QUESTION")])
    output = await run(AlignerRunnable(echo), message, mode)
    assert text_of(output) == "QUESTION -> answer to QUESTION"


@pytest.mark.parametrize("mode", MODES)
async def test_text_outside_of_any_chain_is_an_error(mode: str, echo: Aligner) -> None:
    text = Upstream().invoke("QUESTION").text
    with pytest.raises(QuestionNotFoundError, match=r"no LLM run was seen.*'answer': "):
        await run(AlignerRunnable(echo), text + "", mode)


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_cache_hits(mode: str, echo: Aligner) -> None:
    upstream = Upstream(cache=InMemoryCache())
    chain = upstream | AlignerRunnable(echo)
    for question in ("a", "b", "a", "b"):
        assert text_of(await run(chain, question, mode)) == f"{question} -> answer to {question}"


async def test_inside_functions(echo: Aligner) -> None:
    aligner = AlignerRunnable(echo)

    def ask(question: str) -> str:
        return str(aligner.invoke(str(Upstream().invoke(question).text)))

    async def aask(question: str) -> str:
        return str(await aligner.ainvoke(str((await Upstream().ainvoke(question)).text)))

    assert RunnableLambda(ask).invoke("Q") == "Q -> answer to Q"
    if sys.version_info >= (3, 11):
        assert await RunnableLambda(aask).ainvoke("Q") == "Q -> answer to Q"


async def test_python_310_needs_the_config_in_async_functions(echo: Aligner) -> None:
    """Handing on the config works in every version of Python."""
    aligner = AlignerRunnable(echo)

    async def ask(question: str, config: Any) -> str:
        answer = await Upstream().ainvoke(question, config)
        return str(await aligner.ainvoke(str(answer.text), config))

    assert await RunnableLambda(ask).ainvoke("Q") == "Q -> answer to Q"


@pytest.mark.parametrize("as_text", [False, True])
@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_langgraph_nodes(mode: str, as_text: bool, echo: Aligner) -> None:
    aligner = AlignerRunnable(echo)

    def ask(state: MessagesState) -> Any:
        return {"messages": [Upstream().invoke(state["messages"])]}

    def correct(state: MessagesState) -> Any:
        last = state["messages"][-1]
        if as_text:
            return {"messages": [AIMessage(aligner.invoke(str(last.text)), id=last.id)]}
        return {"messages": [aligner.invoke(last)]}

    graph = StateGraph(MessagesState)
    graph.add_node("ask", ask)
    graph.add_node("correct", correct)
    graph.add_edge(START, "ask")
    graph.add_edge("ask", "correct")
    graph.add_edge("correct", END)
    value = {"messages": [("human", "QUESTION")]}
    if as_text and mode == "ainvoke" and sys.version_info < (3, 11):
        with pytest.raises(QuestionNotFoundError, match=r"Python 3\.10 must hand its config on"):
            await run(graph.compile(), value, mode)
        return
    state = await run(graph.compile(), value, mode)
    assert [m.text for m in state["messages"]] == ["QUESTION", "QUESTION -> answer to QUESTION"]


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_as_a_langgraph_node_itself(mode: str, echo: Aligner) -> None:
    """The node's update replaces the answer and adds nothing else to the state."""

    def ask(state: State) -> Any:
        return {"messages": [Upstream().invoke(state["messages"])], "notes": ["asked"]}

    graph = StateGraph(State)
    graph.add_node("ask", ask)
    graph.add_node("correct", AlignerRunnable(echo))
    graph.add_edge(START, "ask")
    graph.add_edge("ask", "correct")
    graph.add_edge("correct", END)
    value = {"messages": [("human", "QUESTION")], "notes": []}
    state = await run(graph.compile(), value, mode)
    assert [m.text for m in state["messages"]] == ["QUESTION", "QUESTION -> answer to QUESTION"]
    assert state["notes"] == ["asked"]


def test_pickled_chain() -> None:
    chain = pickle.loads(pickle.dumps(FakeListLLM(responses=["Fine."]) | AlignerRunnable()))
    assert chain.invoke("How are you?") == "Fine."


@pytest.mark.parametrize("mode", MODES)
async def test_question_function(mode: str, echo: Aligner) -> None:
    aligner = AlignerRunnable(echo, question=lambda messages: f"first was {messages[0].text}")
    output = await run(PROMPT | Upstream() | aligner, {"q": "x"}, mode)
    assert text_of(output) == "first was Be brief. -> answer to x"


@pytest.mark.parametrize("mode", MODES)
async def test_question_key(mode: str, echo: Aligner) -> None:
    prompt = PromptTemplate.from_template("Context: {context}\nQuestion: {q}")
    chain = (
        {"context": lambda q: "much text", "q": RunnablePassthrough()}
        | prompt
        | Upstream(answer=lambda messages: "yes")
        | StrOutputParser()
        | AlignerRunnable(echo, question_key="q")
    )
    assert text_of(await run(chain, "QUESTION", mode)) == "QUESTION -> yes"
    missing = Upstream() | AlignerRunnable(echo, question_key="nothing")
    with pytest.raises(QuestionNotFoundError, match="'nothing'"):
        await run(missing, "QUESTION", mode)


@pytest.mark.parametrize("mode", MODES)
async def test_question_key_from_the_chain_around(mode: str, echo: Aligner) -> None:
    inner = RunnableLambda(lambda d: d["q"]) | Upstream() | AlignerRunnable(echo, question_key="q")
    assert text_of(await run(inner, {"q": "Q"}, mode)) == "Q -> answer to Q"


@pytest.mark.parametrize("mode", MODES)
async def test_question_per_call(mode: str, echo: Aligner) -> None:
    assert await run(AlignerRunnable(echo), "yes", mode, question="Q") == "Q -> yes"
    assert await run(AlignerRunnable(echo, question="Q"), "yes", mode) == "Q -> yes"
    chain = Upstream(answer=lambda m: "yes") | AlignerRunnable(echo).bind(question="Q")
    assert text_of(await run(chain, "other", mode)) == "Q -> yes"


def test_no_human_message_is_an_error(echo: Aligner) -> None:
    with pytest.raises(QuestionNotFoundError, match=r"no human message.*SystemMessage"):
        (Upstream() | AlignerRunnable(echo)).invoke([SystemMessage("only this")])


async def test_records_are_freed(echo: Aligner) -> None:
    chain = Upstream() | AlignerRunnable(echo)
    chain.batch([f"q{index}" for index in range(50)])
    await asyncio.gather(*(run(chain, f"q{index}", "astream") for index in range(50)))
    task = asyncio.create_task(Upstream(delay=5).ainvoke("cancelled"))
    await asyncio.sleep(0.05)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    with RECORDER.lock:
        assert len(RECORDER._trees) <= MAX_TREES
        assert sum(len(tree.runs) for tree in RECORDER._trees.values()) <= len(RECORDER._roots)
        assert len(RECORDER._trees) < 50  # those of the hundred chains are gone
        assert len(RECORDER._ids) <= MAX_MESSAGE_IDS


def test_prompts_of_text_models() -> None:
    assert parse_prompt("What?") == [HumanMessage("What?")]
    assert parse_prompt("System: be brief\nHuman: What?\nAI: That.\nHuman: Why?\nReally: why?") == [
        SystemMessage("be brief"),
        HumanMessage("What?"),
        AIMessage("That."),
        HumanMessage("Why?\nReally: why?"),
    ]
    assert parse_prompt("see\nHuman: no") == [HumanMessage("see\nHuman: no")]
