"""Numbers as the report spells them: a real minus, equal decimals, a dash for what is unknown."""

from __future__ import annotations

from collections.abc import Iterable

UNKNOWN = "–"


def signed(value: float | None, digits: int = 1) -> str:
    """With its sign.

    Example:
        >>> signed(12.34), signed(-0.04), signed(None)
        ('+12.3', '0.0', '–')
    """
    if value is None:
        return UNKNOWN
    rounded = round(value, digits)
    if rounded == 0:
        return f"{0:.{digits}f}"
    return f"{rounded:+.{digits}f}".replace("-", "\N{MINUS SIGN}")


def percent(share: float | None, digits: int = 1) -> str:
    """A share of 0 to 1 in percent, without the sign for it.

    Example:
        >>> percent(0.1234)
        '12.3'
    """
    return UNKNOWN if share is None else f"{100 * share:.{digits}f}"


def plain(value: float | None, digits: int = 2) -> str:
    """With so many decimals.

    Example:
        >>> plain(-1.5)
        '−1.50'
    """
    if value is None:
        return UNKNOWN
    return f"{value:.{digits}f}".replace("-", "\N{MINUS SIGN}")


def probability(p: float | None) -> str:
    """A p-value.

    Example:
        >>> probability(0.0314), probability(0.00002)
        ('0.031', '< 0.001')
    """
    if p is None:
        return UNKNOWN
    return "< 0.001" if p < 0.001 else f"{p:.3f}"


def stars(p: float | None, alpha: float = 0.05) -> str:
    """One star for significant, two and three for a fifth and a fiftieth of that.

    Example:
        >>> stars(0.03), stars(0.004), stars(0.2)
        ('*', '**', '')
    """
    if p is None or p >= alpha:
        return ""
    return "***" if p < alpha / 50 else "**" if p < alpha / 5 else "*"


def listing(names: Iterable[object]) -> str:
    """Names in a sentence.

    Example:
        >>> listing(["a", "b", "c"])
        'a, b and c'
    """
    *most, last = [str(name) for name in names] or [UNKNOWN]
    return f"{', '.join(most)} and {last}" if most else last


def counted(number: int, one: str, many: str = "") -> str:
    """A number and its noun.

    Example:
        >>> counted(1, "case"), counted(1200, "case")
        ('1 case', '1,200 cases')
    """
    return f"{number:,} {one if number == 1 else many or one + 's'}"
