"""The tags that a gate may ask for, where LangChain's context may be lost."""

from __future__ import annotations

import sys
from collections.abc import Collection

from langchain_core.runnables.config import ensure_config, var_child_runnable_config

from aligner_integrations.gates import CorrectWhen, Gate

FOLLOWS = sys.version_info >= (3, 11)
"""Whether LangChain's context follows async calls, as an agent's of its model."""


def find_tags(
    gate: Gate | dict[str, object] | None, *given: Collection[str] | None, is_async: bool
) -> list[str]:
    """The tags of a call: those that were given, and those of the run that it belongs to.

    On Python 3.10 an async call can't see its run. One that seems to have no tags there gets those
    that the gate asks for: rather is an answer corrected without need than let out raw.
    """
    known = {tag for tags in given for tag in tags or ()}
    known |= set(ensure_config().get("tags") or ())
    is_lost = is_async and not FOLLOWS and var_child_runnable_config.get() is None
    if is_lost and not known and isinstance(gate, CorrectWhen):
        known = set(gate.tags)
    return sorted(known)
