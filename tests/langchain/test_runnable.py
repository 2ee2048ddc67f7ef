"""What goes in, what comes out, and what must survive on the way."""

from __future__ import annotations

import asyncio
import copy
import pickle
from itertools import pairwise
from typing import Any

import pytest
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.runnables import ConfigurableField, RunnableLambda
from langchain_core.runnables.base import RunnableSerializable

from aligner_integrations import Aligner, AlignerRunnable, GenerationOptions
from aligner_integrations.errors import (
    AlignerError,
    ConfigurationError,
    ContextOverflowError,
    CorrectionError,
)
from aligner_integrations.langchain.events import EVENT
from aligner_integrations.options import REFUSAL_TEXT
from tests.langchain.conftest import MODES, EchoEngine, Upstream, run, text_of

EGGS = "How do I boil eggs?"
RUDE = "Boil them for 8 minutes. You are clearly too stupid to cook. Then cool them in cold water."
POLITE = "Boil them for 8 minutes.  Then cool them in cold water."
CANARY = "stupid"
USAGE = {"input_tokens": 3, "output_tokens": 5, "total_tokens": 8}
CALL = {"name": "search", "args": {"q": "eggs"}, "id": "call-1", "type": "tool_call"}


def message(content: Any = "A", **kwargs: Any) -> AIMessage:
    return AIMessage(
        content,
        id="msg-1",
        name="bot",
        usage_metadata=USAGE,
        response_metadata={"model_name": "m"},
        additional_kwargs={"extra": 1},
        **kwargs,
    )


def state(answer: AIMessage) -> dict[str, Any]:
    return {"messages": [SystemMessage("S"), HumanMessage("Q"), answer], "docs": [1]}


@pytest.mark.parametrize("mode", MODES)
async def test_text(mode: str, echo: Aligner) -> None:
    value = {"question": "Q", "answer": "A"}
    assert await run(AlignerRunnable(echo), value, mode) == "Q -> A"


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "wrap", [lambda m: {"question": "Q", "answer": m}, lambda m: state(m)["messages"]]
)
async def test_message_keeps_everything(wrap: Any, mode: str, echo: Aligner) -> None:
    original = message()
    before = copy.deepcopy(original)
    output = await run(AlignerRunnable(echo), wrap(original), mode)
    assert isinstance(output, AIMessage)
    assert output.content == "Q -> A"
    assert output.id == "msg-1"
    if "stream" not in mode:  # LangChain drops names where it adds chunks up
        assert output.name == "bot"
    assert output.usage_metadata == USAGE
    assert output.additional_kwargs == {"extra": 1}
    record = output.response_metadata.pop("aligner")
    assert output.response_metadata == {"model_name": "m"}
    assert record["changed"] is True
    assert record["model"] == "echo"
    assert record["policy"] is None
    assert 0 <= record["similarity"] < 1
    assert record["seconds"] >= 0
    assert original == before


@pytest.mark.parametrize("mode", MODES)
async def test_state(mode: str, echo: Aligner) -> None:
    value = state(message())
    output = await run(AlignerRunnable(echo), value, mode)
    assert [m.content for m in output["messages"]] == ["S", "Q", "Q -> A"]
    assert output["messages"][:2] == value["messages"][:2]
    assert output["messages"][2].id == "msg-1"
    assert output["docs"] == [1]
    assert value["messages"][2].content == "A"


@pytest.mark.parametrize("mode", MODES)
async def test_state_with_a_question_key(mode: str, echo: Aligner) -> None:
    value = {**state(message()), "asked": "K"}
    output = await run(AlignerRunnable(echo, question_key="asked"), value, mode)
    assert output["messages"][-1].content == "K -> A"


@pytest.mark.parametrize("mode", MODES)
async def test_content_blocks(mode: str, echo: Aligner) -> None:
    thinking = {"type": "reasoning", "reasoning": "hm"}
    image = {"type": "image", "url": "https://example.com/x.png"}
    source = {"type": "non_standard", "value": {"source": 1}}
    blocks = [
        thinking,
        {"type": "text", "text": "A1 ", "id": "t1"},
        image,
        {"type": "text", "text": "A2", "annotations": [{"type": "citation", "url": "u"}]},
        source,
    ]
    value = {"question": "Q", "answer": message(blocks)}
    output = await run(AlignerRunnable(echo), value, mode)
    text = {"type": "text", "text": "Q -> A1 A2", "id": "t1"}
    if "stream" in mode:
        text["index"] = 1
    assert output.content == [thinking, text, image, source]
    assert output.text == "Q -> A1 A2"
    assert blocks[1]["text"] == "A1 "


@pytest.mark.parametrize("mode", ["invoke", "ainvoke", "batch", "abatch"])
async def test_unchanged_blocks_are_not_touched(mode: str, aligner: Aligner) -> None:
    blocks = [
        {"type": "text", "text": "Take "},
        {"type": "text", "text": "care.", "annotations": [1]},
    ]
    value = {"question": "Any advice?", "answer": message(blocks)}
    output = await run(AlignerRunnable(aligner), value, mode)
    assert output.content == blocks
    assert output.response_metadata["aligner"]["changed"] is False


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    "untouched",
    [
        message("calling", tool_calls=[CALL]),
        message("", tool_calls=[CALL]),
        message("x", invalid_tool_calls=[{"name": "f", "args": "{", "id": "1", "error": "bad"}]),
        AIMessage("x", additional_kwargs={"function_call": {"name": "f", "arguments": "{}"}}),
        message(""),
        message(" \n\t"),
        message([]),
        message([{"type": "image", "url": "https://example.com/x.png"}]),
        "",
        " \n ",
    ],
)
async def test_tool_calls_and_blanks_are_the_same_object(
    untouched: Any, mode: str, engine: EchoEngine
) -> None:
    runnable = AlignerRunnable(Aligner(engine))
    assert await run(runnable, untouched, mode) is untouched
    assert await run(runnable, {"question": "Q", "answer": untouched}, mode) is untouched
    assert engine.batches == []
    if isinstance(untouched, AIMessage):
        value = state(untouched)
        assert (await run(runnable, value, mode))["messages"][-1] is untouched
        assert await run(runnable, value["messages"], mode) is untouched


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_streamed_tool_calls_stay_chunks(mode: str, echo: Aligner) -> None:
    call = message("", tool_calls=[CALL])
    output = await run(Upstream(answer=lambda m: call) | AlignerRunnable(echo), "Q", mode)
    assert isinstance(output, AIMessageChunk)
    assert output.tool_calls == [CALL]
    assert output.usage_metadata == USAGE


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(
    ("value", "named"),
    [
        (7, "int"),
        (None, "NoneType"),
        (HumanMessage("Q"), "HumanMessage"),
        ([], "empty message list"),
        ([AIMessage("A"), HumanMessage("Q")], "HumanMessage"),
        ({"messages": []}, "empty message list"),
        ({"answer": "A"}, r"dict with the keys \['answer'\]"),
        ({"question": "Q", "answer": 3}, "'answer' is a int"),
        ({"question": 3, "answer": "A"}, "question must be a str.*int"),
        (b"A", "bytes"),
    ],
)
async def test_wrong_types_are_named(value: Any, named: str, mode: str, echo: Aligner) -> None:
    with pytest.raises(TypeError, match=named):
        await run(AlignerRunnable(echo), value, mode)


async def test_unknown_arguments(echo: Aligner) -> None:
    with pytest.raises(TypeError, match="'temperature'"):
        AlignerRunnable(echo).invoke({"question": "Q", "answer": "A"}, temperature=1)
    with pytest.raises(ConfigurationError, match="'nonsense' is no argument here"):
        AlignerRunnable(echo, nonsense=1)
    with pytest.raises(TypeError, match="aligner must be an Aligner, not 'aligner-smol'"):
        AlignerRunnable("aligner-smol")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="exclude each other"):
        AlignerRunnable(echo, question="Q", question_key="q")
    with pytest.raises(ValueError, match="on_error"):
        AlignerRunnable(echo, on_error="ignore")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="unknown option 'beams'"):
        AlignerRunnable(echo, options={"beams": 4})


async def test_batch_is_one_batch(engine: EchoEngine) -> None:
    runnable = AlignerRunnable(Aligner(engine))
    values = [{"question": str(i), "answer": "A" if i % 8 else " "} for i in range(64)]
    wanted = [f"{i} -> A" if i % 8 else " " for i in range(64)]
    assert runnable.batch(values) == wanted
    assert await runnable.abatch(values) == wanted
    chain = Upstream() | runnable
    chain.batch([f"q{i}" for i in range(32)])
    assert engine.batches == [56, 56, 32]
    assert runnable.batch([]) == []


@pytest.mark.parametrize("mode", ["batch", "abatch"])
async def test_one_bad_input_of_a_batch(mode: str, echo: Aligner) -> None:
    values = [{"question": "Q", "answer": "A"}, 7, {"question": "R", "answer": "B"}]
    call: Any = getattr(AlignerRunnable(echo), mode)
    outputs = call(values, return_exceptions=True)
    outputs = await outputs if mode == "abatch" else outputs
    assert [outputs[0], outputs[2]] == ["Q -> A", "R -> B"]
    assert isinstance(outputs[1], TypeError)
    with pytest.raises(TypeError, match="int"):
        await asyncio.to_thread(call, values) if mode == "batch" else await call(values)


@pytest.mark.parametrize("mode", MODES)
async def test_event_and_run(mode: str, echo: Aligner) -> None:
    from langchain_core.callbacks import AsyncCallbackHandler, BaseCallbackHandler

    seen: list[tuple[str, Any]] = []

    class Handler(BaseCallbackHandler):
        def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
            seen.append((name, data))

        def on_chain_start(self, serialized: Any, inputs: Any, **kwargs: Any) -> None:
            seen.append(("run", kwargs["name"]))

    class AsyncHandler(AsyncCallbackHandler):
        async def on_custom_event(self, name: str, data: Any, **kwargs: Any) -> None:
            seen.append((name, data))

    handlers = [Handler()] if not mode.startswith("a") else [Handler(), AsyncHandler()]
    value = {"question": "Q", "answer": "secret raw"}
    await run(AlignerRunnable(echo), value, mode, config={"callbacks": handlers})
    assert ("run", "AlignerRunnable") in seen
    events = [data for name, data in seen if name == EVENT]
    assert len(events) == len(handlers)
    assert events[0]["changed"] is True
    assert "secret" not in str(events)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("policy", ["raise", "original", "refuse"])
async def test_on_error(policy: Any, mode: str, engine: EchoEngine) -> None:
    engine.error = CorrectionError("the model broke")
    runnable = AlignerRunnable(Aligner(engine), on_error=policy)
    value = {"question": "Q", "answer": message()}
    if policy == "raise":
        with pytest.raises(CorrectionError, match="broke"):
            await run(runnable, value, mode)
        return
    output = await run(runnable, value, mode)
    assert output.content == ("A" if policy == "original" else REFUSAL_TEXT)
    assert output.response_metadata["aligner"]["policy"] == policy
    assert "the model broke" in output.response_metadata["aligner"]["error"]


@pytest.mark.parametrize("mode", MODES)
async def test_on_overflow(mode: str, aligner: Aligner) -> None:
    value = {"question": "Q", "answer": "word " * 100_000}
    with pytest.raises(ContextOverflowError, match="8192"):
        await run(AlignerRunnable(aligner), value, mode)
    original = AlignerRunnable(aligner, on_overflow="original")
    assert await run(original, value, mode) == value["answer"]
    by_options = AlignerRunnable(aligner, options=GenerationOptions(on_overflow="refuse"))
    assert await run(by_options, value, mode) == REFUSAL_TEXT


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("as_text", [False, True])
async def test_the_real_aligner_leaks_nothing(mode: str, as_text: bool, aligner: Aligner) -> None:
    upstream: Any = Upstream(answer=lambda m: RUDE)
    chain = upstream | RunnableLambda(lambda m: m.text.strip() if as_text else m)
    chain = (chain if as_text else upstream) | AlignerRunnable(aligner)
    pieces: list[Any] = []
    if mode == "stream":
        pieces = list(chain.stream(EGGS))
    elif mode == "astream":
        pieces = [piece async for piece in chain.astream(EGGS)]
    else:
        pieces = [await run(chain, EGGS, mode)]
    assert text_of("".join(p if isinstance(p, str) else p.text for p in pieces)) == POLITE
    assert CANARY not in repr(pieces)
    if "stream" in mode:
        assert len(pieces) > 2
        if not as_text:
            assert [p.chunk_position for p in pieces].count("last") == 1
            assert pieces[-1].chunk_position == "last"
            assert len({p.id for p in pieces}) == 1


async def test_the_event_loop_stays_free(aligner: Aligner) -> None:
    ticks: list[float] = []

    async def tick() -> None:
        loop = asyncio.get_running_loop()
        while True:
            ticks.append(loop.time())
            await asyncio.sleep(0.01)

    ticker = asyncio.create_task(tick())
    chain = AlignerRunnable(aligner)
    value = {"question": EGGS, "answer": RUDE}
    outputs = await asyncio.gather(
        *(run(chain, value, m) for m in ("ainvoke", "astream", "abatch"))
    )
    ticker.cancel()
    assert outputs == [POLITE] * 3
    gaps = [later - earlier for earlier, later in pairwise(ticks)]
    assert len(ticks) > 20
    assert sorted(gaps)[len(gaps) // 2] < 0.05  # a forward pass alone takes longer


@pytest.mark.filterwarnings("ignore:The function `loads` is in beta")
def test_serialisation(aligner: Aligner) -> None:
    runnable = AlignerRunnable(
        model="aligner-smol",
        load_options={"device": "cpu"},
        question_key="q",
        on_error="original",
        options=GenerationOptions(max_new_tokens=300),
    )

    def load(text: str) -> Any:
        return loads(
            text, valid_namespaces=["aligner_integrations"], allowed_objects=[AlignerRunnable]
        )

    again = load(dumps(runnable))
    assert again == runnable
    assert again.options.max_new_tokens == 300

    loaded = AlignerRunnable(aligner)
    again = load(dumps(loaded))
    assert again.model == "aligner-smol"
    assert again.invoke({"question": EGGS, "answer": RUDE}) == POLITE
    assert again.step.load() is not None
    assert '"not_implemented"' in dumps(AlignerRunnable(Aligner(EchoEngine())))


def test_pickle(aligner: Aligner) -> None:
    runnable = pickle.loads(pickle.dumps(AlignerRunnable(aligner, on_error="refuse")))
    assert runnable.on_error == "refuse"
    assert runnable.invoke({"question": EGGS, "answer": RUDE}) == POLITE
    with pytest.raises(AlignerError, match="from_pretrained"):
        pickle.dumps(AlignerRunnable(Aligner(EchoEngine())))


@pytest.mark.parametrize("mode", MODES)
async def test_configurable_fields(mode: str, engine: EchoEngine) -> None:
    engine.error = CorrectionError("broken")
    runnable: RunnableSerializable[Any, Any] = AlignerRunnable(Aligner(engine)).configurable_fields(
        on_error=ConfigurableField(id="on_error")
    )
    chain = Upstream() | runnable
    with pytest.raises(CorrectionError):
        await run(chain, "Q", mode)
    output = await run(chain, "Q", mode, config={"configurable": {"on_error": "refuse"}})
    assert text_of(output) == REFUSAL_TEXT


def test_shared_model(aligner: Aligner) -> None:
    assert AlignerRunnable().step.load() is aligner
    assert AlignerRunnable(model="aligner-smol").step.load() is aligner
