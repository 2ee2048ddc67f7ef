"""Statistics of a data set: lengths, how much is copied, how many edits; by kind."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, median
from typing import TYPE_CHECKING, Any

from aligner_integrations.training.data.measures import Measures, measure
from aligner_integrations.training.data.triples import Triple

if TYPE_CHECKING:
    from rich.table import Table

REWRITE = 0.5
"""A correction less similar to its answer than this replaces it rather than edits it."""

MOST_EDITS = 5
"""Corrections with this many edits or more are counted together."""


@dataclass(slots=True)
class Group:
    """The measures of all examples of one kind.

    Attributes:
        measures: One for each example.
        tokens: Tokens of answer and correction of each example, with a tokenizer.
    """

    measures: list[Measures] = field(default_factory=list)
    tokens: list[tuple[int, int]] = field(default_factory=list)

    @property
    def identities(self) -> int:
        """Examples in which nothing is to be corrected."""
        return sum(m.similarity == 1.0 and m.edits == 0 for m in self.measures)

    @property
    def rewrites(self) -> int:
        """Examples whose correction replaces the answer."""
        return sum(m.similarity < REWRITE for m in self.measures)

    def count_edits(self) -> dict[str, int]:
        """Examples by their number of edits, the last for that many or more."""
        names = [*map(str, range(MOST_EDITS)), f"{MOST_EDITS}+"]
        counts = dict.fromkeys(names, 0)
        for m in self.measures:
            counts[names[min(m.edits, MOST_EDITS)]] += 1
        return counts

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        rows = len(self.measures)
        data: dict[str, Any] = {
            "rows": rows,
            "identity_share": _round(self.identities / rows),
            "rewrite_share": _round(self.rewrites / rows),
            "similarity": _summarise([m.similarity for m in self.measures]),
            "copied_share": _summarise([m.copied for m in self.measures]),
            "question_words": _summarise([m.question_words for m in self.measures]),
            "answer_words": _summarise([m.answer_words for m in self.measures]),
            "correction_words": _summarise([m.correction_words for m in self.measures]),
            "edits": {
                name: {"rows": count, "share": _round(count / rows)}
                for name, count in self.count_edits().items()
            },
        }
        if self.tokens:
            data["answer_tokens"] = _summarise([answer for answer, _ in self.tokens])
            data["correction_tokens"] = _summarise([correction for _, correction in self.tokens])
        return data


@dataclass(slots=True)
class Statistics:
    """Figures of a data set.

    Attributes:
        total: All examples.
        kinds: The examples by kind; "" for those without one.
    """

    total: Group = field(default_factory=Group)
    kinds: dict[str, Group] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, ready for JSON."""
        return {
            "total": self.total.to_dict(),
            "kinds": {name: group.to_dict() for name, group in self.kinds.items()},
        }

    def write_json(self, path: Path) -> None:
        """Write all figures."""
        path.write_text(json.dumps(self.to_dict(), indent=1) + "\n", encoding="utf-8")

    def to_rich(self, *, most_kinds: int = 20) -> Table:
        """A table for a terminal, a row for each of the largest kinds."""
        from rich.box import SIMPLE_HEAD
        from rich.table import Table

        table = Table(box=SIMPLE_HEAD, padding=0, pad_edge=False)
        table.add_column("kind", overflow="fold")  # the one that gives way
        heads = ["rows", "identity", "rewrite", "similar", "copied", "edits", "words q/a/c"]
        for head in heads + (["tokens a/c"] if self.total.tokens else []):
            table.add_column(head, justify="right", no_wrap=True)
        kinds = rank_kinds(self)
        for name, group in kinds[:most_kinds]:
            table.add_row(name or "(none)", *_show(group))
        if len(kinds) > most_kinds:
            table.add_row(f"... {len(kinds) - most_kinds} more kinds")
        if len(kinds) != 1:
            table.add_section()
            table.add_row("all", *_show(self.total))
        return table


def compute_statistics(
    triples: Iterable[Triple],
    *,
    tokenizer: Any = None,
    by: Callable[[Triple], str] = lambda triple: triple.kind,
) -> Statistics:
    """Measure all examples of a data set.

    Args:
        triples: The examples.
        tokenizer: A transformers tokenizer, to count tokens as well.
        by: What the kind of an example is.

    Raises:
        DataError: There is no example.

    Example:
        >>> statistics = compute_statistics([Triple("Eggs?", "Boil them, fool.", "Boil them.")])
        >>> statistics.to_dict()["total"]["identity_share"]
        0.0
    """
    from aligner_integrations.errors import DataError

    total = Group()
    kinds: defaultdict[str, Group] = defaultdict(Group)
    for triple in triples:
        measures = measure(triple)
        tokens = _count_tokens(tokenizer, triple) if tokenizer is not None else None
        for group in (total, kinds[by(triple)]):
            group.measures.append(measures)
            if tokens:
                group.tokens.append(tokens)
    if not total.measures:
        raise DataError("the data set holds no examples, so there are no statistics; name others")
    return Statistics(total, dict(kinds))


def rank_kinds(statistics: Statistics) -> list[tuple[str, Group]]:
    """The kinds, the largest first."""
    return sorted(statistics.kinds.items(), key=lambda item: (-len(item[1].measures), item[0]))


def _count_tokens(tokenizer: Any, triple: Triple) -> tuple[int, int]:
    texts = [triple.answer] if triple.is_identity else [triple.answer, triple.correction]
    ids = tokenizer(texts, add_special_tokens=False)["input_ids"]
    return len(ids[0]), len(ids[-1])


def _summarise(values: Sequence[float]) -> dict[str, float]:
    ordered = sorted(values)
    return {
        "mean": _round(mean(values)),
        "median": _round(median(values)),
        "p95": _round(ordered[min(len(ordered) - 1, int(0.95 * len(ordered)))]),
        "max": _round(ordered[-1]),
    }


def _show(group: Group) -> list[str]:
    rows = len(group.measures)
    words = [
        f"{mean(getattr(m, f'{part}_words') for m in group.measures):.0f}"
        for part in ("question", "answer", "correction")
    ]
    cells = [
        f"{rows:,}",
        f"{group.identities / rows:.1%}",
        f"{group.rewrites / rows:.1%}",
        f"{mean(m.similarity for m in group.measures):.2f}",
        f"{mean(m.copied for m in group.measures):.2f}",
        f"{mean(m.edits for m in group.measures):.1f}",
        "/".join(words),
    ]
    if group.tokens:
        cells.append("/".join(f"{mean(sizes):.0f}" for sizes in zip(*group.tokens, strict=True)))
    return cells


def _round(value: float) -> float:
    return round(float(value), 4)
