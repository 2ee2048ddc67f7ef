"""``aligner serve`` up to where it would listen."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from typer.testing import CliRunner, Result

from aligner_integrations.cli.app import app as command


def run_serve(
    monkeypatch: pytest.MonkeyPatch, options: Sequence[str], env: Mapping[str, str] | None = None
) -> tuple[Result, Any]:
    """What the command came to, and the application that it made; None where it made none."""
    from aligner_integrations.server.run import GracefulServer

    made: list[GracefulServer] = []
    monkeypatch.setattr(GracefulServer, "run", lambda server: made.extend([server]))
    result = CliRunner().invoke(command, ["serve", *options], env=env)
    return result, made[0].config.app if made else None
