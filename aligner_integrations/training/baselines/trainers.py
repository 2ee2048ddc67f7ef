"""trl's trainers, with two differences: no usage statistics are sent, and checkpoints stay whole.

Import it only where trl is installed.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from trl import DPOConfig, DPOTrainer, SFTConfig, SFTTrainer

__all__ = ["CorrectionTrainer", "DPOConfig", "PreferenceTrainer", "SFTConfig"]


class _Differences:
    args: Any
    state: Any

    def _send_telemetry(self) -> None:
        """Send nothing: who trains what is nobody else's business."""

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """Write none between checkpoints."""

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save; a checkpoint that could not be written whole is removed, and the last one stays."""
        directory = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except BaseException:
            if self.args.should_save:
                shutil.rmtree(directory, ignore_errors=True)
            raise


class CorrectionTrainer(_Differences, SFTTrainer):  # type: ignore[misc]
    """SFT on corrections; the loss is on the completion."""


class PreferenceTrainer(_Differences, DPOTrainer):  # type: ignore[misc]
    """DPO on corrections over answers."""
