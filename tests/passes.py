"""Watching, slowing and breaking forward passes, whichever decoder makes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from aligner_integrations.decoding import plain, speculative
from aligner_integrations.decoding.rows import Row


def on_pass(monkeypatch: pytest.MonkeyPatch, hook: Callable[[list[Row]], None]) -> None:
    """Call ``hook`` with the rows of every pass of any model, before it is made."""
    forward, packed_pass = plain._Batch.forward, speculative.Decoder._pass

    def watched_forward(batch: Any) -> Any:
        hook(batch.rows)
        return forward(batch)

    def watched_pass(decoder: Any, running: list[Any], reading: Any) -> Any:
        hook([one.row for one in running])
        return packed_pass(decoder, running, reading)

    monkeypatch.setattr(plain._Batch, "forward", watched_forward)
    monkeypatch.setattr(speculative.Decoder, "_pass", watched_pass)
