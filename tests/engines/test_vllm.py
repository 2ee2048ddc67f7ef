"""`Aligner.from_server` on a real vLLM, where the variable ALIGNER_VLLM names its command."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from aligner_integrations import Aligner
from aligner_integrations.errors import ContextOverflowError, ServerError
from aligner_integrations.models import bundled
from tests.collector import run_collector
from tests.engines.served import CORRECTED, EGGS, PAIRS, ServedAligner
from tests.engines.vllm import CONTEXT, KEY, run_vllm
from tests.otel import Telemetry, telemetry

__all__ = ["telemetry"]  # a fixture

pytestmark = [
    pytest.mark.skipif("ALIGNER_VLLM" not in os.environ, reason="ALIGNER_VLLM names no vLLM"),
    pytest.mark.timeout(900),
]

NGRAM = (
    '{"method": "ngram", "num_speculative_tokens": 16, "prompt_lookup_max": 4, '
    '"prompt_lookup_min": 2}'
)
SUFFIX = '{"method": "suffix", "num_speculative_tokens": 32}'


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    model, log = bundled.prepare("aligner-smol"), tmp_path_factory.mktemp("vllm") / "log"
    with run_vllm(model, log, "--enable-prefix-caching") as url:
        yield url


@pytest.fixture(scope="module")
def served(url: str) -> Iterator[Aligner]:
    aligner = Aligner.from_server(url, api_key=KEY, context_length=CONTEXT)
    yield aligner
    aligner.engine.close()  # type: ignore[attr-defined]


class TestVllm(ServedAligner):
    """The same on vLLM."""


def test_prompts_as_text(url: str) -> None:
    aligner = Aligner.from_server(url, api_key=KEY, prompt_as="text", context_length=CONTEXT)
    assert aligner.correct(*EGGS).text == CORRECTED
    assert "3 minutes" in aligner.correct(*PAIRS[-1]).text
    aligner.engine.close()  # type: ignore[attr-defined]


def test_sampling_with_a_seed(served: Aligner) -> None:
    sampled = {"temperature": 1.5, "top_p": 0.9, "seed": 7}
    assert len({served.correct(*EGGS, options=sampled).text for _ in range(2)}) == 1


def test_the_servers_own_limit(url: str) -> None:
    aligner = Aligner.from_server(url, api_key=KEY)  # thinks that it has 8192
    with pytest.raises(ContextOverflowError, match=f"{CONTEXT}"):
        aligner.correct("Eggs?", "Boil them well. " * 400)
    kept = aligner.correct("Eggs?", "Boil them well. " * 400, on_overflow="original")
    assert not kept.changed
    aligner.engine.close()  # type: ignore[attr-defined]


def test_a_wrong_key_and_a_wrong_name(url: str) -> None:
    aligner = Aligner.from_server(url, api_key="sk-wrong")
    with pytest.raises(ServerError, match="turned the key down"):
        aligner.correct(*EGGS)
    aligner.engine.close()  # type: ignore[attr-defined]
    aligner = Aligner.from_server(url, api_key=KEY, model="other", tokenizer="aligner-smol")
    with pytest.raises(ServerError, match="knows no model 'other'"):
        aligner.correct(*EGGS)
    aligner.engine.close()  # type: ignore[attr-defined]


@pytest.mark.parametrize("speculation", [NGRAM, SUFFIX], ids=["ngram", "suffix"])
def test_speculation_changes_no_correction(
    speculation: str, aligner: Aligner, tmp_path: Path
) -> None:
    model = bundled.prepare("aligner-smol")
    with run_vllm(model, tmp_path / "log", "--speculative-config", speculation) as url:
        served = Aligner.from_server(url, api_key=KEY, context_length=CONTEXT)
        for pair in PAIRS:
            assert served.correct(*pair).text == aligner.correct(*pair).text
        served.engine.close()  # type: ignore[attr-defined]


def test_an_adapter_beside_its_base(aligner: Aligner, tmp_path: Path) -> None:
    base = bundled.prepare("smollm2-135m-instruct")
    options = ["--enable-lora", "--max-lora-rank", "32"]
    options += ["--lora-modules", f"my-aligner={bundled.DATA}"]
    with run_vllm(base, tmp_path / "log", *options, name="base") as url:
        served = Aligner.from_server(
            url,
            model="my-aligner",
            tokenizer=str(bundled.DATA),  # the adapter's directory
            api_key=KEY,
            context_length=CONTEXT,
        )
        for pair in PAIRS:
            assert served.correct(*pair).text == aligner.correct(*pair).text
        served.engine.close()  # type: ignore[attr-defined]


def test_its_spans_are_below_ours(telemetry: Telemetry, tmp_path: Path) -> None:
    model, log = bundled.prepare("aligner-smol"), tmp_path / "log"
    with run_collector() as collector:
        options = ["--otlp-traces-endpoint", f"{collector.url}/v1/traces"]
        protocol = {"OTEL_EXPORTER_OTLP_TRACES_PROTOCOL": "http/protobuf"}
        with run_vllm(model, log, *options, **protocol) as url:
            served = Aligner.from_server(
                url, api_key=KEY, context_length=CONTEXT, trace_server=True
            )
            with telemetry.start("caller") as caller:
                assert served.correct(*EGGS).text == CORRECTED
            (ours,) = telemetry.wait_for_spans(1)
            theirs = collector.wait_for_span("llm_request")
            served.engine.close()  # type: ignore[attr-defined]
    assert theirs.trace_id == caller.get_span_context().trace_id.to_bytes(16, "big")
    assert theirs.parent_span_id == ours.context.span_id.to_bytes(8, "big")
