"""How many answers an aligner changes, with 95% intervals.

    python docs/benchmarks/change_rates.py answers.jsonl [more.jsonl ...]

Each line of a file is a JSON object with "question" and "answer". With --upstream, lines without an
answer are answered by the bundled base model (SmolLM2-135M-Instruct, greedy) first. The answers run
through `AlignerRunnable.batch`; one that comes out equal to the character counts as unchanged.
"""

from __future__ import annotations

import argparse
import json
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table
from transformers import AutoModelForCausalLM, AutoTokenizer

from aligner_integrations import AlignerRunnable
from aligner_integrations.evaluation.statistics import Share
from aligner_integrations.models.bundled import prepare

BATCH = 32
UPSTREAM = "smollm2-135m-instruct"
MAX_NEW_TOKENS = 96

Row = dict[str, Any]
_T = TypeVar("_T")


@dataclass(frozen=True)
class Rate:
    """How often something happened."""

    count: int
    total: int

    @property
    def interval(self) -> tuple[float, float]:
        """The Wilson score interval at 95%."""
        bounds = Share(self.count, self.total).interval()
        return (bounds.low, bounds.high) if bounds else (0.0, 1.0)

    def __str__(self) -> str:
        if not self.total:
            return "-"
        low, high = self.interval
        return f"{self.count / self.total:.1%} [{100 * low:.1f}, {100 * high:.1f}]"


def read_rows(path: Path, limit: int | None, seed: int) -> list[Row]:
    """Rows with a question; a random sample of ``limit`` of them, in file order."""
    lines = path.read_text(encoding="utf-8").splitlines()
    rows: list[Row] = [row for line in lines if line.strip() and (row := json.loads(line))]
    missing = [number for number, row in enumerate(rows, start=1) if not row.get("question")]
    if missing:
        raise SystemExit(f"{path}: row {missing[0]} has no 'question'")
    if limit is None or limit >= len(rows):
        return rows
    chosen = sorted(random.Random(seed).sample(range(len(rows)), limit))  # noqa: S311 - a sample
    return [rows[index] for index in chosen]


def has_answer(row: Row) -> bool:
    """Whether there is something to correct."""
    return bool((row.get("answer") or "").strip())


class Upstream:
    """The bundled base model as an LLM: chat template, greedy, batches padded on the left."""

    def __init__(self) -> None:
        directory = prepare(UPSTREAM)
        self._tokenizer: Any = AutoTokenizer.from_pretrained(directory, padding_side="left")
        self._model: Any = AutoModelForCausalLM.from_pretrained(directory).eval()

    def answer(self, questions: list[str]) -> list[str]:
        """One answer for each question."""
        prompts = [
            self._tokenizer.apply_chat_template(
                [{"role": "user", "content": question}], tokenize=False, add_generation_prompt=True
            )
            for question in questions
        ]
        inputs = self._tokenizer(
            prompts,
            return_tensors="pt",
            padding=True,
            add_special_tokens=False,
            return_token_type_ids=False,  # transformers 4 makes them, and the model takes none
        )
        outputs = self._model.generate(**inputs, do_sample=False, max_new_tokens=MAX_NEW_TOKENS)
        written = outputs[:, inputs["input_ids"].shape[1] :]
        answers: list[str] = self._tokenizer.batch_decode(written, skip_special_tokens=True)
        return [answer.strip() for answer in answers]


def split_batches(items: list[_T]) -> Iterator[list[_T]]:
    """Items in batches, in order."""
    for start in range(0, len(items), BATCH):
        yield items[start : start + BATCH]


def answer_open_rows(rows: list[Row], upstream: Upstream, progress: Progress) -> None:
    """Let the upstream LLM answer the rows that have no answer."""
    open_rows = [row for row in rows if not has_answer(row)]
    task = progress.add_task("answering", total=len(open_rows))
    for batch in split_batches(open_rows):
        answers = upstream.answer([row["question"] for row in batch])
        for row, answer in zip(batch, answers, strict=True):
            row["answer"] = answer
        progress.advance(task, len(batch))


def correct_rows(
    rows: list[Row], aligner: AlignerRunnable, progress: Progress
) -> list[bool | None]:
    """For each row with an answer whether it came out changed; None where correcting failed."""
    pairs = [
        {"question": row["question"], "answer": row["answer"]} for row in rows if has_answer(row)
    ]
    task = progress.add_task("correcting", total=len(pairs))
    changed: list[bool | None] = []
    for batch in split_batches(pairs):
        outputs = aligner.batch(batch, return_exceptions=True)
        for pair, output in zip(batch, outputs, strict=True):
            changed.append(None if isinstance(output, Exception) else output != pair["answer"])
        progress.advance(task, len(batch))
    return changed


def main(arguments: list[str] | None = None) -> None:
    """Measure each file and print a table."""
    parser = argparse.ArgumentParser(description="How many answers an aligner changes.")
    parser.add_argument("files", type=Path, nargs="+", help="JSONL with question and answer")
    parser.add_argument("--model", help="what Aligner.from_pretrained takes; default: bundled")
    parser.add_argument("--limit", type=int, help="most rows of each file, drawn at random")
    parser.add_argument("--seed", type=int, default=0, help="of that draw")
    parser.add_argument("--upstream", action="store_true", help="answer rows without an answer")
    options = parser.parse_args(arguments)

    aligner = AlignerRunnable(model=options.model)
    upstream = Upstream() if options.upstream else None
    table = Table("file", title="share of answers, with 95% intervals", title_justify="left")
    for column in ("answers", "unchanged", "changed", "failed", "skipped"):
        table.add_column(column, justify="right", no_wrap=True)
    with Progress(console=Console(stderr=True), transient=True) as progress:
        for path in options.files:
            rows = read_rows(path, options.limit, options.seed)
            if upstream is not None:
                answer_open_rows(rows, upstream, progress)
            results = correct_rows(rows, aligner, progress)
            corrected = [changed for changed in results if changed is not None]
            rates = [Rate(corrected.count(changed), len(corrected)) for changed in (False, True)]
            failed, skipped = len(results) - len(corrected), len(rows) - len(results)
            cells = (path.name, len(results), *rates, failed, skipped)
            table.add_row(*map(escape, map(str, cells)))
    Console().print(table)


if __name__ == "__main__":
    main()
