"""`strength` in chains, models and agents, fixed, configured and per call."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from langchain.agents import create_agent
from langchain_core.caches import InMemoryCache
from langchain_core.load import dumps, loads
from langchain_core.messages import AIMessage
from langchain_core.runnables import ConfigurableField

from aligner_integrations import AlignedChatModel, Aligner, AlignerMiddleware, AlignerRunnable
from aligner_integrations.errors import ConfigurationError, SteeringError
from tests.langchain.conftest import MODES, Upstream, run, text_of
from tests.steered import EAGER, KEEPING, WRITES

TEXTS = {-1: KEEPING, 0: WRITES, 1: EAGER}
FIELD = ConfigurableField(id="strength", name="How eagerly to correct")
every_mode = pytest.mark.parametrize("mode", MODES)
pytestmark = pytest.mark.filterwarnings("ignore::langchain_core._api.LangChainBetaWarning")


def make(adapter: str, aligner: Aligner, **arguments: Any) -> Any:
    if adapter == "runnable":
        return Upstream() | AlignerRunnable(aligner, **arguments)
    if adapter == "model":
        return AlignedChatModel(Upstream(), aligner, **arguments)
    agent = create_agent(Upstream(), middleware=[AlignerMiddleware(aligner, **arguments)])
    return agent | (lambda state: state["messages"][-1])


ADAPTERS = pytest.mark.parametrize("adapter", ["runnable", "model", "middleware"])


@ADAPTERS
@every_mode
async def test_adapters_take_it(steered: Aligner, adapter: str, mode: str) -> None:
    value: Any = {"messages": [("user", "Q")]} if adapter == "middleware" else "Q"
    if adapter == "middleware" and "stream" in mode:
        mode = mode.replace("stream", "invoke")  # chunks of a graph's states can't be added up
    for strength, text in TEXTS.items():
        for arguments in ({"strength": strength}, {"options": {"strength": strength}}):
            output = await run(make(adapter, steered, **arguments), value, mode)
            assert isinstance(output, AIMessage)
            assert text_of(output) == text
            assert output.response_metadata["aligner"].get("strength", 0) == strength


@pytest.mark.parametrize("adapter", ["runnable", "model"])
@every_mode
async def test_it_is_a_configurable_field(steered: Aligner, adapter: str, mode: str) -> None:
    if adapter == "runnable":
        step: Any = AlignerRunnable(steered).configurable_fields(strength=FIELD)
        chain: Any = Upstream() | step
    else:
        chain = AlignedChatModel(Upstream(), steered).configurable_fields(strength=FIELD)
    assert text_of(await run(chain, "Q", mode)) == WRITES
    for strength, text in TEXTS.items():
        configurable = {"strength": strength}
        called = await run(chain, "Q", mode, config={"configurable": configurable})
        bound = await run(chain.with_config(configurable=configurable), "Q", mode)
        assert text_of(called) == text_of(bound) == text
    with pytest.raises(ConfigurationError, match="strength=3 must be between -1"):
        await run(chain, "Q", mode, config={"configurable": {"strength": 3}})


@pytest.mark.parametrize("is_async", [False, True])
async def test_inputs_of_a_batch_have_strengths_of_their_own(
    steered: Aligner, is_async: bool
) -> None:
    chain: Any = Upstream() | AlignerRunnable(steered).configurable_fields(strength=FIELD)
    strengths = [-1, 0, 1, 0, -1, 1] * 3
    inputs = [f"Q{index}" for index in range(len(strengths))]
    configs = [{"configurable": {"strength": strength}} for strength in strengths]
    if is_async:
        outputs = await chain.abatch(inputs, configs)
    else:
        outputs = chain.batch(inputs, configs)
    assert [text_of(output) for output in outputs] == [TEXTS[strength] for strength in strengths]
    one_by_one = await asyncio.gather(
        *(chain.ainvoke(value, config) for value, config in zip(inputs, configs, strict=True))
    )
    assert [text_of(output) for output in one_by_one] == [TEXTS[s] for s in strengths]


@ADAPTERS
@pytest.mark.parametrize("strength", [-2, 1.5, "high"])
def test_a_strength_out_of_range_is_refused(adapter: str, strength: Any, steered: Aligner) -> None:
    with pytest.raises(ConfigurationError, match=r"strength=.* must be between -1"):
        make(adapter, steered, strength=strength)


@ADAPTERS
def test_a_model_without_files_says_so(adapter: str, writer: Aligner) -> None:
    value: Any = {"messages": [("user", "Q")]} if adapter == "middleware" else "Q"
    with pytest.raises(SteeringError, match=r"make them with: aligner scan .* --save"):
        make(adapter, writer, strength=1, on_error="original").invoke(value)


def test_it_is_written_down_and_part_of_the_caches_key(steered: Aligner) -> None:
    valid: dict[str, Any] = {"valid_namespaces": ["aligner_integrations"]}
    made = AlignerRunnable(steered, strength=1)
    again = loads(dumps(made), allowed_objects=[AlignerRunnable], **valid)
    assert (again.strength, again.step.strength) == (1, 1)
    assert again.invoke({"question": "Q", "answer": "A"}) == EAGER
    cache = InMemoryCache()
    for strength, text in TEXTS.items():
        model = AlignedChatModel(Upstream(), steered, strength=strength, cache=cache)
        assert text_of(model.invoke("Q")) == text_of(model.invoke("Q")) == text
