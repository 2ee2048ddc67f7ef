"""`strength` of a gateway: one for all that it corrects, said in the record."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest

from aligner_integrations import Aligner
from aligner_integrations.server import GatewaySettings, create_app
from aligner_integrations.step import CorrectionStep
from tests.server.conftest import Served
from tests.server.starting import run_serve
from tests.server.test_load import read_text
from tests.server.upstream import FakeUpstream, serving, wait_for
from tests.steered import EAGER, KEEPING, WRITES, save_steered

TEXTS: dict[float, str] = {-1: KEEPING, 0: WRITES, 1: EAGER}


@pytest.mark.parametrize("strength", TEXTS)
def test_a_gateway_corrects_with_its_strength(
    upstream_server: tuple[FakeUpstream, str], steered: Aligner, strength: float
) -> None:
    step = CorrectionStep(steered, strength=strength)
    app = create_app(GatewaySettings(upstream_server[1]), step)
    with serving(app) as url:
        wait_for(lambda: httpx.get(f"{url}/health").status_code == 200)
        served = Served(url, app.state.gateway)
        for stream in (False, True):
            response = served.post({"stream": stream, "strength": 0.123})  # the upstream's affair
            assert read_text(response) == TEXTS[strength]
        whole = served.post().json()["choices"][0]
        assert whole["aligner"].get("strength", 0) == strength
        page = {"question": "Q", "answer": "A"}
        shown = httpx.post(f"{url}/aligner/stream", json=page).text
        assert f'"text": "{TEXTS[strength]}"' in shown or f'"text":"{TEXTS[strength]}"' in shown


def start(monkeypatch: pytest.MonkeyPatch, *options: str) -> Any:
    line = ["--upstream", "http://127.0.0.1:1/v1", "-m", "m", *options]
    result, app = run_serve(monkeypatch, line)
    return result if app is None else app


def test_the_commands_option(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, upstream: FakeUpstream
) -> None:
    directory = str(save_steered(tmp_path / "steered"))
    arguments = ["--aligner", directory, "--device", "cpu"]
    for strength, text in ((-0.75, KEEPING), (0, WRITES)):
        gateway = start(monkeypatch, *arguments, f"--strength={strength}").state.gateway
        assert gateway.step.strength == strength
        assert gateway.step.correct("Q", "A").text == text
    assert start(monkeypatch, *arguments).state.gateway.step.strength == 0
    assert start(monkeypatch, *arguments, "--strength=1.5").exit_code == 2


def test_missing_files_are_noticed_when_the_gateway_starts(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    directory = str(save_steered(tmp_path / "without", steering=False))
    app = start(monkeypatch, "--aligner", directory, "--device", "cpu", "--strength=1")
    with serving(app) as url:
        wait_for(lambda: "aligner_failed" in httpx.get(f"{url}/health").text)
    assert "needs steering files" in str(app.state.gateway.failure)
