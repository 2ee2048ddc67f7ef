"""Peak memory of fresh processes that correct one answer, plainly and with our decoder."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

MEASURE = """
import json, sys
import torch
task = json.loads(sys.argv[1])
if task["threads"]:
    torch.set_num_threads(task["threads"])
from aligner_integrations.aligner import Aligner
from aligner_integrations.benchmarking.cases import CaseMaker
from aligner_integrations.benchmarking.methods import OurWays, StockWays, engine_of
from aligner_integrations.models.load import load_model
if task["way"] == "ours":
    engine = engine_of(Aligner.from_pretrained(**task["load"]))
    encoder, run = engine.loaded.encoder, OurWays(engine).decode
else:
    name = task["load"].pop("model")
    loaded = load_model(name, **task["load"], pack_weights=False)
    encoder, run = loaded.encoder, StockWays(loaded).plain_loop
run(CaseMaker(encoder).identical(task["tokens"]))
from aligner_integrations.benchmarking.memory import read_peak
print(read_peak())
"""


def read_peak() -> int:
    """Most bytes that this process has held in memory."""
    status = Path("/proc/self/status")
    if status.is_file():  # what getrusage says there may be the parent's
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM"))
        return int(line.split()[1]) * 1024
    import resource

    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def measure_memory(load: dict[str, Any], threads: int | None, tokens: int = 500) -> dict[str, int]:
    """Bytes, for a plain loop and for ours.

    Args:
        load: Arguments of `Aligner.from_pretrained`.
        threads: As in the benchmark.
        tokens: Of the answer, which is copied.
    """
    peaks = {}
    for way in ("plain loop", "ours"):
        task = {"load": load, "threads": threads, "tokens": tokens, "way": way}
        done = subprocess.run(  # noqa: S603 - our own interpreter and code
            [sys.executable, "-c", MEASURE, json.dumps(task)],
            capture_output=True,
            text=True,
            check=True,
        )
        peaks[way] = int(done.stdout.splitlines()[-1])
    return peaks
