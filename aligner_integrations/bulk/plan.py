"""What is to be done with an input file. Plain data, so that another process can read it too."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from aligner_integrations.bulk.journal import read_failed, read_lines
from aligner_integrations.bulk.rows import Columns, SourceRow, Task
from aligner_integrations.bulk.sources import Source
from aligner_integrations.bulk.targets import Target
from aligner_integrations.errors import DataError
from aligner_integrations.training.data.rows import RowProblem

_HEAD = 100


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done with an input file.

    Attributes:
        source: The input.
        columns: Where the texts stand.
        target: The form of the output.
        earlier: The journal and the side file of a run that is done; then only the rows in the
            side file are corrected, and the others' lines are copied.
    """

    source: Source
    columns: Columns
    target: Target
    earlier: tuple[Path, Path] | None = None

    def read(self, skip: int = 0) -> Iterator[Task]:
        """The tasks in order, without the first ``skip``."""
        if self.earlier is None:
            for row in self.source.read(skip):
                yield self._judge(row)
            return
        journal, failures = self.earlier
        failed = itertools.dropwhile(lambda number: number <= skip, read_failed(failures))
        before = sum(1 for _ in itertools.takewhile(lambda n: n <= skip, read_failed(failures)))
        lines = itertools.islice(read_lines(journal), skip - before, None)
        again = next(failed, None)
        for row in self.source.read(skip):
            if row.number == again:
                again = next(failed, None)
                yield self._judge(row)
            elif (line := next(lines, None)) is not None:
                yield Task(row, line=line)
            else:
                raise DataError(f"{journal}: ends before {row.place}; start anew with --no-resume")

    def check(self) -> None:
        """Look at the input before the work begins.

        Raises:
            DataError: The fields are not there, or the output can't hold what is there.
        """
        head = list(itertools.islice((self._judge(row) for row in self.source.read()), _HEAD))
        kinds = {"missing field", "field in the way"}
        if head and all(task.problem and task.problem.kind in kinds for task in head):
            raise DataError(f"{head[0].row.place}: {head[0].problem}")
        self.target.survey(self.source)

    def _judge(self, row: SourceRow) -> Task:
        try:
            pair = self.columns.read(row)
            self.target.check(row)
        except RowProblem as problem:
            return Task(row, problem=problem)
        return Task(row, pair)
