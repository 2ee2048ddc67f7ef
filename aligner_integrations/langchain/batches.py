"""A batch of inputs: which of them go to the model, and where its corrections belong."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aligner_integrations.correction import Correction
from aligner_integrations.langchain.answers import Answer


class Batch:
    """Inputs of `Runnable.batch` on their way to outputs, in their order.

    Args:
        read: For each input its answer and question (None where nothing is to be corrected), or the
            error that reading it gave.
        tags: The tags of each input.
        write: Makes the output of an answer and its correction.

    Attributes:
        outputs: An output or an error for each input.
        pairs: What the model is to correct.
        tags: The tags of each of them.
        corrections: What came of it, each with its input's index.
    """

    def __init__(
        self,
        read: list[tuple[Answer, str | None] | Exception],
        tags: list[list[str]],
        write: Callable[[Answer, Correction | None], Any],
    ) -> None:
        self.outputs: list[Any] = []
        self.tags: list[list[str]] = []
        self._write = write
        self.pairs: list[tuple[str, str]] = []
        self._answers: list[tuple[int, Answer]] = []
        self.corrections: list[tuple[int, Correction]] = []
        for index, item in enumerate(read):
            if isinstance(item, Exception):
                self.outputs.append(item)
                continue
            answer, question = item
            self.outputs.append(write(answer, None) if question is None else None)
            if question is not None:
                self.tags.append(tags[index])
                self.pairs.append((question, answer.text))
                self._answers.append((index, answer))

    def put(self, results: list[Correction | Exception]) -> None:
        """Take the model's results, one for each of ``pairs``."""
        for (index, answer), result in zip(self._answers, results, strict=True):
            if isinstance(result, Correction):
                self.corrections.append((index, result))
                self.outputs[index] = self._write(answer, result)
            else:
                self.outputs[index] = result
