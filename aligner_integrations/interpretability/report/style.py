"""The look of a scan's pictures: colours that colour-blind readers can tell apart."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager

CORRECT, COPY, OTHER, SOFT, LINE, INK = (
    "#b5541c",
    "#2a68b1",
    "#6f6a8a",
    "#5b606b",
    "#d8dade",
    "#16181d",
)
DIVERGING = ["#16406f", "#2a68b1", "#8fb4dc", "#f4f3f0", "#eeb184", "#c8692b", "#7a3408"]
"""Blue (copy), pale, orange (correct)."""
RISING = ["#f4f3f0", "#bcd3ea", "#6f9fd2", "#2a68b1", "#16406f", "#0b2340"]

_STYLE = {
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.titlesize": 11,
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 8.5,
    "legend.frameon": False,
    "savefig.dpi": 150,
    "svg.fonttype": "none",
    "svg.hashsalt": "aligner-scan",
    "text.parse_math": False,
    "xtick.labelsize": 8.5,
    "ytick.labelsize": 8.5,
}


@contextmanager
def drawing() -> Iterator[None]:
    """The look of all figures, and silence about letters that matplotlib's own font lacks."""
    import matplotlib as mpl

    with mpl.rc_context(_STYLE), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield
