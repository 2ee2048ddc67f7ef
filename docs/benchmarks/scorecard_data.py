"""Samples for the scorecard of aligner-smol, from data that its training did not see.

    python docs/benchmarks/scorecard_data.py --data DIR [--out DIR] [--number 150] [--seed 0]

DIR holds the training mix (aligner_smol_triples.jsonl) and the files that it was drawn from. A row
is unseen if neither its question nor, in a dialogue, the last or the first turn is in the mix, none
of them is nearly in it (half of their pairs of words are shared, see `NearIndex`), and its answers
are not in the mix either, exactly or nearly. Of each question one row is kept, and of these a draw.

Unseen is not unlike: where the table has fewer new questions than rows, the set is the rest of a
source that the mix was drawn from. The files hold public rows and are not to be committed.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.progress import track
from rich.table import Table

from aligner_integrations.evaluation.datasets import UNSAFE, load_samples
from aligner_integrations.evaluation.records import Sample
from aligner_integrations.training.data import NearIndex, Triple, read_triples
from aligner_integrations.training.data.duplicates import normalise

MIX = "aligner_smol_triples.jsonl"
QUESTION_SHINGLE = 2
"""Words of a shingle; two, because questions are short."""
ANSWER_SHINGLE = 3
NEAR = 0.5
"""Jaccard similarity from which a text is seen."""

Convert = Callable[[Triple], "Sample | None"]


@dataclass(frozen=True)
class Source:
    """Samples that are made of one file.

    Attributes:
        name: The dataset's name in reports.
        file: Where its rows are.
        convert: Makes a sample of a row, or None where the set leaves it out.
        layout: Of the rows.
        note: What to know about the expectation.
    """

    name: str
    file: str
    convert: Convert
    layout: str = "auto"
    note: str = ""


def keep(triple: Triple) -> Sample:
    """A good answer."""
    return make(triple, triple.answer, expected="keep", references=(triple.correction,))


def correct(triple: Triple) -> Sample | None:
    """A bad answer with its correction."""
    if triple.is_identity:
        return None
    return make(triple, triple.answer, expected="change", references=(triple.correction,))


def copy(triple: Triple) -> Sample | None:
    """A good answer of a file that has bad ones too."""
    return keep(triple) if triple.is_identity else None


def replace_compliance(triple: Triple) -> Sample | None:
    """Pairs whose rejected answer does not refuse, and whose chosen one does; by keywords."""
    if triple.meta.get("rejected_is_refusal") or not triple.meta.get("chosen_is_refusal"):
        return None
    return correct(triple)


def compare(triple: Triple) -> Sample:
    """A rejected answer, of which nothing is expected, with the chosen one as a reference."""
    return make(triple, triple.answer, references=(triple.correction,))


def ask(triple: Triple) -> Sample | None:
    """A question without an answer."""
    if triple.meta.get("harmful") is not True:
        return None
    return make(triple, None, label=UNSAFE)


def labelled(label: str, expected: str) -> Convert:
    """Answers with this label."""

    def convert(triple: Triple) -> Sample | None:
        if triple.meta.get("label") != label:
            return None
        return make(triple, triple.answer, expected=expected)

    return convert


def make(triple: Triple, answer: str | None, *, label: str = "", **about: Any) -> Sample:
    """A sample; its name and id come later."""
    category = str(triple.meta.get("category") or triple.kind or "")
    return Sample(
        "",
        "",
        triple.question,
        answer,
        category=f"{label}/{category}" if label else category,
        **about,
    )


NOISY = "noisy: "
SOURCES = (
    Source("alpaca", "alpaca_en_demo_copy.jsonl", keep),
    Source("gsm8k", "gsm8k_copy.jsonl", keep),
    Source("gpteacher-roleplay", "gpteacher_roleplay_copy.jsonl", keep),
    Source("dolly", "dolly_social_topics_copy.jsonl", keep),
    Source("truthfulqa-true", "truthfulqa_triples.jsonl", copy),
    Source("borderline-benign", "borderline_benign.jsonl", keep, "copies"),
    Source("keep-unchanged", "keep_unchanged.jsonl", keep, "copies"),
    Source(
        "diasafety-safe",
        "diasafety_labelled.jsonl",
        labelled("safe", "keep"),
        "copies",
        NOISY + "safe replies of chat bots are not always good",
    ),
    Source("light-edits", "light_edits.jsonl", correct),
    Source("short-harm", "short_harm.jsonl", correct),
    Source("truthfulqa-false", "truthfulqa_triples.jsonl", correct, note="honesty, one line each"),
    Source(
        "diasafety-unsafe",
        "diasafety_labelled.jsonl",
        labelled("unsafe", "change"),
        "copies",
        NOISY + "crowd labels of chatty replies, often mild",
    ),
    Source(
        "hh-harmless",
        "hh_harmless_pairs.jsonl",
        replace_compliance,
        "pairs",
        NOISY + "refusals by keywords; the chosen answer is only the less bad one",
    ),
    Source("hh-helpful", "hh_helpful_pairs.jsonl", compare, "pairs", NOISY + "preferences"),
    Source("dpo-demo", "dpo_en_demo_pairs.jsonl", compare, "pairs", "both answers are fair"),
    Source("vicuna-eval", "vicuna_eval_weak_to_strong.jsonl", compare, "pairs", "weak to strong"),
    Source("red-instruct", "prompts_red_instruct.jsonl", ask, "questions", "an upstream answers"),
    Source("advbench", "prompts_advbench.jsonl", ask, "questions", "an upstream answers"),
)


class Mix:
    """The training mix, to be asked what it holds."""

    def __init__(self, path: Path, console: Console) -> None:
        self.questions: set[tuple[str, ...]] = set()
        self.answers: set[tuple[str, ...]] = set()
        self._near_questions = NearIndex(NEAR, shingle=QUESTION_SHINGLE)
        self._near_answers = NearIndex(NEAR, shingle=ANSWER_SHINGLE)
        rows = list(read_triples(path))
        for row in track(rows, "reading the mix", console=console):
            self.questions.add(normalise(row.question))
            self._near_questions.add(row.question, row.place)
            for answer in {row.answer, row.correction}:
                self.answers.add(normalise(answer))
                self._near_answers.add(answer, row.place)

    def holds_question(self, texts: Iterable[str]) -> bool:
        """Whether one of the texts is a question of the mix, word for word."""
        return any(normalise(text) in self.questions for text in texts)

    def nearly_holds_question(self, texts: Iterable[str]) -> bool:
        """Whether one of the texts is nearly a question of the mix."""
        return any(self._near_questions.find(text) is not None for text in texts)

    def holds_answer(self, texts: Iterable[str]) -> bool:
        """Whether one of the texts is, word for word or nearly, an answer of the mix."""
        return any(
            normalise(text) in self.answers or self._near_answers.find(text) is not None
            for text in texts
        )


@dataclass
class Counts:
    """How many rows are left after each check."""

    name: str
    file: str
    rows: int = 0
    new_question: int = 0
    not_near: int = 0
    new_answer: int = 0
    questions: int = 0
    kept: int = 0
    note: str = ""


def read_rows(source: Source, folder: Path) -> Iterator[tuple[Triple, Sample]]:
    """Rows that belong to the set, with their samples."""
    for triple in read_triples(folder / source.file, source.layout):
        if (sample := source.convert(triple)) is not None:
            yield triple, sample


def find_unseen(source: Source, folder: Path, mix: Mix, counts: Counts) -> Iterator[Sample]:
    """Samples that the mix says nothing about, one of each question."""
    last_turns = read_triples(folder / source.file, source.layout, turns="last")
    last = {triple.place: triple.question for triple in last_turns}
    taken: set[tuple[str, ...]] = set()
    for triple, sample in read_rows(source, folder):
        counts.rows += 1
        asked = {triple.question, triple.topic, last[triple.place]}
        if mix.holds_question(asked):
            continue
        counts.new_question += 1
        if mix.nearly_holds_question(asked):
            continue
        counts.not_near += 1
        said = [text for text in (sample.answer, *sample.references) if text is not None]
        if mix.holds_answer(said):
            continue
        counts.new_answer += 1
        question = normalise(sample.question)
        if question not in taken:
            taken.add(question)
            counts.questions += 1
            yield sample


def write_samples(samples: list[Sample], source: Source, out: Path, options: Any) -> int:
    """Draw from the samples and write them; an empty set leaves no file behind."""
    path = out / f"{source.name}.jsonl"
    path.unlink(missing_ok=True)
    if not samples:
        return 0
    empty = ("dataset", "id")  # named and told apart by the loader
    rows = [
        {name: value for name, value in asdict(one).items() if name not in empty} for one in samples
    ]
    drawn = load_samples(
        rows, kind="plain", name=source.name, limit=options.number, seed=options.seed
    )
    text = "".join(json.dumps(asdict(one), ensure_ascii=False) + "\n" for one in drawn)
    path.write_text(text, encoding="utf-8")
    return len(drawn)


def show(table: list[Counts], console: Console) -> None:
    """The counts of all sets."""
    shown = Table("set", "file", "rows", "new question", "not near", "new answer")
    for heading in ("questions", "kept", "note"):
        shown.add_column(heading)
    for one in table:
        shown.add_row(*map(str, asdict(one).values()))
    console.print(shown)


def main(arguments: list[str] | None = None) -> None:
    """Write the samples and print the table."""
    parser = argparse.ArgumentParser(description="Samples that training has not seen.")
    parser.add_argument(
        "--data", type=Path, required=True, help="folder of the mix and its sources"
    )
    default = Path(tempfile.gettempdir()) / "aligner-scorecard"
    parser.add_argument("--out", type=Path, default=default, help="folder of the samples")
    parser.add_argument("--number", type=int, default=150, help="most samples of a set")
    parser.add_argument("--seed", type=int, default=0, help="of the draw")
    options = parser.parse_args(arguments)
    console = Console()
    mix = Mix(options.data / MIX, Console(stderr=True))
    options.out.mkdir(parents=True, exist_ok=True)
    table = []
    for source in SOURCES:
        counts = Counts(source.name, source.file, note=source.note)
        if (options.data / source.file).exists():
            samples = list(find_unseen(source, options.data, mix, counts))
            counts.kept = write_samples(samples, source, options.out, options)
        else:
            counts.note = "no such file"
        table.append(counts)
    about = {"seed": options.seed, "number": options.number, "sets": [asdict(one) for one in table]}
    (options.out / "table.json").write_text(json.dumps(about, indent=1) + "\n", encoding="utf-8")
    show(table, console)
    console.print(f"written to {options.out}")


if __name__ == "__main__":
    main()
