from __future__ import annotations

import pickle
import threading
from typing import Any

import pytest
from llama_index.core.schema import (
    ImageNode,
    TextNode,
)

from aligner_integrations import Aligner, GenerationOptions
from aligner_integrations import step as step_module
from aligner_integrations.errors import ConfigurationError, InputTypeError
from aligner_integrations.llama_index import AlignerPostprocessor
from tests.llama_index.clients import ASYNC, make_node, postprocess
from tests.llama_index.upstream import CORRECTED


@ASYNC
async def test_aligner_is_loaded_with_the_first_nodes(
    loads: list[tuple[Any, str]], is_async: bool
) -> None:
    bundled = AlignerPostprocessor()
    named = AlignerPostprocessor(model="some/model")
    await postprocess(bundled, [ImageNode(image="aGk=")], is_async)
    assert loads == []

    await postprocess(bundled, [TextNode(text="Ok.")], is_async)
    await postprocess(named, [TextNode(text="Ok.")], is_async)

    assert [source for source, _ in loads] == [{}, {"model": "some/model"}]
    on_loop = threading.current_thread().name
    assert all((thread != on_loop) is is_async for _, thread in loads)


def test_to_dict_and_back() -> None:
    postprocessor = AlignerPostprocessor(
        model="some/model",
        on_error="refuse",
        on_overflow="original",
        options=GenerationOptions(max_new_tokens=99),
    )

    data = postprocessor.to_dict()
    restored = AlignerPostprocessor.from_dict(data)

    assert data["class_name"] == AlignerPostprocessor.class_name() == "AlignerPostprocessor"
    assert restored.to_dict() == data
    assert (restored.model, restored.on_error, restored.on_overflow) == (
        "some/model",
        "refuse",
        "original",
    )
    assert GenerationOptions.coerce(restored.options) == GenerationOptions(max_new_tokens=99)
    assert AlignerPostprocessor.from_json(postprocessor.to_json()).to_dict() == data


def test_to_dict_keeps_where_a_given_aligner_came_from(aligner: Aligner) -> None:
    data = AlignerPostprocessor(aligner).to_dict()

    assert {"model": data["model"], **data["load_options"]} == aligner.source
    restored = AlignerPostprocessor.from_dict(data)
    assert {"model": restored.model, **restored.load_options} == aligner.source


async def test_pickle(aligner: Aligner, monkeypatch: pytest.MonkeyPatch) -> None:
    copied = pickle.loads(pickle.dumps(AlignerPostprocessor(aligner, on_error="original")))
    loads: list[Any] = []
    monkeypatch.setattr(step_module, "load_shared", lambda source: loads.append(source) or aligner)

    hits = await postprocess(copied, [make_node()])

    assert (hits[0].text, copied.on_error) == (CORRECTED, "original")
    assert loads == [aligner.source]


def test_aligner_that_cannot_be_written_down(aligner: Aligner) -> None:
    postprocessor = AlignerPostprocessor(Aligner(aligner.engine))

    with pytest.raises(ConfigurationError, match="from_pretrained"):
        postprocessor.to_dict()
    with pytest.raises(ConfigurationError, match="from_pretrained"):
        pickle.dumps(postprocessor)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"on_error": "ignore"}, "on_error='ignore'"),
        ({"on_overflow": "cut"}, "on_overflow='cut'"),
        ({"options": {"heat": 1}}, "unknown option 'heat'"),
        ({"max_latency": 0}, "max_latency=0"),
        ({"protect": ["("]}, "no regular expression"),
        ({"correct_when": {"mood": 1}}, "no condition 'mood'"),
    ],
)
def test_wrong_arguments(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        AlignerPostprocessor(**arguments)


def test_a_name_is_no_aligner() -> None:
    with pytest.raises(InputTypeError, match="goes into model="):
        AlignerPostprocessor("aligner-smol")


def test_aligner_and_model_contradict(aligner: Aligner) -> None:
    with pytest.raises(ConfigurationError, match="pass one of them"):
        AlignerPostprocessor(aligner, model="aligner-smol")
