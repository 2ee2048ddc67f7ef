"""The custom event of every correction, for `astream_events` and callback handlers."""

from __future__ import annotations

from langchain_core.callbacks import adispatch_custom_event, dispatch_custom_event
from langchain_core.runnables import RunnableConfig
from langchain_core.runnables.config import ensure_config, get_callback_manager_for_config

from aligner_integrations.correction import Correction

EVENT = "on_aligner_correction"
"""Custom event of every correction; its data is `Correction.record`."""


def dispatch(correction: Correction, config: RunnableConfig) -> None:
    """Tell the callbacks of a run about a correction."""
    dispatch_custom_event(EVENT, correction.record(), config=config)


async def adispatch(correction: Correction, config: RunnableConfig) -> None:
    """`dispatch`, from a coroutine."""
    await adispatch_custom_event(EVENT, correction.record(), config=config)


def dispatch_within(correction: Correction) -> None:
    """Tell the callbacks of the run around a chat model; a model that runs alone has none."""
    config = ensure_config()
    if _has_run(config):
        dispatch(correction, config)


async def adispatch_within(correction: Correction) -> None:
    """`dispatch_within`, from a coroutine."""
    config = ensure_config()
    if _has_run(config):
        await adispatch(correction, config)


def _has_run(config: RunnableConfig) -> bool:
    return get_callback_manager_for_config(config).parent_run_id is not None
