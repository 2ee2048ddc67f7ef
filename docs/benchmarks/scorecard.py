"""docs/scorecard.md from the evaluations of scorecard.yaml and scorecard_probes.yaml.

make scorecard DATA=...   # samples, both evaluations, and this
python docs/benchmarks/scorecard.py [--runs runs/scorecard] [--out docs/scorecard.md]
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from aligner_integrations.evaluation.statistics import Share

GOOD = {
    "alpaca": "everyday instructions, model-written answers",
    "gsm8k": "school mathematics: numbers",
    "gpteacher-roleplay": "role play, dark themes included",
    "dolly": "long, human-written, on touchy topics",
    "truthfulqa-true": "true answers, one line",
    "diasafety-safe": "chat replies labelled safe (noisy)",
}
BAD = {
    "diasafety-unsafe": "chat replies labelled unsafe (noisy, often mild)",
    "hh-harmless": "harmful compliance by keywords (noisy)",
    "truthfulqa-false": "false answers, one line",
}
UPSTREAM = {"red-instruct": "harmful questions, answered by SmolLM2-135M-Instruct"}
PARTS = ("code-kept", "numbers-kept", "links-kept", "citations-kept", "verbatim", "idempotence")
HEAD = """\
# Scorecard of aligner-smol

{limits}

Intervals are 95% (Wilson), and say how far a share hangs on which answers were drawn, nothing else.
"""
LIMITS = """\
**Limits first.** *aligner-smol* has 135 million parameters. It removes or replaces; it knows no
facts and cannot judge truth. Long answers come out with words or whole passages missing
(see below). On answers that were bad in ways it was not trained on, it changes
{changed} of {bad} labelled bad ({share}), and misses the rest. "Changed" is no promise of "better":
no person and no strong model has read these corrections. Labels of two of the sets are noisy. What
counts as unseen was checked against the training mix by question and by answer, exactly and nearly;
but for `dolly`, `truthfulqa` and `diasafety` other rows of the same source were in the mix, so the
figures are those of an exam from the same teacher. Everything is English."""


class Card:
    """What the two evaluations found."""

    def __init__(self, runs: Path) -> None:
        self.runs = runs
        self.main = json.loads((runs / "evaluation" / "summary.json").read_text())
        self.probes = json.loads((runs / "probes" / "summary.json").read_text())
        self.table = json.loads((runs / "data" / "table.json").read_text())

    def share_by_length(self) -> dict[str, Share]:
        """Exact copies of good answers that people and models wrote, by their characters."""
        bounds = (0, 300, 1000, 2000, 10**9)
        names = ("below 300", "300 to 999", "1,000 to 1,999", "2,000 and more")
        counts = {name: [0, 0] for name in names}
        for line in (self.runs / "evaluation" / "cases.jsonl").read_text().splitlines():
            case = json.loads(line)
            good = (
                case["sample"]["dataset"] in GOOD and "noisy" not in GOOD[case["sample"]["dataset"]]
            )
            if not good or case["probe"] or case["error"]:
                continue
            length = len(case["answer"])
            name = next(n for n, end in zip(names, bounds[1:], strict=True) if length < end)
            counts[name][0] += not case["changed"]
            counts[name][1] += 1
        return {name: Share(hits, total) for name, (hits, total) in counts.items()}

    def share(self, name: str, dataset: str | None = None, *, probes: bool = False) -> Share:
        """A guard's share, of one dataset or of all."""
        rows = (self.probes if probes else self.main)["guards"]
        found = [row for row in rows if row["name"] == name and dataset in (None, row["dataset"])]
        return Share(sum(row["hits"] for row in found), sum(row["total"] for row in found))

    def cost(self, dataset: str) -> dict[str, Any]:
        """Changes, failures and seconds of a dataset."""
        return next(row for row in self.main["costs"] if row["dataset"] == dataset)

    def cell(self, dataset: str, dimension: str) -> dict[str, Any]:
        """A cell of the grid."""
        return next(
            row
            for row in self.main["cells"]
            if row["dataset"] == dataset and row["dimension"] == dimension
        )


def show(share: Share) -> str:
    """A share with its interval."""
    bounds = share.interval()
    if bounds is None:
        return "-"
    value = 100 * share.hits / share.total
    return f"{value:.0f}% [{100 * bounds.low:.0f}, {100 * bounds.high:.0f}]"


def write_tables(card: Card) -> list[str]:
    """The page's tables, as Markdown."""
    lines = ["", "## Good answers: does it leave them alone?", ""]
    lines += ["| set | what | n | equal to the character | became refusals | failed |"]
    lines += ["|---|---|---|---|---|---|"]
    for name, what in GOOD.items():
        kept, refused = card.share("exact-copy", name), card.share("wrong-refusal", name)
        failed = card.cost(name)["failures"]
        lines.append(
            f"| `{name}` | {what} | {kept.total} | {show(kept)} | {refused.hits} | {failed} |"
        )
    lines += ["", "By length, without `diasafety-safe`: long answers are where it slips, mostly by"]
    lines += ["leaving out what stands between two places that read alike.", ""]
    lines += ["| characters | n | equal to the character |", "|---|---|---|"]
    for name, share in card.share_by_length().items():
        lines.append(f"| {name} | {share.total} | {show(share)} |")
    lines += ["", "## Bad answers: does it act?", ""]
    lines += ["| set | what | n | changed | failed |", "|---|---|---|---|---|"]
    for name, what in BAD.items():
        missed = card.share("missed-harm", name)
        changed = Share(missed.total - missed.hits, missed.total)
        failed = card.cost(name)["failures"]
        lines.append(f"| `{name}` | {what} | {missed.total} | {show(changed)} | {failed} |")
    for name, what in UPSTREAM.items():
        passed = card.share("unsafe-unchanged", name)
        changed = Share(passed.total - passed.hits, passed.total)
        failed = card.cost(name)["failures"]
        lines.append(
            f"| `{name}` | {what}; those that do not refuse, by rule | {passed.total} | "
            f"{show(changed)} | {failed} |"
        )
    lines += ["", "Against the references of these sets, (wins - losses) / n in percent:", ""]
    lines += ["| set | wins | ties | losses | net |", "|---|---|---|---|---|"]
    for name in ("truthfulqa-true", "truthfulqa-false", "hh-harmless"):
        cell = card.cell(name, "overlap")
        lines.append(
            f"| `{name}` | {cell['wins']} | {cell['ties']} | {cell['losses']} | "
            f"{cell['net']:+.0f} [{cell['low']:+.0f}, {cell['high']:+.0f}] |"
        )
    lines += [
        "",
        "## What it does to the rest of an answer",
        "",
        "| share | of | |",
        "|---|---|---|",
    ]
    meanings = {row["name"]: row["meaning"] for row in card.main["guards"]}
    for name in PARTS:
        found = card.share(name)
        if found.total:
            lines.append(f"| `{name}` | {meanings[name]} | {show(found)} of {found.total} |")
    lines += ["", "## Probes", "", "60 answers, 15 of each of four sets.", ""]
    lines += ["| share | of | |", "|---|---|---|"]
    names = [row["name"] for row in card.probes["guards"]]
    wanted = ("paraphrase-stable", "injection-obeyed", "injection-removed", "injection-survived")
    meanings = {row["name"]: row["meaning"] for row in card.probes["guards"]}
    for name in (one for one in wanted if one in names):
        found = card.share(name, probes=True)
        lines.append(f"| `{name}` | {meanings[name]} | {show(found)} of {found.total} |")
    return lines


def write_data(card: Card) -> list[str]:
    """Where the samples come from."""
    lines = ["", "## Data", ""]
    lines += ["| set | rows | new question | not nearly one | new answer | used |"]
    lines += ["|---|---|---|---|---|---|"]
    used = {*GOOD, *BAD, *UPSTREAM}
    for row in card.table["sets"]:
        if row["name"] in used:
            drawn = card.cost(row["name"])["corrections"]
            lines.append(
                f"| `{row['name']}` | {row['rows']} | {row['new_question']} | {row['not_near']} | "
                f"{row['new_answer']} | {drawn} |"
            )
    lines += [
        "",
        "Sources: the Alpaca demonstration data of LLaMA-Factory (Apache-2.0), GSM8K (MIT),",
        "GPTeacher role play (MIT), Dolly (CC-BY-SA-3.0), TruthfulQA (Apache-2.0), DiaSafety",
        "(Apache-2.0), HH-RLHF harmless-base (MIT), red-instruct (Apache-2.0); of each a seeded",
        "draw of 60.",
        "Nearly means that half of the pairs of words are shared (MinHash). The rows are not in",
        "this repository. The files that were written for this project (`light_edits`,",
        "`short_harm`, `keep_unchanged`, `borderline_benign`) are all in the training mix, so none",
        "of them is here.",
    ]
    return lines


TAIL = """
## Do it again

```sh
make scorecard DATA=path/to/data
```

It draws the samples, corrects them with the bundled model on a CPU (about an hour) and writes this
page; the full report with examples is then `runs/scorecard/evaluation/report.html`. What the
columns mean is on the page on [evaluation](evaluation.md).

A word on other numbers: the public AlpacaEval entries called aligner-2b are no evidence of how an
aligner edits. About three quarters of their text repeats other models' published answers.
"""


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--runs", type=Path, default=Path("runs/scorecard"))
    parser.add_argument("--out", type=Path, default=Path("docs/scorecard.md"))
    options = parser.parse_args()
    card = Card(options.runs)
    missed = [card.share("missed-harm", name) for name in BAD]
    bad = sum(one.total for one in missed)
    changed = bad - sum(one.hits for one in missed)
    limits = LIMITS.format(changed=changed, bad=bad, share=show(Share(changed, bad)))
    text = "\n".join([HEAD.format(limits=limits), *write_tables(card)[1:], *write_data(card)])
    options.out.write_text(text + "\n" + TAIL, encoding="utf-8")


if __name__ == "__main__":
    main()
