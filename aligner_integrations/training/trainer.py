"""`AlignerTrainer`: transformers' Trainer with weighted tokens and checkpoints that stay whole."""

from __future__ import annotations

import inspect
import json
import logging
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader
from transformers import Trainer
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from aligner_integrations.training.batches import TokenBatches
from aligner_integrations.training.examples import IGNORED

logger = logging.getLogger(__name__)
_STATE = "trainer_state.json"  # what Trainer writes last into a checkpoint


class WholeCheckpoints:
    """For a Trainer: a checkpoint that could not be written whole does not stay."""

    args: Any
    state: Any

    def _save_checkpoint(self, model: Any, trial: Any) -> None:
        """Save; a checkpoint that could not be written whole is removed, and the last one stays."""
        directory = Path(self.args.output_dir) / f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        try:
            super()._save_checkpoint(model, trial)  # type: ignore[misc]
        except BaseException:
            if self.args.should_save:
                shutil.rmtree(directory, ignore_errors=True)
            raise


class AlignerTrainer(WholeCheckpoints, Trainer):  # type: ignore[misc]
    """Trainer whose loss weighs each token of the correction by itself.

    The loss is the weighted sum over all tokens of a step, all devices and accumulated passes
    included, divided by their number; so it does not depend on how a step is cut into passes.

    Args:
        tokens: Most tokens of a batch on each device, padding included; None for batches of
            ``per_device_train_batch_size`` examples.
        generate: Called at each evaluation in the main process; the metrics that it returns are
            logged and kept with the evaluation's own.
        **more: As for Trainer.
    """

    def __init__(
        self,
        *,
        tokens: int | None = None,
        generate: Callable[[], dict[str, float]] | None = None,
        **more: Any,
    ) -> None:
        super().__init__(**more)
        self._tokens = tokens
        self._generate = generate
        bare = self.accelerator.unwrap_model(self.model)
        bare = bare.get_base_model() if hasattr(bare, "get_base_model") else bare
        self._keeps_logits = "logits_to_keep" in inspect.signature(bare.forward).parameters

    @property
    def is_sharded(self) -> bool:
        """Whether each process holds a part of the weights only (FSDP, DeepSpeed)."""
        return bool(self.is_fsdp_enabled or self.is_deepspeed_enabled)

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches by tokens where they are asked for."""
        if self._tokens is None:
            loader: DataLoader[Any] = super().get_train_dataloader()
            return loader
        dataset: Any = self.train_dataset
        lengths = [len(dataset[index]["input_ids"]) for index in range(len(dataset))]
        batches = TokenBatches(
            lengths, self._tokens, self.args.seed, multiple=self.accelerator.num_processes
        )
        loader = DataLoader(dataset, batch_sampler=batches, collate_fn=self.data_collator)
        settings = self.accelerator.dataloader_config
        even, settings.even_batches = settings.even_batches, False  # batches differ in size
        try:
            return self.accelerator.prepare(loader)  # type: ignore[no-any-return]
        finally:
            settings.even_batches = even

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        """Evaluate; then look at what the model writes."""
        output = super().evaluation_loop(*args, **kwargs)
        if self._generate is None or self.is_sharded:  # one process alone has no whole model
            return output
        if self.is_world_process_zero():
            output.metrics.update(self._generate())
        return output

    def compute_loss(
        self,
        model: Any,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: torch.Tensor | int | None = None,
    ) -> Any:
        """Weighted cross-entropy of the correction's tokens."""
        inputs = dict(inputs)
        labels, weights = inputs.pop("labels"), inputs.pop("loss_weights")
        # Logits over the vocabulary are most of the memory; prompts need none.
        kept = find_predicting(labels)
        if self._keeps_logits:
            inputs["logits_to_keep"] = kept
        outputs = model(**inputs, use_cache=False)
        logits = outputs.logits if self._keeps_logits else outputs.logits[:, kept]
        loss = sum_losses(logits, labels[:, kept + 1], weights[:, kept + 1])
        count: Any = num_items_in_batch
        if count is None:
            count = (labels[:, 1:] != IGNORED).sum()
        loss = loss / count
        if num_items_in_batch is not None and self.args.average_tokens_across_devices:
            loss = loss * self.accelerator.num_processes  # DDP takes the mean of the gradients
        return (loss, {"logits": outputs.logits}) if return_outputs else loss

    def prediction_step(
        self,
        model: Any,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Any, Any, Any]:
        """The loss alone: logits over the vocabulary for a whole set would fill the memory."""
        with torch.no_grad(), self.compute_loss_context_manager():
            loss = self.compute_loss(model, self._prepare_inputs(inputs))
        return loss.detach(), None, None


def find_predicting(labels: torch.Tensor) -> torch.Tensor:
    """Places of the tokens that predict a wanted one, in any row.

    Example:
        >>> find_predicting(torch.tensor([[-100, -100, 5, 6], [-100, 7, -100, -100]]))
        tensor([0, 1, 2])
    """
    return (labels[:, 1:] != IGNORED).any(dim=0).nonzero()[:, 0]


def sum_losses(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Weighted sum of the tokens' cross-entropies, in float32.

    Args:
        logits: What predicts the labels: shape (rows, tokens, vocabulary).
        labels: Shape (rows, tokens); `IGNORED` where there is nothing to predict.
        weights: Shape (rows, tokens).
    """
    wanted = labels != IGNORED
    losses = cross_entropy(logits[wanted].float(), labels[wanted], reduction="none")
    return (losses * weights[wanted]).sum()


def find_checkpoint(directory: Path) -> Path | None:
    """The last whole checkpoint, if any; those that a kill left half written are passed over."""
    found = sorted(
        directory.glob(f"{PREFIX_CHECKPOINT_DIR}-*"), key=lambda path: int(path.name.split("-")[-1])
    )
    for checkpoint in reversed(found):
        try:
            json.loads((checkpoint / _STATE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            logger.warning("%s is not whole and is passed over", checkpoint)
        else:
            return checkpoint
    return None
