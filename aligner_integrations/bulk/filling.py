"""Filling a journal: each outcome to the file where it belongs, with checkpoints and a bar."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterable, Iterator

from aligner_integrations.bulk.journal import Journal
from aligner_integrations.bulk.plan import Plan
from aligner_integrations.bulk.rows import Outcome, Task
from aligner_integrations.errors import CorrectionError, ServerError

_PATIENCE = 16
"""Rows in a row for whose failure the server is to blame, before the run stops."""


def fill(
    journal: Journal,
    plan: Plan,
    results: Iterable[tuple[Task, Outcome | None]],
    total: int | None,
    progress: bool,
) -> None:
    """Write all results into the journal.

    Args:
        journal: Where they go.
        plan: How they are encoded.
        results: Tasks and outcomes in order.
        total: How many rows there are, for the bar.
        progress: Show the bar.

    Raises:
        ServerError: The server is away. The rows that failed for it are not written.
    """
    outages = 0
    coming = iter(results)
    with _showing(journal, total, progress) as update, _closing(coming):
        for task, outcome in coming:
            write(journal, plan, task, outcome)
            if outcome is not None and outcome.outage:
                outages += 1
                if outages >= _PATIENCE:
                    raise _stop(journal, outcome)
            elif outcome is not None and not outcome.record.get("skipped"):
                outages = 0  # the model was there
            # No checkpoint while the server may be away, nor when an error ends the run: a key
            # press can come between a line and its count.
            if not outages and journal.is_due():
                journal.checkpoint()
            update()
        journal.checkpoint()


def write(journal: Journal, plan: Plan, task: Task, outcome: Outcome | None) -> None:
    """Write what became of one row."""
    if task.line:
        journal.append(task.line, changed=False)  # counted by the run that wrote it
    elif task.problem is not None:
        journal.append_failure(task.row, str(task.problem))
    elif outcome is None:
        raise CorrectionError(f"{task.row.place}: nothing came back for it; run again")
    elif outcome.text is None:
        journal.append_failure(task.row, outcome.reason)
    else:
        line = plan.target.encode(task.row, outcome)
        journal.append(line, changed=bool(outcome.record.get("changed")))


@contextlib.contextmanager
def _showing(journal: Journal, total: int | None, progress: bool) -> Iterator[Callable[[], None]]:
    if not progress:
        # Even a bar that is disabled takes a lock which forked processes share: one that was killed
        # with it would stop its siblings for ever.
        yield lambda: None
        return
    from tqdm import tqdm

    with tqdm(total=total, initial=journal.rows, desc="correct", unit="row") as bar:

        def update() -> None:
            bar.set_postfix(changed=journal.changed, failed=journal.failed, refresh=False)
            bar.update()

        yield update


@contextlib.contextmanager
def _closing(coming: Iterator[object]) -> Iterator[None]:
    try:
        yield
    finally:
        if isinstance(coming, Generator):
            coming.close()  # frees the model


def _stop(journal: Journal, outcome: Outcome) -> ServerError:
    reason = outcome.reason or str(outcome.record.get("error"))
    return ServerError(
        f"stopped, since {_PATIENCE} rows on end could not be corrected: "
        f"{reason.partition(': ')[2]} {journal.state.progress.rows} rows are done; run again to "
        "go on behind them"
    )
