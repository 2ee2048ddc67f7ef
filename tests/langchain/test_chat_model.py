"""`AlignedChatModel`: everything that a chat model does, corrected."""

from __future__ import annotations

import asyncio
import pickle
import threading
from typing import Any

import pytest
from langchain_core.caches import InMemoryCache
from langchain_core.callbacks import (
    BaseCallbackHandler,
    UsageMetadataCallbackHandler,
    get_usage_metadata_callback,
)
from langchain_core.language_models import BaseChatModel, FakeListChatModel
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage, AIMessageChunk, HumanMessage, SystemMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.tracers import BaseTracer
from langchain_core.tracers.schemas import Run
from pydantic import BaseModel

from aligner_integrations import AlignedChatModel, Aligner, AlignerRunnable, CorrectWhen
from aligner_integrations.errors import (
    ConfigurationError,
    CorrectionError,
    InputTypeError,
    QuestionNotFoundError,
)
from aligner_integrations.langchain import tags
from tests.langchain.conftest import (
    CANARY,
    MODES,
    CanaryEngine,
    EchoEngine,
    Upstream,
    run,
    text_of,
)

RAW = f"Boil them, {CANARY} you, for 8 minutes."
GOOD = "Boil them, you, for 8 minutes."
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")
USAGE = {"input_tokens": 7, "output_tokens": 5, "total_tokens": 12}
every_mode = pytest.mark.parametrize("mode", MODES)


def answering(answer: Any, **kwargs: Any) -> Upstream:
    return Upstream(answer=lambda messages: answer, **kwargs)


class Tracer(BaseTracer):
    """A local tracer in the manner of LangSmith's: whole run trees."""

    def __init__(self) -> None:
        super().__init__()
        self.roots: list[Run] = []

    def _persist_run(self, run: Run) -> None:
        self.roots.append(run)


class Everything(BaseCallbackHandler):
    """Writes down all that callbacks are told."""

    def __init__(self) -> None:
        self.seen: list[str] = []

    def __getattribute__(self, name: str) -> Any:
        if name.startswith("on_"):
            return lambda *args, **kwargs: self.seen.append(f"{name} {args!r} {kwargs!r}")
        return super().__getattribute__(name)


@every_mode
async def test_every_way_corrects_and_nothing_leaks(guard: Aligner, mode: str) -> None:
    everything, tracer = Everything(), Tracer()
    model = AlignedChatModel(answering(RAW), guard)
    output = await run(model, "Eggs?", mode, config={"callbacks": [everything, tracer]})
    assert text_of(output) == GOOD
    assert output.response_metadata["aligner"]["changed"]
    assert CANARY not in repr(output)
    assert everything.seen
    assert CANARY not in "".join(everything.seen)
    assert len(tracer.roots) == 1  # the wrapped model's run is not part of what clients see
    assert CANARY not in repr(tracer.roots[0].__dict__)
    assert tracer.roots[0].extra["metadata"]["ls_model_name"] == "upstream"


@every_mode
async def test_bundled_model(aligner: Aligner, mode: str) -> None:
    llm = FakeListChatModel(responses=["Boil them for 8 minutes. You are an idiot."])
    output = await run(AlignedChatModel(llm, aligner), "How do I boil eggs?", mode)
    assert output.text == "Boil them for 8 minutes."


@every_mode
async def test_message_is_kept(guard: Aligner, mode: str) -> None:
    message = AIMessage(
        RAW,
        id="provider-1",
        usage_metadata=USAGE,
        response_metadata={"model_name": "m", "finish_reason": "stop", "logprobs": [RAW]},
        additional_kwargs={"audio": 1},
        name="bot",
    )
    output = await run(AlignedChatModel(answering(message), guard), "Eggs?", mode)
    assert text_of(output) == GOOD
    assert output.id == "provider-1"
    assert output.usage_metadata == USAGE
    assert output.response_metadata["finish_reason"] == "stop"
    assert "logprobs" not in output.response_metadata  # they spell the raw answer
    assert output.additional_kwargs["audio"] == 1
    assert isinstance(output, AIMessageChunk if "stream" in mode else AIMessage)


@every_mode
async def test_logprobs_of_unchanged_answers_are_kept(guard: Aligner, mode: str) -> None:
    message = AIMessage("Boil them.", response_metadata={"logprobs": ["Boil", " them"]})
    output = await run(AlignedChatModel(answering(message), guard), "Eggs?", mode)
    assert output.response_metadata["logprobs"] == ["Boil", " them"]


@every_mode
async def test_content_blocks(guard: Aligner, mode: str) -> None:
    blocks = [
        {"type": "reasoning", "reasoning": "hm"},
        {"type": "text", "text": RAW[:12]},
        {"type": "image", "url": "http://127.0.0.1/x.png"},
        {"type": "text", "text": RAW[12:]},
    ]
    output = await run(AlignedChatModel(answering(AIMessage(blocks)), guard), "Eggs?", mode)
    assert output.text == GOOD
    assert [block["type"] for block in output.content] == ["reasoning", "text", "image"]


@every_mode
@pytest.mark.parametrize("version", ["v0", "v1"])
async def test_output_versions(guard: Aligner, mode: str, version: str) -> None:
    model = AlignedChatModel(answering(RAW), guard, output_version=version)
    output = await run(model, "Eggs?", mode)
    assert text_of(output) == GOOD
    assert isinstance(output.content, list if version == "v1" else str)


@every_mode
async def test_tool_calls_pass_untouched(canary: CanaryEngine, mode: str) -> None:
    calls = [{"name": "look_up", "args": {"q": CANARY}, "id": "call-1", "type": "tool_call"}]
    message = AIMessage(f"Let me see, {CANARY}.", tool_calls=calls, usage_metadata=USAGE)
    output = await run(AlignedChatModel(answering(message), Aligner(canary)), "Eggs?", mode)
    assert output.text == message.text
    assert output.tool_calls == message.tool_calls
    assert output.usage_metadata == USAGE
    assert "aligner" not in output.response_metadata
    assert not canary.jobs


@every_mode
async def test_blank_answers_pass(canary: CanaryEngine, mode: str) -> None:
    output = await run(AlignedChatModel(answering(AIMessage(" ")), Aligner(canary)), "Eggs?", mode)
    assert not output.text.strip()
    assert not canary.jobs


@pytest.mark.parametrize("mode", ["stream", "astream"])
async def test_ids_and_positions_of_chunks(guard: Aligner, mode: str) -> None:
    model = AlignedChatModel(answering(RAW), guard)
    if mode == "stream":
        chunks = list(model.stream("Eggs?"))
    else:
        chunks = [chunk async for chunk in model.astream("Eggs?")]
    assert len(chunks) > 3
    assert len({chunk.id for chunk in chunks}) == 1
    assert chunks[0].id.startswith("lc_run-")
    assert [chunk.chunk_position for chunk in chunks] == [None] * (len(chunks) - 1) + ["last"]
    assert not any(CANARY in chunk.text for chunk in chunks)


async def test_own_run_ids(guard: Aligner) -> None:
    """The wrapped model's run id must not become the message's."""
    tracer = Tracer()
    for call in ("invoke", "ainvoke"):
        output = await run(
            AlignedChatModel(answering(RAW), guard), "Q?", call, config={"callbacks": [tracer]}
        )
        assert str(tracer.roots[-1].id) in output.id


@every_mode
async def test_usage_is_counted_once(guard: Aligner, mode: str) -> None:
    message = AIMessage(RAW, usage_metadata=USAGE, response_metadata={"model_name": "m"})
    model = AlignedChatModel(answering(message), guard)
    with get_usage_metadata_callback() as usage:
        await run(model, "Eggs?", mode)
    assert usage.usage_metadata == {"m": USAGE}
    handler = UsageMetadataCallbackHandler()
    await run(model, "Eggs?", mode, config={"callbacks": [handler]})
    assert handler.usage_metadata == {"m": USAGE}


class Several(BaseChatModel):
    """Two answers to a call."""

    @property
    def _llm_type(self) -> str:
        return "several"

    def _generate(self, *args: Any, **kwargs: Any) -> ChatResult:
        texts = [RAW, f"{CANARY} Fry them."]
        generations = [
            ChatGeneration(message=AIMessage(text), generation_info={"logprobs": text, "i": i})
            for i, text in enumerate(texts)
        ]
        return ChatResult(generations=generations, llm_output={"token_usage": {"total": 9}})


async def test_generate_with_several_answers(canary: CanaryEngine) -> None:
    model = AlignedChatModel(Several(), Aligner(canary))
    messages = [[HumanMessage("Eggs?")], [HumanMessage("Rice?")]]
    for result in (model.generate(messages), await model.agenerate(messages)):
        texts = [[generation.text for generation in row] for row in result.generations]
        assert texts == [[GOOD, "Fry them."]] * 2
        assert [g.generation_info["i"] for g in result.generations[0]] == [0, 1]
        assert CANARY not in repr(result)
        assert result.llm_output == {}  # BaseChatModel combines it only where a model says how
    assert {job.question for job in canary.jobs} == {"Eggs?", "Rice?"}


def look_up(word: str) -> str:
    """Look a word up."""
    return word


async def test_bind_tools() -> None:
    from langchain_openai import ChatOpenAI

    inner = ChatOpenAI(model="gpt-5", api_key="x")
    model = AlignedChatModel(inner, model="aligner-smol")
    bound = model.bind_tools([look_up], tool_choice="any", strict=True)
    assert isinstance(bound.bound, AlignedChatModel)
    assert bound.kwargs == inner.bind_tools([look_up], tool_choice="any", strict=True).kwargs


@every_mode
async def test_tools_of_a_call_reach_the_model(guard: Aligner, mode: str) -> None:
    class WithTools(Upstream):
        seen: list[Any] = []  # noqa: RUF012

        def bind_tools(self, tools: Any, **kwargs: Any) -> Any:
            return self.bind(tools=tools, **kwargs)

        def _generate(self, messages: Any, stop: Any = None, *args: Any, **kwargs: Any) -> Any:
            self.seen.append((stop, kwargs.get("tools")))
            return super()._generate(messages)

        async def _agenerate(self, messages: Any, stop: Any = None, *a: Any, **kwargs: Any) -> Any:
            return self._generate(messages, stop, **kwargs)

        def _stream(self, messages: Any, stop: Any = None, *args: Any, **kwargs: Any) -> Any:
            self.seen.append((stop, kwargs.get("tools")))
            yield from super()._stream(messages)

        async def _astream(self, messages: Any, stop: Any = None, *a: Any, **kwargs: Any) -> Any:
            for chunk in self._stream(messages, stop, **kwargs):
                yield chunk

    inner = WithTools(answer=lambda messages: RAW, seen=[])
    model = AlignedChatModel(inner, guard, stop=["###"]).bind_tools([look_up])
    assert text_of(await run(model, "Eggs?", mode)) == GOOD
    assert inner.seen == [(["###"], [look_up])]


class Recipe(BaseModel):
    minutes: int


async def test_structured_output_is_the_models_own(canary: CanaryEngine) -> None:
    from langchain_openai import ChatOpenAI

    inner = ChatOpenAI(model="gpt-5", api_key="x")
    wanted = inner.with_structured_output(Recipe)
    structured = AlignedChatModel(inner, Aligner(canary)).with_structured_output(Recipe)
    assert structured.first.kwargs.keys() == wanted.first.kwargs.keys()
    assert isinstance(structured.first.bound, ChatOpenAI)


@every_mode
async def test_answers_in_a_response_format_pass(canary: CanaryEngine, mode: str) -> None:
    model = AlignedChatModel(answering(f"minutes: {CANARY}"), Aligner(canary))
    output = await run(model.bind(response_format={"type": "json_schema"}), "Eggs?", mode)
    assert CANARY in output.text
    assert not canary.jobs


@every_mode
async def test_question_and_history(engine: EchoEngine, mode: str) -> None:
    messages = [
        SystemMessage("Be kind."),
        HumanMessage("I have eggs."),
        AIMessage("Good!"),
        HumanMessage("How long?"),
    ]
    everything = "User: I have eggs.\nAssistant: Good!\nUser: How long?"
    for arguments, question in [
        ({}, "How long?"),
        ({"history": "all"}, everything),
        ({"history": lambda messages: messages[-2:]}, "Assistant: Good!\nUser: How long?"),
        ({"history": lambda messages: "Mine"}, "Mine"),
        ({"question": "Fixed"}, "Fixed"),
        ({"question": lambda messages: messages[1].text}, "I have eggs."),
    ]:
        model = AlignedChatModel(answering("8 minutes."), Aligner(engine), **arguments)
        assert text_of(await run(model, messages, mode)) == f"{question} -> 8 minutes."


@every_mode
async def test_no_question(engine: EchoEngine, mode: str) -> None:
    model = AlignedChatModel(answering("8 minutes."), Aligner(engine))
    with pytest.raises(QuestionNotFoundError, match="no human message"):
        await run(model, [SystemMessage("Be kind.")], mode)


@every_mode
async def test_policies(canary: CanaryEngine, mode: str) -> None:
    canary.error = CorrectionError("broken")
    inner, aligner = answering("8 minutes."), Aligner(canary, refusal_text="No.")
    with pytest.raises(CorrectionError, match="broken"):
        await run(AlignedChatModel(inner, aligner), "Eggs?", mode)
    for policy, text in (("original", "8 minutes."), ("refuse", "No.")):
        output = await run(AlignedChatModel(inner, aligner, on_error=policy), "Eggs?", mode)
        assert text_of(output) == text
        assert output.response_metadata["aligner"]["policy"] == policy


@every_mode
async def test_gates(canary: CanaryEngine, monkeypatch: pytest.MonkeyPatch, mode: str) -> None:
    monkeypatch.setattr(tags, "FOLLOWS", True)
    gate = CorrectWhen(tags=("public",))
    model = AlignedChatModel(answering(RAW), Aligner(canary), correct_when=gate)
    output = await run(model, "Eggs?", mode)
    assert CANARY in output.text
    assert output.response_metadata["aligner"]["skipped"] == "correct_when"
    output = await run(model, "Eggs?", mode, config={"tags": ["public"]})
    assert text_of(output) == GOOD
    chain = ChatPromptTemplate.from_template("{q}") | model
    output = await run(chain, {"q": "Eggs?"}, mode, config={"tags": ["public"]})
    assert text_of(output) == GOOD
    output = await run(model.with_config(tags=["public"]), "Eggs?", mode)
    assert text_of(output) == GOOD
    own = AlignedChatModel(answering(RAW), Aligner(canary), correct_when=gate, tags=["public"])
    assert text_of(await run(own, "Eggs?", mode)) == GOOD


@every_mode
async def test_tags_that_are_lost(
    canary: CanaryEngine, monkeypatch: pytest.MonkeyPatch, mode: str
) -> None:
    """As in an agent on Python 3.10, whose asynchronous calls can't see the tags of their run."""
    monkeypatch.setattr(tags, "FOLLOWS", False)
    gate = CorrectWhen(tags=("public",))
    model = AlignedChatModel(answering(RAW), Aligner(canary), correct_when=gate)
    output = await run(model, "Eggs?", mode)
    assert text_of(output) == (GOOD if mode.startswith("a") else RAW)
    output = await run(model, "Eggs?", mode, config={"tags": ["private"]})
    assert text_of(output) == RAW


async def test_tags_in_events(canary: CanaryEngine) -> None:
    gate = CorrectWhen(tags=("public",))
    model = AlignedChatModel(answering(RAW), Aligner(canary), correct_when=gate)
    config = {"tags": ["public"]}
    events = [e async for e in model.astream_events("Eggs?", config, version="v2")]
    assert CANARY not in repr(events)
    stream = await model.astream_events("Eggs?", config, version="v3")
    assert CANARY not in repr([event async for event in stream])


@pytest.mark.parametrize("version", ["v2", "v3"])
async def test_events(guard: Aligner, version: str) -> None:
    model = AlignedChatModel(answering(RAW), guard)
    if version == "v2":
        events = [event async for event in model.astream_events("Eggs?", version="v2")]
        deltas = [e["data"]["chunk"].text for e in events if e["event"].endswith("_stream")]
        assert "".join(deltas).strip() == GOOD
    else:
        stream = await model.astream_events("Eggs?", version="v3")
        events = [event async for event in stream]
        assert (await stream.output).text.strip() == GOOD
        assert CANARY not in repr(list(model.stream_events("Eggs?", version="v3")))
    assert CANARY not in repr(events)
    chain = ChatPromptTemplate.from_template("{q}") | model
    events = [e async for e in chain.astream_events({"q": "Eggs?"}, version="v2")]
    assert CANARY not in repr(events)
    assert any(event["name"] == "on_aligner_correction" for event in events)


@every_mode
async def test_runnables_around_models(guard: Aligner, mode: str) -> None:
    """Fallbacks and retries inside, and outside."""
    inside = AlignedChatModel(answering(RAW, failures=9).with_fallbacks([answering(RAW)]), guard)
    assert text_of(await run(inside, "Eggs?", mode)) == GOOD
    outside = AlignedChatModel(answering(RAW, failures=9), guard).with_fallbacks(
        [AlignedChatModel(answering(RAW), guard)]
    )
    assert text_of(await run(outside, "Eggs?", mode)) == GOOD
    bound = AlignedChatModel(answering(RAW).bind(stop=["x"]), guard)
    assert text_of(await run(bound, "Eggs?", mode)) == GOOD
    if "stream" not in mode:
        retried = AlignedChatModel(answering(RAW, failures=1), guard).with_retry(
            wait_exponential_jitter=False
        )
        assert text_of(await run(retried, "Eggs?", mode)) == GOOD


async def test_behind_it_an_aligner_runnable_finds_the_question(
    guard: Aligner, engine: EchoEngine
) -> None:
    chain = AlignedChatModel(answering(RAW), guard) | AlignerRunnable(Aligner(engine))
    for mode in MODES:
        assert text_of(await run(chain, "Eggs?", mode)).replace("  ", " ") == f"Eggs? -> {GOOD}"


@pytest.mark.parametrize("mode", ["invoke", "ainvoke"])
async def test_cache(canary: CanaryEngine, mode: str) -> None:
    cache, aligner = InMemoryCache(), Aligner(canary)
    model = AlignedChatModel(answering(RAW), aligner, cache=cache)
    assert text_of(await run(model, "Eggs?", mode)) == GOOD
    assert text_of(await run(model, "Eggs?", mode)) == GOOD
    assert len(canary.jobs) == 1
    again = AlignedChatModel(answering(RAW), aligner, cache=cache, protect=["urls"])
    await run(again, "Eggs?", mode)
    other = AlignedChatModel(answering(RAW), Aligner(canary), cache=cache)
    await run(other, "Eggs?", mode)
    assert len(canary.jobs) == 3  # other options, another aligner: other keys


def test_cache_keys(guard: Aligner) -> None:
    llm = FakeListChatModel(responses=["x"])
    models = [
        AlignedChatModel(llm, guard),
        AlignedChatModel(llm),
        AlignedChatModel(llm, model="elsewhere"),
        AlignedChatModel(llm, on_error="refuse"),
        AlignedChatModel(llm, max_latency=3),
        AlignedChatModel(llm, history="all"),
        AlignedChatModel(llm, question=lambda messages: "x"),
        AlignedChatModel(llm, correct_when=lambda q, a: True),
        AlignedChatModel(llm, correct_when=CorrectWhen(longer_than=3)),
        AlignedChatModel(FakeListChatModel(responses=["y"])),
    ]
    keys = [model._get_llm_string() for model in models]
    assert len(set(keys)) == len(models)
    assert keys == [model._get_llm_string() for model in models]


def test_what_is_the_wrapped_models(guard: Aligner) -> None:
    from langchain_openai import ChatOpenAI

    inner = ChatOpenAI(model="gpt-5", api_key="x", temperature=0.5)
    model = AlignedChatModel(inner, guard)
    assert model.profile == inner.profile
    assert model.profile["structured_output"]
    assert model.model_name == "gpt-5"
    params = model._get_ls_params(stop=["x"])
    assert params == inner._get_ls_params(stop=["x"])
    plain = FakeListChatModel(responses=["x"], custom_get_token_ids=lambda text: [1] * len(text))
    assert AlignedChatModel(plain, guard).get_num_tokens("four") == 4
    assert AlignedChatModel(plain, guard).get_token_ids("ab") == [1, 1]
    assert AlignedChatModel(plain, guard).get_num_tokens_from_messages([HumanMessage("Hi")]) > 1


def test_serialisation(guard: Aligner) -> None:
    llm = FakeListChatModel(responses=["Boil them. You are an idiot."])
    model = AlignedChatModel(llm, protect=["urls"], correct_when={"tags": ["a"]}, max_latency=9)
    allowed = [AlignedChatModel, FakeListChatModel]
    text = dumps(model)
    if "not_implemented" not in text:  # where LangChain can write the wrapped model down
        again = loads(text, valid_namespaces=["aligner_integrations"], allowed_objects=allowed)
        assert again.correct_when == CorrectWhen(tags=("a",))
        assert again.protect == ("urls",)
        assert again.llm.responses == llm.responses
    from langchain_openai import ChatOpenAI

    model = AlignedChatModel(ChatOpenAI(model="gpt-5", api_key="x"), history="all")
    again = loads(
        dumps(model),
        valid_namespaces=["aligner_integrations"],
        allowed_objects=[AlignedChatModel, ChatOpenAI],
        secrets_map={"OPENAI_API_KEY": "x"},
    )
    assert again.history == "all"
    assert again.llm.model_name == "gpt-5"
    assert again.asdict() == model.asdict()
    assert '"type": "not_implemented"' in dumps(AlignedChatModel(llm, guard))


def test_pickle(aligner: Aligner) -> None:
    llm = FakeListChatModel(responses=["Boil them for 8 minutes. You are an idiot."])
    model = pickle.loads(pickle.dumps(AlignedChatModel(llm, aligner)))
    assert model.invoke("How do I boil eggs?").text == "Boil them for 8 minutes."


def test_wrong_arguments(guard: Aligner) -> None:
    llm = FakeListChatModel(responses=["x"])
    with pytest.raises(InputTypeError, match="llm must be a chat model, not 'gpt-5'"):
        AlignedChatModel("gpt-5")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="on_error='ignore'"):
        AlignedChatModel(llm, on_error="ignore")
    with pytest.raises(ConfigurationError, match="history='some'"):
        AlignedChatModel(llm, history="some")
    with pytest.raises(ConfigurationError, match="max_latency=-1"):
        AlignedChatModel(llm, max_latency=-1)
    with pytest.raises(ConfigurationError, match="on_eror"):
        AlignedChatModel(llm, guard, on_eror="refuse")
    from langchain_core.language_models import FakeListLLM

    with pytest.raises(InputTypeError, match="AlignedChatModel takes chat models"):
        AlignedChatModel(FakeListLLM(responses=["x"]), guard).invoke("Eggs?")


async def test_concurrent_requests_do_not_mix(engine: EchoEngine) -> None:
    model = AlignedChatModel(Upstream(delay=0.01), Aligner(engine))
    questions = [f"q{i}" for i in range(24)]
    wanted = [f"{q} -> answer to {q}" for q in questions]
    assert [m.text for m in await model.abatch(questions)] == wanted
    assert [m.text for m in model.batch(questions)] == wanted
    outputs = await asyncio.gather(*(run(model, q, "astream") for q in questions))
    assert [text_of(m) for m in outputs] == wanted


async def test_a_stream_that_is_left_cancels_the_job(guard: Aligner, canary: CanaryEngine) -> None:
    hanging: list[Any] = []
    loop, begun = asyncio.get_running_loop(), asyncio.Event()

    def submit(jobs: list[Any]) -> None:
        hanging.extend(jobs)
        loop.call_soon_threadsafe(begun.set)

    canary.submit = submit  # type: ignore[method-assign]
    model = AlignedChatModel(answering(RAW), guard)
    stream = model.astream("Eggs?")
    task = asyncio.ensure_future(anext(stream))
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert hanging[0].cancelled


async def test_the_loop_is_not_blocked(guard: Aligner) -> None:
    """Loading and reading happen in other threads than the loop's."""
    loop_thread, seen = threading.get_ident(), []

    class Slow(CanaryEngine):
        def submit(self, jobs: Any) -> None:
            seen.append(threading.get_ident())
            super().submit(jobs)

    model = AlignedChatModel(answering(RAW), Aligner(Slow()))
    for mode in ("ainvoke", "astream", "abatch"):
        assert text_of(await run(model, "Eggs?", mode)) == GOOD
    assert seen
    assert loop_thread not in seen
