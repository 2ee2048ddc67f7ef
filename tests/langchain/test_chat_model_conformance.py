"""LangChain's own conformance tests for chat models, with real models inside and behind.

What is skipped, and why: SmolLM2-135M through langchain-huggingface's local pipeline calls no
tools, gives no structured output, reads no images, sounds or files, counts no tokens and has no
other model to override it with; there is nothing on a network to record. Tool calls, structured
output and usage through `AlignedChatModel` are tested in test_chat_model.py with scripted
upstreams. Of LangChain's standard parameters ``timeout``, ``max_retries`` and ``api_key`` belong
to the wrapped model alone.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
from langchain_core.language_models import BaseChatModel
from langchain_tests.integration_tests import ChatModelIntegrationTests
from langchain_tests.unit_tests import ChatModelUnitTests
from syrupy.assertion import SnapshotAssertion

from aligner_integrations import AlignedChatModel, CorrectWhen
from aligner_integrations.models.bundled import prepare

pytestmark = [
    pytest.mark.filterwarnings("ignore::UserWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::FutureWarning"),
]


@lru_cache
def load_llm() -> BaseChatModel:
    """The bundled base, SmolLM2-135M-Instruct, as a chat model."""
    from langchain_huggingface import ChatHuggingFace, HuggingFacePipeline

    pipeline = HuggingFacePipeline.from_model_id(
        str(prepare("smollm2-135m-instruct")),
        task="text-generation",
        pipeline_kwargs={"max_new_tokens": 12, "do_sample": False, "return_full_text": False},
    )

    class LocalChat(ChatHuggingFace):
        """Its async methods refuse a local pipeline; LangChain's defaults run it in a thread."""

        _agenerate = BaseChatModel._agenerate
        _astream = BaseChatModel._astream

    return LocalChat(llm=pipeline)


class Conformance:
    """What the model under test can do."""

    chat_model_class = AlignedChatModel
    has_tool_calling = False
    has_structured_output = False
    returns_usage_metadata = False
    supports_model_override = False
    standard_chat_model_params: dict[str, Any] = {}  # noqa: RUF012  # a pipeline takes none per call

    @property
    def chat_model_params(self) -> dict[str, Any]:
        return {"llm": load_llm()}


class TestUnit(Conformance, ChatModelUnitTests):
    @property
    def chat_model_params(self) -> dict[str, Any]:
        from langchain_openai import ChatOpenAI

        return {"llm": ChatOpenAI(model="gpt-5", api_key="sk-test"), "protect": ["urls"]}

    has_tool_calling = True
    has_structured_output = True
    standard_chat_model_params = {"temperature": 0, "max_tokens": 100, "stop": []}  # noqa: RUF012

    @property
    def init_from_env_params(self) -> tuple[dict[str, str], dict[str, Any], dict[str, Any]]:
        from langchain_openai import ChatOpenAI

        env = {"OPENAI_API_KEY": "api_key"}
        gate = CorrectWhen(longer_than=3)
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("OPENAI_API_KEY", "api_key")
            llm = ChatOpenAI(model="gpt-5")
        return env, {"llm": llm, "correct_when": gate}, {"correct_when": gate}

    @pytest.mark.xfail(
        raises=ValueError,
        reason="allowed_objects='all' means LangChain's own list of classes, which no package can "
        "join; with allowed_objects=[AlignedChatModel, ...] loading works (test_chat_model.py)",
    )
    def test_serdes(self, model: BaseChatModel, snapshot: SnapshotAssertion) -> None:
        super().test_serdes(model, snapshot)


class TestIntegration(Conformance, ChatModelIntegrationTests):
    pass
