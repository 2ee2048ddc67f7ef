"""Reading an answer while the upstream model still writes it."""

from __future__ import annotations

import threading
from collections.abc import Callable

from aligner_integrations.decoding.kv import RowCache
from aligner_integrations.decoding.rows import Prefix
from aligner_integrations.errors import AlignerError
from aligner_integrations.tokenization import PromptEncoder

STEP = 64
"""Characters read together; fewer make more passes, more leave a longer rest for the end."""

HELD = 3
"""Tokens at the end that are not read yet, because what follows may merge with them."""


class LocalReadAhead:
    """The prompt's beginning, tokenised anew as the answer grows.

    Callers `extend` it from any thread; everything else is the engine's worker's.

    Args:
        encoder: The model's prompt format.
        question: The question.
        limit: Most tokens of the prompt and a copy of the answer. With more the answer can't be
            corrected, so no more is read.
        wake: Called when there is something to read.
    """

    def __init__(
        self,
        encoder: PromptEncoder,
        question: str,
        limit: int,
        wake: Callable[[LocalReadAhead], None],
    ) -> None:
        self.prefix = Prefix(RowCache())
        self.closed = False
        self._encoder = encoder
        self._question = question
        self._limit = limit
        self._wake = wake
        self._lock = threading.Lock()
        self._text: list[str] = []
        self._length = 0
        self._before: int | None = None  # tokens before the answer's first one
        self._read_to = -STEP  # the question is read before the answer's first character

    def extend(self, text: str) -> None:
        """More of the answer has arrived."""
        with self._lock:
            if self.closed:
                return
            self._text.append(text)
            self._length += len(text)
            due = self._is_due()
        if due:
            self._wake(self)

    def update(self, copy_opening: Callable[[], Prefix]) -> Prefix | None:
        """Tokenise what has arrived; what is to be read, if anything is.

        Args:
            copy_opening: Gives what a new prefix begins with.
        """
        with self._lock:
            if self.closed:
                return None
            text = "".join(self._text)
            self._text = [text]
            due = self._is_due()
            self._read_to = self._length if due else self._read_to
            prefix = self.prefix
        if not prefix.ids:
            prefix = self._begin(copy_opening())
        if due:
            try:
                ids = self._encoder.encode_beginning(self._question, text)
            except AlignerError:  # told when the answer is whole, if it is still true then
                self.close()
            else:
                self._before = len(ids) if self._before is None and not text else self._before
                if self._is_too_long(len(ids)):
                    self.close()
                else:
                    prefix.replace(ids[: len(ids) - HELD])
        return prefix if prefix.unread and not self.closed else None

    def _begin(self, prefix: Prefix) -> Prefix:
        with self._lock:
            if not self.closed:  # or it would hold a cache for ever
                self.prefix = prefix
        return prefix

    def take(self) -> Prefix | None:
        """Read no more, and give what was read away, once."""
        with self._lock:
            prefix = None if self.closed or not self.prefix.ids else self.prefix
            self.closed, self.prefix, self._text = True, Prefix(RowCache()), []
        return prefix

    def close(self) -> None:
        """See `ReadAhead.close`.

        Whoever holds it may do so for long, in the traceback of an error for one; and what it has
        read takes tens of megabytes.
        """
        self.take()

    def _is_too_long(self, length: int) -> bool:
        """Whether no correction can come of so many tokens: its copy must have room as well."""
        if self._before is None:  # the answer began before the question was read
            self._before = len(self._encoder.encode_beginning(self._question, ""))
        return length + (length - self._before) - HELD > self._limit

    def _is_due(self) -> bool:
        # Each time all of the text is tokenised, so a long one is left to grow by more.
        return self._length - self._read_to >= max(STEP, self._length // 64)
