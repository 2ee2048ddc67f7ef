"""The custom event of every correction, for `astream_events` and callback handlers."""

from __future__ import annotations

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.runnables import RunnableConfig

from aligner_integrations.correction import Correction

EVENT = "on_aligner_correction"
"""Custom event of every correction; its data is `Correction.record`."""


def dispatch(correction: Correction, config: RunnableConfig) -> None:
    """Tell the callbacks of a run about a correction."""
    dispatch_custom_event(EVENT, correction.record(), config=config)


async def adispatch(correction: Correction, config: RunnableConfig) -> None:
    """`dispatch`, from a coroutine."""
    await adispatch_custom_event(EVENT, correction.record(), config=config)
