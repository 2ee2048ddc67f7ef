"""Figures of matplotlib as inline SVG: text stays text, colours follow the page."""

from __future__ import annotations

import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING
from xml.etree import ElementTree

from markupsafe import Markup

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Drawn in colours that stand for what they mean; the page says what they look like.
INK, SOFT, LINE, GROUND = "#010101", "#020202", "#030303", "#040404"
WIN, TIE, LOSS, MARK = "#050505", "#060606", "#070707", "#080808"
SERIES = ("#0a0a0a", "#0b0b0b", "#0c0c0c", "#0d0d0d", "#0e0e0e", "#0f0f0f")
_NAMES = {
    INK: "ink",
    SOFT: "soft",
    LINE: "line",
    GROUND: "ground",
    WIN: "win",
    TIE: "tie",
    LOSS: "loss",
    MARK: "mark",
} | {colour: f"series-{index}" for index, colour in enumerate(SERIES)}
_COLOUR = re.compile("|".join(_NAMES))
_LINK = re.compile(r'(?:url\(#|href="#)([^")]+)')
_FONT = re.compile(r"font: (?:(bold|700) )?([\d.]+)px [^;]*")  # matplotlib before 3.11
_FAMILY = re.compile(r"font-family: [^;]*(; )?")
_STYLE = {
    "axes.edgecolor": LINE,
    "axes.facecolor": "none",
    "axes.labelcolor": SOFT,
    "axes.labelsize": 9,
    "axes.linewidth": 0.8,
    "axes.spines.right": False,
    "axes.spines.top": False,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlesize": 10,
    "axes.titleweight": "bold",
    "figure.facecolor": "none",
    "font.family": ["DejaVu Sans"],
    "font.size": 9,
    "grid.color": LINE,
    "grid.linewidth": 0.6,
    "legend.fontsize": 9,
    "legend.frameon": False,
    "legend.labelcolor": INK,
    "path.simplify": True,
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
    "text.color": INK,
    "text.parse_math": False,
    "xtick.color": LINE,
    "xtick.labelcolor": SOFT,
    "xtick.labelsize": 9,
    "ytick.color": LINE,
    "ytick.labelcolor": INK,
    "ytick.labelsize": 9,
}


@contextmanager
def drawing() -> Iterator[None]:
    """The look of all figures, and silence about letters that matplotlib's own font lacks.

    It measures text with that font; the browser draws it with fonts of its own.
    """
    import matplotlib as mpl

    with mpl.rc_context(_STYLE), warnings.catch_warnings():  # type: ignore[arg-type]
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


def embed(figure: Figure, name: str, label: str) -> Markup:
    """A figure as an ``<svg>`` element whose ids are its own on the page.

    Equal figures give equal text.

    Args:
        figure: Drawn within `drawing`.
        name: Unique on the page; begins all ids.
        label: What a screen reader says.
    """
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        nothing = dict.fromkeys(("Creator", "Date", "Format", "Type"))
        figure.savefig(file, format="svg", metadata=nothing)
    root = ElementTree.fromstring(file.getvalue())  # noqa: S314 - written by ourselves just now
    width, height = root.get("viewBox", "0 0 1 1").split()[2:]
    linked = set(_LINK.findall(file.getvalue()))
    for element in root.iter():
        element.tag = element.tag.rpartition("}")[2]
        attributes = dict(element.attrib)
        element.attrib.clear()
        for key, value in attributes.items():
            if key != "id":
                element.set(key.rpartition("}")[2], _rewrite(value, name))
            elif value in linked:
                element.set("id", f"{name}-{value}")
        for child in list(element):
            if child.tag.endswith(("}metadata", "}style")):
                element.remove(child)
    root.attrib.clear()
    root.attrib.update({"viewBox": f"0 0 {width} {height}", "role": "img", "aria-label": label})
    root.set("style", f"--width: {float(width):.0f}px")
    for element in root.iter():
        if element.tag in {"defs", "g", "svg"} and not (element.text or "").strip():
            element.text = ""
        element.tail = "\n" if element.tag == "g" else ""
    return Markup(ElementTree.tostring(root, encoding="unicode"))  # noqa: S704 - XML, escaped


def _rewrite(value: str, name: str) -> str:
    value = value.replace("url(#", f"url(#{name}-")
    if value.startswith("#") and not _COLOUR.fullmatch(value):
        value = f"#{name}-{value[1:]}"
    value = _FONT.sub(_size, _FAMILY.sub("", value))
    return _COLOUR.sub(lambda found: f"var(--{_NAMES[found.group()]})", value)


def _size(font: re.Match[str]) -> str:
    """Size and weight of a font: which font it is, the page says."""
    weight = "font-weight: 700; " if font[1] else ""
    return f"{weight}font-size: {font[2]}px"
