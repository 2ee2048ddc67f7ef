"""trl's trainers, with two differences: no usage statistics are sent, and checkpoints stay whole.

Import it only where trl is installed.
"""

from __future__ import annotations

from typing import Any

from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

from aligner_integrations.training.trainer import WholeCheckpoints

__all__ = ["CorrectionTrainer", "DPOConfig", "PreferenceTrainer", "SFTConfig"]


class _Differences(WholeCheckpoints):
    def _send_telemetry(self) -> None:
        """Send nothing: who trains what is nobody else's business."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none between checkpoints."""


class CorrectionTrainer(_Differences, SFTTrainer):  # type: ignore[misc]
    """SFT on corrections; the loss is on the completion."""


class PreferenceTrainer(_Differences, DPOTrainer):  # type: ignore[misc]
    """DPO on corrections over answers."""
