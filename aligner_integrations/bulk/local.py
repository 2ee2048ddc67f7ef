"""Correcting a stream of rows with one aligner, in order and in bounded memory."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator

from typing_extensions import Unpack

from aligner_integrations.aligner import Aligner
from aligner_integrations.bulk.rows import Outcome, Task
from aligner_integrations.correction import Correction
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.options import BatchArguments
from aligner_integrations.streams import CorrectionStream

_AHEAD = 128
_MOST_AHEAD = 1024  # what an engine lets wait


def correct_locally(
    aligner: Aligner, tasks: Iterable[Task], **call: Unpack[BatchArguments]
) -> Iterator[tuple[Task, Outcome | None]]:
    """Correct rows as they come.

    Some hundred rows are with the engine at a time, and a new one joins for each that is done, so
    that its batches stay full; in `Aligner.correct_batch` they run empty at each batch's end.

    Args:
        aligner: Who corrects.
        tasks: The rows; those without a pair go along untouched.
        **call: How to correct; see `BatchArguments`.

    Yields:
        Each task, in order, with its outcome, None for one without a pair.

    Raises:
        ConfigurationError: An option can't work, so that every row would fail.
    """
    waiting: deque[tuple[Task, CorrectionStream | None]] = deque()
    coming, ahead = iter(tasks), _find_ahead(aligner)
    try:
        while True:
            jobs = []
            while len(waiting) < ahead and (task := next(coming, None)) is not None:
                stream = None
                if task.pair is not None:
                    request = aligner._request(*task.pair, **call)
                    stream = CorrectionStream(request, whole=True)
                    if (job := stream.start()) is not None:
                        jobs.append(job)
                waiting.append((task, stream))
            if jobs:
                aligner.engine.submit(jobs)
            if not waiting:
                return
            task, stream = waiting.popleft()
            yield task, None if stream is None else _read(stream)
    finally:
        for _, stream in waiting:
            if stream is not None:
                stream.close()


def _find_ahead(aligner: Aligner) -> int:
    source = aligner.source or {}
    together = source.get("max_batch_size") or source.get("max_concurrency") or 1
    return min(max(_AHEAD, 4 * int(together)), _MOST_AHEAD)


def read_outcome(result: Correction | Exception) -> Outcome:
    """What became of a row, from what `Aligner.correct_batch` puts in its place.

    Raises:
        ConfigurationError: That is what it is: no row would go better.
    """
    if isinstance(result, Correction):
        return Outcome.from_correction(result)
    if isinstance(result, ConfigurationError):
        raise result
    return Outcome.from_error(result)


def _read(stream: CorrectionStream) -> Outcome:
    try:
        return read_outcome(stream.read())
    except ConfigurationError:
        raise
    except Exception as error:  # whatever a model or a gate raises is this row's failure
        return read_outcome(error)
