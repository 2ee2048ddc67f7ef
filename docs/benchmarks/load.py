"""Load time and memory of the bundled aligner.

Every figure is taken in fresh processes and is the median of several runs. The first load starts
from an empty cache, with the base at hand: it dequantises, merges and saves. Later loads find what
the first one saved.

    python docs/benchmarks/load.py [--runs 5] [--json FILE]
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import torch
from rich.console import Console
from rich.table import Table

from aligner_integrations.models import base_file

ANSWER = """
To make a pot of good vegetable soup, start with an onion, two carrots and a stick of celery. Cut
them into small cubes and let them cook slowly in a little oil until they are soft and smell sweet.
This takes about ten minutes, and it is worth the time, because most of the flavour comes from here.
Add two cloves of garlic, stir for a minute, and then add three potatoes, a handful of green beans
and a can of tomatoes. Pour in a litre of water or stock, enough to cover everything, and bring it
to the boil. Turn the heat down and let the soup simmer for twenty minutes, until the potatoes break
when you press them with a spoon. Taste it now and add salt and pepper as you like. If the soup is
too thick, add some hot water; if it is too thin, crush a few potatoes against the side of the pot.
A squeeze of lemon at the very end makes it fresher. Serve it with bread and a little grated cheese.
It keeps for three days in the fridge, and many people find that it tastes even better the next
day.
"""
"""An answer of 200 words."""

MEASURE = """
import json, sys, time
start = time.perf_counter()
import aligner_integrations
figures = {"import": time.perf_counter() - start}
if sys.argv[1] != "import":
    start = time.perf_counter()
    aligner = aligner_integrations.Aligner.from_pretrained(device="cpu")
    figures["load"] = time.perf_counter() - start
if sys.argv[1] == "correct":
    start = time.perf_counter()
    aligner.correct("How do I make vegetable soup?", sys.argv[2])
    figures["correct"] = time.perf_counter() - start
from aligner_integrations.benchmarking.memory import read_peak
figures["peak"] = read_peak()
print(json.dumps(figures))
"""
"""What a measured process runs."""


def measure(what: str, cache: Path, base: Path) -> dict[str, float]:
    """Figures of one fresh process, in seconds and bytes.

    Args:
        what: ``"import"``, ``"load"`` or ``"correct"``; each does what the one before does, too.
        cache: Its ``ALIGNER_CACHE_DIR``.
        base: The base file.
    """
    environment = {
        **os.environ,
        base_file.CACHE_VARIABLE: str(cache),
        base_file.PATH_VARIABLE: str(base),
        "HF_HUB_OFFLINE": "1",
    }
    start = time.perf_counter()
    done = subprocess.run(  # noqa: S603 - our own interpreter and code
        [sys.executable, "-c", MEASURE, what, " ".join(ANSWER.split())],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"the process that measures {what!r} failed:\n{done.stderr}")
    figures: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return {**figures, "process": time.perf_counter() - start}


def measure_all(runs: int) -> dict[str, list[float]]:
    """All figures of all runs, by name."""
    base = base_file.find_base()
    taken: dict[str, list[float]] = {}

    def take(name: str, value: float) -> None:
        taken.setdefault(name, []).append(value)

    for _ in range(runs):
        with tempfile.TemporaryDirectory() as scratch:
            cache = Path(scratch)
            take("import aligner_integrations, s", measure("import", cache, base)["import"])
            first = measure("load", cache, base)
            take("first load, from_pretrained, s", first["load"])
            take("first load, whole process, s", first["process"])
            take("first load, peak memory, MiB", first["peak"] / 2**20)
            later = measure("load", cache, base)
            take("later load, from_pretrained, s", later["load"])
            take("later load, whole process, s", later["process"])
            take("later load, peak memory, MiB", later["peak"] / 2**20)
            correct = measure("correct", cache, base)
            take("load and a 200-word answer, peak memory, MiB", correct["peak"] / 2**20)
            take("correcting the 200-word answer, s", correct["correct"])
    return taken


def describe_machine() -> str:
    """What the figures were taken on."""
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"torch {torch.__version__} with {torch.get_num_threads()} threads"
    )


def main() -> None:
    """Measure, print a table, and write the raw figures if asked to."""
    parser = argparse.ArgumentParser(description="Load time and memory of the bundled aligner.")
    parser.add_argument("--runs", type=int, default=5, help="runs of each measurement")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures there")
    arguments = parser.parse_args()
    if arguments.runs < 1:
        parser.error(f"--runs {arguments.runs} must be at least 1")

    console = Console()
    with console.status(f"{arguments.runs} runs of four processes each ..."):
        taken = measure_all(arguments.runs)

    table = Table("what", title=describe_machine(), title_justify="left")
    for column in ("median", "least", "most"):
        table.add_column(column, justify="right")
    for name, values in taken.items():
        digits = 0 if name.endswith("MiB") else 3
        numbers = (median(values), min(values), max(values))
        table.add_row(name, *(f"{number:.{digits}f}" for number in numbers))
    console.print(table)
    if arguments.json:
        report = {"machine": describe_machine(), "runs": arguments.runs, "figures": taken}
        arguments.json.write_text(json.dumps(report, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
