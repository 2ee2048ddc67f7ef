"""An OpenAI-compatible gateway that puts an aligner behind any OpenAI-compatible server."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from aligner_integrations.server.app import create_app
    from aligner_integrations.server.settings import GatewaySettings

__all__ = ["GatewaySettings", "create_app"]

_HOMES = {"create_app": "app", "GatewaySettings": "settings"}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
