"""The example does what it says, offline."""

from __future__ import annotations

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
from llama_index.core.llms.mock import MockFunctionCallingLLM

from aligner_integrations import Aligner
from tests.llama_index.clients import WORKFLOW_WARNINGS

pytestmark = WORKFLOW_WARNINGS
PATH = Path(__file__).parents[2] / "examples" / "llama_index_agent.py"
CORRECTED = "Cook it for 15 minutes. Then let it rest."


async def test_agent_and_chat(aligner: Aligner, capsys: pytest.CaptureFixture[str]) -> None:
    example = SimpleNamespace(**runpy.run_path(str(PATH)))
    llm = MockFunctionCallingLLM(response_generator=example.answer, is_chat_model=True)

    await example.run_agent(llm, aligner)
    example.run_chat(llm, aligner)

    printed = capsys.readouterr().out
    assert "find_minutes({'dish': 'rice'}) = rice: 15 minutes" in printed
    assert printed.count(CORRECTED) == 4  # streamed, and in memory or history
    assert "idiot" not in printed
