"""The page's recipe for reinforcement learning runs, with a tiny aligner as the reward."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer, RLOOConfig, RLOOTrainer

from aligner_integrations import Aligner
from tests.docs.pages import ROOT, read_blocks

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*gradient_checkpointing.* is deprecated:FutureWarning"),
    pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*"),
]


@pytest.mark.parametrize(
    ("config", "trainer"), [(RLOOConfig, RLOOTrainer), (GRPOConfig, GRPOTrainer)]
)
def test_one_step(
    config: Any,
    trainer: Any,
    base: Path,
    tmp_path: Path,
    writer: Aligner,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    page = read_blocks(ROOT / "docs" / "baselines.md")
    blocks = [block.code for block in page if "reward_kept" in block.code]
    names: dict[str, Any] = {}
    monkeypatch.setattr(Aligner, "from_pretrained", lambda: writer)
    exec(blocks[0].split("prompts = [[")[0], names)  # noqa: S102 - our own documentation
    rewards: list[float] = []

    def reward_kept(**columns: Any) -> list[float]:
        rewards.extend(names["reward_kept"](**columns))
        return rewards[-4:]

    made = trainer(
        model=str(base),
        reward_funcs=[reward_kept],
        args=config(
            output_dir=str(tmp_path),
            num_generations=4,
            per_device_train_batch_size=4,
            max_completion_length=8,
            beta=0.05,
            max_steps=1,
            report_to="none",
            use_cpu=True,
            bf16=False,
            save_strategy="no",
        ),
        train_dataset=Dataset.from_list([{"prompt": [{"role": "user", "content": "Eggs?"}]}]),
    )
    made.train()
    assert len(rewards) == 4
    assert all(0 <= reward < 1 for reward in rewards)
