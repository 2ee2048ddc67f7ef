"""A picture of a data set's statistics."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aligner_integrations.imports import require
from aligner_integrations.training.data.statistics import (
    REWRITE,
    Group,
    Statistics,
    rank_kinds,
)

_COPY, _EDIT, _REWRITE, _ANSWER = "#b9b4c7", "#5e35b1", "#e08a3c", "#7d8fb3"
_MOST_KINDS = 10


def draw(statistics: Statistics, path: str | Path, *, title: str = "") -> None:
    """Draw what a data set teaches: copying, editing or rewriting; lengths; edits; kinds.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    require("matplotlib", "eval")
    from matplotlib.figure import Figure

    total = statistics.total
    rows = len(total.measures)
    figure = Figure(figsize=(11, 7.5), layout="constrained")
    figure.get_layout_engine().set(h_pad=0.12, w_pad=0.12)  # type: ignore[union-attr,call-arg]
    similarity, lengths, edits, kinds = figure.subplots(2, 2).flat
    _draw_similarity(similarity, total)
    _draw_lengths(lengths, total)
    _draw_edits(edits, total)
    _draw_kinds(kinds, statistics)
    for axes in (similarity, lengths, edits):
        axes.yaxis.set_major_formatter("{x:,.0f}")
    for axes in (similarity, lengths, edits, kinds):
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(f"{title or 'training data'}: {rows:,} examples", fontsize=12)
    figure.savefig(Path(path), dpi=150)


def _draw_similarity(axes: Any, group: Group) -> None:
    changed = [m.similarity for m in group.measures if m.edits]
    bins = [step / 25 for step in range(26)]
    axes.hist(
        [[v for v in changed if v < REWRITE], [v for v in changed if v >= REWRITE]],
        bins,
        stacked=True,
        color=[_REWRITE, _EDIT],
        label=["rewrite", "edit"],
    )
    axes.set_title("How near is the correction to the answer?", fontsize=10)
    axes.set_xlabel(
        f"character similarity (the {group.identities:,} identities, at 1, are not drawn)"
    )
    axes.set_ylabel("examples")
    axes.set_xlim(0, 1)
    if changed:
        axes.legend(frameon=False)


def _draw_lengths(axes: Any, group: Group) -> None:
    answers = [m.answer_words for m in group.measures]
    corrections = [m.correction_words for m in group.measures]
    longest = max(*answers, *corrections, 2)
    # Equal steps of the logarithm: most texts are short, and the long ones decide memory.
    bins = [longest ** (step / 30) for step in range(31)]
    axes.hist(answers, bins, color=_ANSWER, alpha=0.75, label="answer")
    axes.hist(corrections, bins, histtype="step", color=_EDIT, linewidth=1.8, label="correction")
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.set_title("How long are the texts?", fontsize=10)
    axes.set_xlabel("words")
    axes.set_ylabel("examples")
    axes.legend(frameon=False)


def _draw_edits(axes: Any, group: Group) -> None:
    counts = group.count_edits()
    rows = len(group.measures)
    colours = [_COPY, *[_EDIT] * (len(counts) - 1)]
    bars = axes.bar(list(counts), list(counts.values()), color=colours)
    axes.bar_label(bars, [_percent(count, rows) for count in counts.values()], fontsize=8)
    axes.set_title("How many edits does a correction make?", fontsize=10)
    axes.set_xlabel("edits (0 = identity; a text that is replaced whole is one edit)")
    axes.set_ylabel("examples")


def _percent(count: int, rows: int) -> str:
    return "<1%" if 0 < count < 0.005 * rows else f"{count / rows:.0%}"


def _draw_kinds(axes: Any, statistics: Statistics) -> None:
    ranked = rank_kinds(statistics)
    shown = ranked[:_MOST_KINDS]
    names = [f"{name or '(none)':.28} ({len(group.measures):,})" for name, group in shown]
    rows = [len(group.measures) for _, group in shown]
    copies = [group.identities / n for (_, group), n in zip(shown, rows, strict=True)]
    rewrites = [group.rewrites / n for (_, group), n in zip(shown, rows, strict=True)]
    edits = [1 - copy - rewrite for copy, rewrite in zip(copies, rewrites, strict=True)]
    left = [0.0] * len(shown)
    for label, colour, shares in (
        ("copy", _COPY, copies),
        ("edit", _EDIT, edits),
        ("rewrite", _REWRITE, rewrites),
    ):
        axes.barh(names, shares, left=left, color=colour, label=label, height=0.7)
        left = [start + share for start, share in zip(left, shares, strict=True)]
    axes.invert_yaxis()
    axes.set_xlim(0, 1)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0%}")
    more = (
        f" (the {_MOST_KINDS} largest of {len(ranked)} kinds)" if len(ranked) > len(shown) else ""
    )
    axes.set_title(f"What does each kind teach?{more}", fontsize=10)
    axes.tick_params(axis="y", labelsize=8)
    axes.legend(frameon=False, ncols=3, loc="upper center", bbox_to_anchor=(0.5, -0.08), fontsize=9)
