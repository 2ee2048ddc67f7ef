"""What the servers' own speculation brings to corrections, most of which are copies.

    ALIGNER_VLLM=/path/to/vllm python -m docs.benchmarks.speculation

Starts llama.cpp's server, and vLLM's where the variable names its command, each without speculation
and with each kind that docs/deployment.md names, one after the other, all with the bundled aligner.
Each corrects the same answers, one at a time and four at a time, after a warm-up; figures are
medians over rounds, in output tokens a second. Every text is compared with what the server writes
without speculation.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console
from rich.table import Table

from aligner_integrations import Aligner
from aligner_integrations.models import bundled
from aligner_integrations.models.export import export_gguf
from tests.engines.llama_cpp import run_llama_cpp
from tests.engines.vllm import CONTEXT, KEY, run_vllm

PAIRS = Path(__file__).parents[2] / "tests" / "data" / "pairs.jsonl"
VLLM = {
    "ngram": '{"method": "ngram", "num_speculative_tokens": 16, "prompt_lookup_max": 4, '
    '"prompt_lookup_min": 2}',
    "suffix": '{"method": "suffix", "num_speculative_tokens": 32}',
}
Server = Callable[[], AbstractContextManager[str]]


def find_servers(folder: Path) -> dict[tuple[str, str], Server]:
    """How each is started, by its name and the kind of its speculation."""
    gguf = export_gguf(folder / "aligner-smol.gguf", "f32")
    servers: dict[tuple[str, str], Server] = {
        ("llama.cpp", "none"): lambda: run_llama_cpp(gguf),
        ("llama.cpp", "ngram-simple"): lambda: run_llama_cpp(gguf, "ngram_simple"),
    }
    if "ALIGNER_VLLM" in os.environ:
        model, log = bundled.prepare("aligner-smol"), folder / "log"
        servers["vLLM", "none"] = lambda: run_vllm(model, log)
        for name, config in VLLM.items():
            servers["vLLM", name] = lambda config=config: run_vllm(  # type: ignore[misc]
                model, log, "--speculative-config", config
            )
    return servers


def measure(
    aligner: Aligner, pairs: list[tuple[str, str]], rounds: int
) -> tuple[list[str], float, float]:
    """The texts, and tokens a second one at a time and together."""
    texts = [aligner.correct(*pair).text for pair in pairs]
    alone, together = [], []
    for _ in range(rounds):
        started = time.perf_counter()
        tokens = sum(aligner.correct(*pair).stats.output_tokens for pair in pairs)
        alone.append(tokens / (time.perf_counter() - started))
        started = time.perf_counter()
        batch = aligner.correct_batch(pairs)
        tokens = sum(correction.stats.output_tokens for correction in batch)
        together.append(tokens / (time.perf_counter() - started))
    return texts, statistics.median(alone), statistics.median(together)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pairs", type=int, default=12, help="the longest of tests/data/pairs")
    parser.add_argument("--rounds", type=int, default=3)
    asked = parser.parse_args()
    rows = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    rows.sort(key=lambda row: len(row["answer"]), reverse=True)
    pairs = [(row["question"], row["answer"]) for row in rows[: asked.pairs]]
    table = Table("server", "speculation", "one at a time", "four at a time", "other texts")
    plain: dict[str, tuple[list[str], float, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for (name, kind), start in find_servers(Path(folder)).items():
            with start() as url:
                aligner = Aligner.from_server(
                    url, api_key=KEY, context_length=CONTEXT, max_concurrency=4
                )
                found = measure(aligner, pairs, asked.rounds)
                aligner.engine.close()  # type: ignore[attr-defined]
            first = plain.setdefault(name, found)
            other = sum(one != two for one, two in zip(found[0], first[0], strict=True))
            speeds = [f"{s:.0f} ({s / f:.2f}x)" for s, f in zip(found[1:], first[1:], strict=True)]
            table.add_row(name, kind, *speeds, f"{other} of {len(pairs)}")
    Console().print(table)


if __name__ == "__main__":
    main()
