"""How much corrected text a stream hands out at a time."""

from __future__ import annotations

import re

from aligner_integrations.options import StreamBy

_ENDS = {
    "token": re.compile(r".*", re.DOTALL),
    "word": re.compile(r".*\s", re.DOTALL),
    # A full stop, closing quotes and brackets, then space: "3.5" and "e.g.," are not cut.
    # Where no space follows, what comes next shows that no quote or bracket is still to come.
    "sentence": re.compile(
        r".*(?:[.!?…][\"'”’)\]*_]*\s+|[。！？｡]+[」』”’）)】》]*(?=[^。！？｡」』”’）)】》])|\n)",
        re.DOTALL,
    ),
}


class Pieces:
    """Joins tokens to words or sentences.

    Example:
        >>> pieces = Pieces("word")
        >>> [pieces.push("Boil th"), pieces.push("em well"), pieces.finish()]
        ['Boil ', 'them ', 'well']
    """

    def __init__(self, unit: StreamBy) -> None:
        self._end = _ENDS[unit]
        self._held = ""

    def push(self, text: str) -> str:
        """Add text; returns what is complete by now."""
        self._held += text
        done = self._end.match(self._held)
        piece = done[0] if done else ""
        self._held = self._held[len(piece) :]
        return piece

    def finish(self) -> str:
        """What is left at the end."""
        piece, self._held = self._held, ""
        return piece
