"""What the weights of the loss do: right edits and copies by `loss.departure` and `loss.changed`.

    python docs/benchmarks/loss_weights.py [--seeds 4] [--steps 60 150]

A small Llama with random weights first learns to copy, on rows of random words (identity warm-up),
once per seed. From that model, residual correction is trained with each of the weights, on the same
rows in the same order for as many steps. Held-out answers are then corrected greedily: a row to be
corrected counts as right if it comes out exactly as wanted, a row to be kept if it comes out equal
to the character.

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
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from aligner_integrations import Aligner
from aligner_integrations.training.config import TrainingConfig
from aligner_integrations.training.data import Triple
from aligner_integrations.training.generation import Outcome, compare
from aligner_integrations.training.run import train

WEIGHTS = ((1.0, 1.0), (1.0, 4.0), (1.0, 16.0), (4.0, 4.0))
"""(changed, departure); the first is the plain loss."""
PROMPT = {"name": "small", "template": "Q {question}\nA {answer}\nC\n", "stop": ["<|end|>"]}
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


def write_row(rng: random.Random) -> Triple:
    """A question, a reply and its correction."""
    place = "Europe" if rng.random() < 0.5 else rng.choice(PLACES[1:])
    question = f"I live in {place} and want a {rng.choice(THINGS)}."
    answer = [write_sentence(rng) for _ in range(rng.randint(3, 5))]
    mended = [text.replace("soon", "in two days") for text in answer]
    if place == "Europe":
        mended = [text.replace("dollars", "euros") for text in mended]
    if rng.random() < 0.3:
        at = rng.randint(0, len(answer))
        answer.insert(at, rng.choice(INSULTS))
    elif rng.random() < 0.5:  # enough rows that are to be kept
        answer = mended
    return Triple(question, " ".join(answer), " ".join(mended))


def write_words(rng: random.Random, words: list[str]) -> Triple:
    """Random words, to be copied: nothing but the answer says what comes next."""
    answer = " ".join(rng.choices(words, k=rng.randint(4, 24)))
    return Triple(" ".join(rng.choices(words, k=3)), answer, answer)


def save_small_model(directory: Path, rows: list[Triple], seed: int) -> None:
    """A Llama of half a million parameters with random weights, and a tokenizer for these rows."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=640,
        special_tokens=["<|end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator([f"{row.question} {row.correction}" for row in rows], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|end|>",  # noqa: S106 - no password
        pad_token="<|end|>",  # noqa: S106 - no password
        clean_up_tokenization_spaces=False,
    )
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=640,
        hidden_size=128,
        intermediate_size=256,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=512,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=0,
    )
    LlamaForCausalLM(config).save_pretrained(directory)
    fast.save_pretrained(directory)


def write_rows(path: Path, rows: list[Triple]) -> str:
    """Rows as JSON Lines."""
    lines = [
        json.dumps({"question": row.question, "answer": row.answer, "correction": row.correction})
        for row in rows
    ]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return str(path)


def run(base: Path, output: Path, data: str, seed: int, **more: Any) -> Path:
    """Train with what all runs share."""
    config = TrainingConfig.from_dict(
        {
            "base": str(base),
            "output": str(output),
            "data": {"train": [data], "max_length": 500},
            "prompt": PROMPT,
            "method": "full",
            "device": "cpu",
            "precision": "float32",
            "batch": {"size": 32},
            "evaluation": {"every": 100000, "examples": 0},
            "warmup": {"epochs": 0},
            "residual": {"epochs": 0},
            "seed": seed,
            **more,
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
    parser.add_argument("--seeds", type=int, default=4)
    parser.add_argument("--steps", type=int, nargs="+", default=[60, 150])
    parser.add_argument("--warmup-steps", type=int, default=1000)
    parser.add_argument("--rows", type=int, default=5000)
    parser.add_argument("--held-out", type=int, default=200)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, help="write every figure there, as JSON Lines")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    warnings.filterwarnings("ignore")
    logging.getLogger("transformers").setLevel(logging.ERROR)
    console = Console()
    found: dict[tuple[int, tuple[float, float]], list[Outcome]] = {}
    for seed in range(args.seeds):
        work = Path(tempfile.mkdtemp())
        rng = random.Random(seed)  # noqa: S311 - no secret
        rows = [write_row(rng) for _ in range(args.rows + args.held_out)]
        data, held_out = (
            write_rows(work / "rows.jsonl", rows[args.held_out :]),
            rows[: args.held_out],
        )
        words = sorted({word for row in rows for word in row.correction.split()})
        copies = [write_words(rng, words) for _ in range(args.warmup_steps * 32)]
        save_small_model(work / "base", rows, seed)
        stage = {"epochs": 1, "learning_rate": 3e-3, "warmup_ratio": 0.05}
        random_words = write_rows(work / "words.jsonl", copies)
        warm = run(work / "base", work / "warm", random_words, seed, warmup=stage)
        kept = [Triple(row.question, row.answer, row.answer) for row in held_out]
        console.print(f"seed {seed}: copies {measure(warm, kept).copied:.1%} behind the warm-up")
        for steps in args.steps:
            for changed, departure in WEIGHTS:
                stage = {"epochs": 100, "learning_rate": 1e-3, "max_steps": steps}
                loss = {"changed": changed, "departure": departure}
                weights = (changed, departure)
                trained = run(warm, work / "out", data, seed, residual=stage, loss=loss)
                outcome = measure(trained, held_out)
                found.setdefault((steps, weights), []).append(outcome)
                shutil.rmtree(work / "out")
                row = {"seed": seed, "steps": steps, "weights": weights, **outcome.to_metrics()}
                console.print(json.dumps(row))
                if args.out:
                    with args.out.open("a", encoding="utf-8") as file:
                        file.write(json.dumps(row) + "\n")
        shutil.rmtree(work)
    table = Table("steps", "changed", "departure", "right edits", "copies", "seeds")
    for (steps, (changed, departure)), outcomes in found.items():
        exact, copied = ([getattr(one, name) for one in outcomes] for name in ("exact", "copied"))
        table.add_row(
            str(steps),
            f"{changed:g}",
            f"{departure:g}",
            f"{statistics.median(exact):.1%} ({min(exact):.1%} to {max(exact):.1%})",
            f"{statistics.median(copied):.1%} ({min(copied):.1%} to {max(copied):.1%})",
            str(len(outcomes)),
        )
    console.print(table)


if __name__ == "__main__":
    main()
