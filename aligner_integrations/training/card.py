"""The model card that training writes: what was trained on what, how, and what came out."""

from __future__ import annotations

from collections.abc import Sequence
from math import isnan
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aligner_integrations.prompts import get_prompt_format
from aligner_integrations.training.config import TrainingConfig
from aligner_integrations.training.generation import Outcome

if TYPE_CHECKING:
    from aligner_integrations.training.data import Triple

_TEMPLATE = """\
---
base_model: {base}
library_name: aligner-integrations
tags: [aligner]
---

# {name}

An Aligner (Ji et al., "Aligner: Efficient Alignment by Learning to Correct", NeurIPS 2024): it
reads a question and an answer and writes a corrected answer.

```python
from aligner_integrations import Aligner

aligner = Aligner.from_pretrained("{output}")
print(aligner.correct(question="...", answer="..."))
```

## How it was made

{facts}

| stage | examples | steps | mean loss |
|---|---|---|---|
{stages}

## Data

| file | part |
|---|---|
{files}

{triples} triples for training, of which {identities} keep the answer as it is; {held_out} held out.
Say here where they come from and under which licence, before you publish the model.

## Results

{results}

## Limits

Nobody has written them down yet. Measure how many good answers this model changes and how many bad
ones it lets pass, on answers of the LLM that it is to correct, and say so here.
"""


def write_card(
    config: TrainingConfig,
    stages: dict[str, dict[str, Any]],
    triples: Sequence[Triple],
    held_out: Sequence[Triple],
    outcome: Outcome | None,
) -> str:
    """The card as Markdown.

    Args:
        config: What was asked for.
        stages: For each stage its examples, steps and loss.
        triples: What was trained on.
        held_out: What was not.
        outcome: How the finished model corrects held-out answers, if any were.
    """
    prompt = get_prompt_format(config.prompt).name
    size = f", rank {config.lora.r}, alpha {config.lora.alpha}" if config.method != "full" else ""
    facts = [
        f"Base: `{config.base}`.",
        f"Prompt format: `{prompt}`, at most {config.data.max_length} tokens.",
        f"Method: {config.method}{size}.",
        f"Loss: on the correction only; changed tokens weigh {config.loss.changed:g}, the first of "
        f"each departure from the answer {config.loss.departure:g}, copied ones 1.",
        f"Seed: {config.seed}.",
    ]
    rows = [
        f"| {name} | {done['examples']} | {done['steps']} | {done['loss']:.4f} |"
        for name, done in stages.items()
    ]
    files = [f"| `{Path(path).name}` | training |" for path in config.data.train]
    files += [f"| `{Path(path).name}` | held out |" for path in config.data.eval]
    return _TEMPLATE.format(
        base=config.base,
        name=Path(config.output).name,
        output=Path(config.output).name,
        facts="\n".join(f"- {fact}" for fact in facts),
        stages="\n".join(rows),
        files="\n".join(files),
        triples=len(triples),
        identities=sum(triple.answer == triple.correction for triple in triples),
        held_out=len(held_out),
        results=_describe(outcome),
    )


def _describe(outcome: Outcome | None) -> str:
    if outcome is None:
        return "There was no held-out data, so nothing was measured."
    rows = [
        ("answers to keep that came out equal to the character", outcome.copied),
        ("answers to correct that came out changed", outcome.changed),
        ("answers to correct that came out exactly as wanted", outcome.exact),
    ]
    table = [f"| {name} | {'-' if isnan(value) else f'{value:.0%}'} |" for name, value in rows]
    return "\n".join(
        [
            "Greedy, on held-out answers:",
            "",
            "| share of | |",
            "|---|---|",
            *table,
            "",
            f"{outcome.failed} of them could not be corrected at all.",
        ]
    )
