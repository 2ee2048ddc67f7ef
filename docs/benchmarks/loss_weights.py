"""What the weights of the loss do: right edits and copies by `loss.departure` and `loss.changed`.

    python docs/benchmarks/loss_weights.py [--seeds 0 1 2] [--steps 32]

The bundled aligner, which can copy already, gets a fresh adapter for each of the losses, trained
on the same rows in the same order for as many steps. Held-out answers are then corrected greedily:
a row to be corrected counts as right if it comes out exactly as wanted, a row to be kept if it
comes out equal to the character.

Most answers of a real upstream are good, so one row in five has something wrong (--share); of the
held-out ones, half.

The rows are replies of a shop, made here. Three things are wrong in some of them: a sentence that
insults (to be left out), "soon" (to be "in two days") and, only where the question is about Europe,
prices in dollars (to be in euros). All else has to be copied.
"""

from __future__ import annotations

import argparse
import json
import logging
import random
import shutil
import statistics
import tempfile
import warnings
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table

from aligner_integrations import Aligner
from aligner_integrations.training.config import TrainingConfig
from aligner_integrations.training.data import Triple
from aligner_integrations.training.generation import Outcome, compare
from aligner_integrations.training.run import train

LOSSES = ((1.0, 1.0), (1.0, 4.0), (4.0, 4.0))
"""(changed, departure); the first is the plain loss."""
THINGS = (
    *("lamp", "chair", "table", "shelf", "clock", "mirror", "carpet", "pillow", "basket", "kettle"),
    *("radio", "camera", "bottle", "jacket", "helmet", "ladder", "hammer", "bucket", "blanket"),
)
PLACES = ("Europe", "America", "Asia", "Africa", "Norway", "Peru", "Kenya", "Japan", "Chile")
WHENS = ("soon", "today", "tomorrow", "next week")
COLOURS = ("red", "blue", "green", "black", "white", "brown", "grey", "yellow", "pink")
INSULTS = (
    "You are a fool.",
    "Only an idiot asks this.",
    "Learn to read first.",
    "Stop wasting our time.",
    "You must be very slow.",
    "Go bother others.",
)


def write_sentence(rng: random.Random) -> str:
    """One sentence of a reply, with nothing wrong in it but maybe "soon" and "dollars"."""
    thing, colour, number = rng.choice(THINGS), rng.choice(COLOURS), rng.randint(2, 99)
    return rng.choice(
        (
            f"The {colour} {thing} costs {number} dollars.",
            f"We send the {thing} {rng.choice(WHENS)}.",
            f"We have {number} of the {colour} {thing}.",
            f"Our {thing} is {colour} and comes from {rng.choice(PLACES)}.",
            f"The {thing} goes well with a {colour} {rng.choice(THINGS)}.",
        )
    )


def write_row(rng: random.Random, share: float) -> Triple:
    """A question, a reply and its correction; ``share`` of the replies have something wrong."""
    wrong = rng.random() < share
    while True:
        place = "Europe" if rng.random() < 0.5 else rng.choice(PLACES[1:])
        question = f"I live in {place} and want a {rng.choice(THINGS)}."
        answer = [write_sentence(rng) for _ in range(rng.randint(3, 5))]
        mended = [text.replace("soon", "in two days") for text in answer]
        if place == "Europe":
            mended = [text.replace("dollars", "euros") for text in mended]
        if rng.random() < 0.3:
            answer.insert(rng.randint(0, len(answer)), rng.choice(INSULTS))
        if (answer != mended) == wrong:
            return Triple(question, " ".join(answer), " ".join(mended))


def write_rows(path: Path, rows: list[Triple]) -> str:
    """Rows as JSON Lines."""
    lines = [
        json.dumps({"question": row.question, "answer": row.answer, "correction": row.correction})
        for row in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def run(output: Path, data: str, seed: int, steps: int, loss: tuple[float, float]) -> Path:
    """Train with what all runs share."""
    config = TrainingConfig.from_dict(
        {
            "base": "aligner-smol",
            "output": str(output),
            "data": {"train": [data], "max_length": 500},
            "method": "lora",
            "lora": {"r": 8, "alpha": 16, "dropout": 0.0},
            "device": "cpu",
            "precision": "float32",
            "batch": {"size": 8},
            "evaluation": {"every": 100000, "examples": 0},
            "warmup": {"epochs": 0},
            "residual": {"epochs": 100, "learning_rate": 5e-4, "max_steps": steps},
            "loss": dict(zip(("changed", "departure"), loss, strict=True)),
            "seed": seed,
        }
    )
    return train(config, resume=False)


def measure(model: Path, held_out: list[Triple]) -> Outcome:
    """Correct what is held out."""
    aligner = Aligner.from_pretrained(str(model), device="cpu")
    pairs = [(row.question, row.answer) for row in held_out]
    return compare(held_out, aligner.correct_batch(pairs, return_exceptions=True))


def main() -> None:
    """Train and measure for each seed, then print medians."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, nargs="+", default=[32])
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--share", type=float, default=0.2, help="of rows with something wrong")
    parser.add_argument("--held-out", type=int, default=60)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write every figure there, as JSON Lines")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    console = Console()
    found: dict[tuple[int, tuple[float, float]], list[Outcome]] = {}
    for seed in args.seeds:
        work = Path(tempfile.mkdtemp())
        rng = random.Random(seed)  # noqa: S311 - no secret
        data = write_rows(
            work / "rows.jsonl", [write_row(rng, args.share) for _ in range(args.rows)]
        )
        held_out = [write_row(rng, 0.5) for _ in range(args.held_out)]
        for steps in args.steps:
            for loss in LOSSES:
                trained = run(work / "out", data, seed, steps, loss)
                outcome = measure(trained, held_out)
                found.setdefault((steps, loss), []).append(outcome)
                shutil.rmtree(work / "out")
                row = {"seed": seed, "steps": steps, "loss": loss, **outcome.to_metrics()}
                console.print(json.dumps(row))
                if args.out:
                    with args.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
        shutil.rmtree(work)
    table = Table("steps", "changed", "departure", "right edits", "copies", "seeds")
    for (steps, loss), outcomes in found.items():
        exact, copied = ([getattr(one, name) for one in outcomes] for name in ("exact", "copied"))
        table.add_row(
            str(steps),
            *(f"{one:g}" for one in loss),
            f"{statistics.median(exact):.1%} ({min(exact):.1%} to {max(exact):.1%})",
            f"{statistics.median(copied):.1%} ({min(copied):.1%} to {max(copied):.1%})",
            str(len(outcomes)),
        )
    console.print(table)


if __name__ == "__main__":
    main()
