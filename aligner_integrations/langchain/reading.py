"""An answer that arrives in chunks, while the aligner reads along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aligner_integrations.engines.base import ReadAhead
from aligner_integrations.langchain.chunks import join_chunks, read_text


class Reading:
    """Collects chunks, and lets the aligner read from the answer's first text on.

    Args:
        begin: Called once with the chunks so far, when the first text has come; gives what the
            text goes to, or None where the aligner can't read along.

    Attributes:
        chunks: What has arrived.
        ahead: What the aligner has read of it.
    """

    def __init__(self, begin: Callable[[list[Any]], ReadAhead | None]) -> None:
        self.chunks: list[Any] = []
        self.ahead: ReadAhead | None = None
        self._begin: Callable[[list[Any]], ReadAhead | None] | None = begin

    def take(self, chunk: Any) -> None:
        """A chunk has arrived."""
        self.chunks.append(chunk)
        if self.ahead is not None:
            self.ahead.extend(read_text(chunk))
        elif self._begin is not None and read_text(chunk).strip():
            begin, self._begin = self._begin, None
            self.ahead = begin(self.chunks)
            if self.ahead is not None:
                self.ahead.extend("".join(map(read_text, self.chunks)))

    async def atake(self, chunk: Any) -> None:
        """`take`, without blocking the event loop."""
        if self._begin is not None and read_text(chunk).strip():
            await asyncio.to_thread(self.take, chunk)
        else:
            self.take(chunk)

    def close(self) -> None:
        """Let go of what the aligner has read, if no stream has taken it over."""
        if self.ahead is not None:
            self.ahead.close()

    def whole(self) -> Any:
        """What the chunks add up to."""
        return join_chunks(self.chunks)
