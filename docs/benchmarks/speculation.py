"""What the servers' own speculation brings to corrections, most of which are copies.

    ALIGNER_VLLM=/path/to/vllm python -m docs.benchmarks.speculation

Starts llama.cpp's server, and vLLM's where the variable names its command, each without speculation
and with each kind that docs/deployment.md names, one after the other, all with the bundled aligner
in float32; and runs our own engine in this process. Each corrects the same answers: some that the
aligner mostly copies and some that it rewrites, one at a time, then others of both kinds four at a
time. None comes twice, for suffix decoding remembers what it has written. Figures are output tokens
a second. Every text is compared with what our engine writes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Table

from aligner_integrations import Aligner, Correction
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
Pair = tuple[str, str]
Server = Callable[[], AbstractContextManager[str | None]]


def find_servers(folder: Path) -> dict[tuple[str, str], Server]:
    """How each is started, by its name and the kind of its speculation."""
    gguf = export_gguf(folder / "aligner-smol.gguf", "f32")
    servers: dict[tuple[str, str], Server] = {
        ("ours", "copying"): nullcontext,
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


@dataclass(frozen=True)
class Work:
    """Pairs of each kind; none is in two of them."""

    warm_up: list[Pair]
    copies: list[Pair]
    rewrites: list[Pair]
    mixed: list[Pair]


def choose(aligner: Aligner, size: int) -> Work:
    """The longest answers of each kind, by what the aligner makes of them."""
    rows = [json.loads(line) for line in PAIRS.read_text(encoding="utf-8").splitlines()]
    pairs = sorted(((row["question"], row["answer"]) for row in rows), key=lambda p: -len(p[1]))
    pairs = pairs[: 8 * size]
    stats = [correction.stats for correction in aligner.correct_batch(pairs)]
    shares = [one.copied_tokens / one.output_tokens for one in stats]
    copies = [pair for pair, share in zip(pairs, shares, strict=True) if share > 0.8]
    rewrites = [pair for pair, share in zip(pairs, shares, strict=True) if share < 0.3]
    half = size + size // 2
    mixed = copies[size:half] + rewrites[size:half]
    return Work(copies[half : half + 4], copies[:size], rewrites[:size], mixed)


def measure(aligner: Aligner, work: Work) -> tuple[list[str], list[float]]:
    """The texts, and tokens a second of copies, rewrites and both together."""
    for pair in work.warm_up:
        aligner.correct(*pair)
    texts: list[str] = []
    speeds: list[float] = []
    ways: list[Callable[[], list[Correction]]] = [
        lambda: [aligner.correct(*pair) for pair in work.copies],
        lambda: [aligner.correct(*pair) for pair in work.rewrites],
        lambda: aligner.correct_batch(work.mixed),
    ]
    for way in ways:
        started = time.perf_counter()
        corrections = way()
        seconds = time.perf_counter() - started
        speeds.append(sum(one.stats.output_tokens for one in corrections) / seconds)
        texts += [one.text for one in corrections]
    return texts, speeds


def load(url: str | None) -> Aligner:
    """The aligner that a server runs, or our own engine."""
    if url is None:
        return Aligner.from_pretrained(device="cpu", dtype="float32", max_batch_size=4)
    return Aligner.from_server(url, api_key=KEY, context_length=CONTEXT, max_concurrency=4)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--size", type=int, default=16, help="how many of each kind")
    parser.add_argument("--only", default="", help="servers whose name begins so")
    asked = parser.parse_args()
    work = choose(load(None), asked.size)
    kinds = {"copies": work.copies, "rewrites": work.rewrites, "four together": work.mixed}
    heads = [f"{kind} ({len(pairs)})" for kind, pairs in kinds.items()]
    table = Table("server", "speculation", *heads, "other texts")
    wanted: list[str] = []
    plain: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for (name, kind), start in find_servers(Path(folder)).items():
            if not name.startswith(("ours", asked.only)):
                continue
            with start() as url:
                texts, speeds = measure(load(url), work)
            wanted = wanted or texts
            first = plain.setdefault(name, speeds)
            other = sum(one != two for one, two in zip(texts, wanted, strict=True))
            shown = [f"{s:.0f} ({s / f:.2f}x)" for s, f in zip(speeds, first, strict=True)]
            table.add_row(name, kind, *shown, f"{other} of {len(texts)}")
    Console().print(table)


if __name__ == "__main__":
    main()
