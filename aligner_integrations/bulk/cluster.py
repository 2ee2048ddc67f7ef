"""Correcting a stream of rows on a cluster, with Ray Data: actors with one model each.

One task on the driver's node reads the input as a stream and hands out portions of pairs, the
actors correct them, and the driver gets the outcomes in order. Ray holds the reading back while
the actors are busy, so neither side needs memory for the whole input; only the driver's node needs
the files. Whether rows are done is known from the journal alone, which only the driver writes.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from aligner_integrations.bulk.plan import Plan
from aligner_integrations.bulk.rows import Outcome, Task
from aligner_integrations.errors import AlignerError, ConfigurationError, CorrectionError
from aligner_integrations.imports import require
from aligner_integrations.options import BatchArguments

_PORTION = 64
"""Pairs that an actor gets at a time: some batches of the model, and little lost by a failure."""


@dataclass(frozen=True, slots=True)
class Workers:
    """The actors.

    Attributes:
        count: How many.
        cpus: CPUs that Ray keeps for each, which is also the threads of its model.
        gpus: GPUs that Ray keeps for each.

    Raises:
        ConfigurationError: A number is out of range.
    """

    count: int = 2
    cpus: float = 1.0
    gpus: float = 0.0

    def __post_init__(self) -> None:
        if self.count < 1:
            raise ConfigurationError(f"workers={self.count} must be at least 1")
        if self.cpus < 0 or self.gpus < 0:
            raise ConfigurationError(
                f"cpus={self.cpus} and gpus={self.gpus} of a worker must be at least 0"
            )


def correct_on_cluster(
    source: dict[str, Any], plan: Plan, skip: int, workers: Workers, call: BatchArguments
) -> Iterator[tuple[Task, Outcome | None]]:
    """Correct rows on Ray's actors.

    Connects to the cluster that ``RAY_ADDRESS`` names, and otherwise starts one on this machine.

    Args:
        source: Arguments of `Aligner.from_pretrained` or `from_server` for each actor.
        plan: What is to be done.
        skip: Rows that are done already.
        workers: The actors.
        call: How to correct.

    Yields:
        As `correct_locally`.

    Raises:
        MissingExtraError: Ray is not installed.
        CorrectionError: Ray gave up.
    """
    require("ray", "ray")
    import ray

    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, logging_level=logging.WARNING)
    try:
        outcomes = _run(source, plan, skip, workers, call)
        for task in plan.read(skip):
            yield task, None if task.pair is None else _take(outcomes, task)
    except ray.exceptions.RayError as error:
        raise _explain(error) from error
    finally:
        if started:
            ray.shutdown()


def _run(
    source: dict[str, Any], plan: Plan, skip: int, workers: Workers, call: BatchArguments
) -> Iterator[tuple[int, Outcome]]:
    """Row numbers and outcomes, in order."""
    import ray.data

    context = ray.data.DataContext.get_current()
    context.execution_options.preserve_order = True
    context.enable_progress_bars = False
    context.target_max_block_size = 1  # so that each portion is a block, and on its way at once
    logging.getLogger("ray.data").setLevel(logging.ERROR)  # it tells of each run at length
    # The reading asks for no CPU: it would wait for ever where the actors have them all.
    portions = ray.data.read_datasource(
        _make_datasource(plan, skip), override_num_blocks=1, num_cpus=0
    )
    corrected = portions.map_batches(
        _Corrector,
        fn_constructor_args=(source, call),
        batch_size=1,
        batch_format="numpy",
        compute=ray.data.ActorPoolStrategy(size=workers.count),
        num_cpus=workers.cpus,
        num_gpus=workers.gpus,
    )
    for row in corrected.iter_rows():
        for number, outcome in json.loads(row["portion"]):
            yield number, Outcome(**outcome)


def _make_datasource(plan: Plan, skip: int) -> Any:
    """The pairs of a plan as Ray reads them: one task, which yields portions as it goes."""
    import pyarrow as pa
    from ray.data import Datasource, ReadTask
    from ray.data.block import BlockMetadata

    class Pairs(Datasource):  # type: ignore[misc]
        @property
        def supports_distributed_reads(self) -> bool:
            return False  # the file need not be there on other nodes

        def estimate_inmemory_data_size(self) -> int | None:
            return None

        def get_read_tasks(self, *_: Any, **__: Any) -> list[Any]:
            def read() -> Iterator[Any]:
                for portion in read_portions(plan, skip):
                    yield pa.table({"portion": pa.array([portion], pa.binary())})

            unknown = BlockMetadata(
                num_rows=None, size_bytes=None, input_files=None, exec_stats=None
            )
            return [ReadTask(read, unknown)]

    return Pairs()  # type: ignore[no-untyped-call]


def read_portions(plan: Plan, skip: int) -> Iterator[bytes]:
    """The pairs of a plan with their rows' numbers, some at a time, as JSON."""
    portion: list[Any] = []
    for task in plan.read(skip):
        if task.pair is not None:
            portion.append((task.row.number, *task.pair))
        if len(portion) == _PORTION:
            yield json.dumps(portion).encode()
            portion = []
    if portion:
        yield json.dumps(portion).encode()


class _Corrector:
    """An actor's work: its own aligner, which corrects portions."""

    def __init__(self, source: dict[str, Any], call: BatchArguments) -> None:
        from aligner_integrations.sharing import load_shared

        self._aligner = load_shared(source)
        self._call = call

    def __call__(self, batch: dict[str, Any]) -> dict[str, list[bytes]]:
        from aligner_integrations.bulk.local import read_outcome

        done = []
        for portion in batch["portion"]:
            rows = json.loads(portion)
            pairs = [(question, answer) for _, question, answer in rows]
            results = self._aligner.correct_batch(pairs, return_exceptions=True, **self._call)
            outcomes = [asdict(read_outcome(result)) for result in results]
            numbers = [number for number, *_ in rows]
            done.append(json.dumps(list(zip(numbers, outcomes, strict=True))).encode())
        return {"portion": done}


def _take(outcomes: Iterator[tuple[int, Outcome]], task: Task) -> Outcome:
    number, outcome = next(outcomes, (None, None))
    if number != task.row.number or outcome is None:
        raise CorrectionError(
            f"{task.row.place}: Ray gave the outcome of row {number} in place of row "
            f"{task.row.number}; run again, what is done stays"
        )
    return outcome


def _explain(error: BaseException) -> AlignerError:
    """The error of ours that stopped an actor, or else one that says what Ray said."""
    import ray.exceptions

    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, AlignerError) and not isinstance(cause, ray.exceptions.RayError):
            return cause
        cause = getattr(cause, "cause", None) or cause.__cause__
    lines = str(error).strip().splitlines() or [repr(error)]
    return CorrectionError(f"Ray gave up: {lines[-1]:.500}; run again, what is done stays")
