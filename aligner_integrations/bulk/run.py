"""Correcting a file: from its first run to its last, by way of any number of kills."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from typing_extensions import Unpack

from aligner_integrations.aligner import Aligner
from aligner_integrations.bulk.cluster import Workers, correct_on_cluster
from aligner_integrations.bulk.filling import fill
from aligner_integrations.bulk.job import describe_model, describe_options, read_source
from aligner_integrations.bulk.journal import Journal
from aligner_integrations.bulk.local import correct_locally
from aligner_integrations.bulk.plan import Plan
from aligner_integrations.bulk.report import BulkReport
from aligner_integrations.bulk.rows import ANSWER_FIELDS, QUESTION_FIELDS, Columns
from aligner_integrations.bulk.sources import open_source
from aligner_integrations.bulk.state import Progress, State, describe_input, replacing
from aligner_integrations.bulk.targets import choose_target
from aligner_integrations.errors import ConfigurationError, DataError
from aligner_integrations.locking import lock
from aligner_integrations.options import BatchArguments, check_policy

BulkEngine = Literal["local", "ray"]


def correct_file(
    aligner: Aligner | Mapping[str, Any],
    input: str | Path,
    output: str | Path,
    *,
    question_field: str | None = None,
    answer_field: str | None = None,
    correction_field: str = "correction",
    record_field: str = "aligner",
    resume: bool = True,
    retry_failed: bool = False,
    progress: bool = False,
    engine: BulkEngine = "local",
    workers: Workers | None = None,
    **call: Unpack[BatchArguments],
) -> BulkReport:
    """Correct all rows of a file, each exactly once.

    A run that was stopped, however it was, is gone on with by the same call. Rows come out in the
    order in which they came in, with all their fields, the correction and a short record; rows
    that fail go to ``OUTPUT.failed.jsonl`` with the reason. Beside the output there is
    ``OUTPUT.state.json``, and until a table is whole the journal ``OUTPUT.partial.jsonl``. Memory
    does not grow with the input.

    Args:
        aligner: Who corrects, or the arguments of `Aligner.from_pretrained` or
            `Aligner.from_server` as a dict; then it is loaded when there is work for it.
        input: A ``.jsonl``, ``.jsonl.gz``, ``.parquet``, ``.csv`` or ``.tsv`` file.
        output: A ``.jsonl``, ``.parquet``, ``.csv`` or ``.tsv`` file, which need not be of the
            same kind.
        question_field: The field with the question; by default ``question``, else ``prompt``.
        answer_field: The field with the answer; by default ``answer``, else ``response``.
        correction_field: Where the corrected answer goes.
        record_field: Where the record goes; in CSV, what its fields begin with.
        resume: Go on with an earlier run; False throws away what it did.
        retry_failed: When all is done, try failed rows once more; what goes well now moves to its
            place in the output.
        progress: Show a bar with rate and time left on standard error.
        engine: ``"local"`` for this process, ``"ray"`` for actors of Ray.
        workers: Ray's actors.
        **call: How to correct; see `BatchArguments`. Where ``on_error`` is not ``"raise"``, rows
            that can't be corrected are not failed: they get the original answer or a refusal.

    Raises:
        ConfigurationError: An option can't work.
        DataError: The input can't be read, has not the fields, or does not fit the output; an
            earlier run differs, or its files were changed; another run is at work.
        ServerError: The server was away for many rows on end; they are not counted as failed.
        MissingExtraError: Parquet needs the extra ``[bulk]``, Ray ``[ray]``.

    Example:
        >>> import json, tempfile
        >>> from aligner_integrations import Aligner
        >>> folder = Path(tempfile.mkdtemp())
        >>> row = {"id": 7, "question": "Capital of France?", "answer": "Paris."}
        >>> _ = (folder / "in.jsonl").write_text(json.dumps(row))
        >>> aligner = Aligner.from_pretrained()
        >>> correct_file(aligner, folder / "in.jsonl", folder / "out.jsonl").rows
        1
        >>> json.loads((folder / "out.jsonl").read_text())["correction"]
        'Paris.'
    """
    check_policy("on_error", call.get("on_error", "raise"))
    if engine not in ("local", "ray"):
        raise ConfigurationError(f"engine={engine!r} must be 'local' or 'ray'")
    source = open_source(Path(input))
    columns = Columns(
        QUESTION_FIELDS if question_field is None else (question_field,),
        ANSWER_FIELDS if answer_field is None else (answer_field,),
        correction_field,
        record_field,
    )
    target, apart = choose_target(Path(output), columns)
    files = Files.beside(Path(output), apart)
    if files.output.exists() and files.output.samefile(source.path):
        raise ConfigurationError(f"{output}: is the input too; name another output")
    run = _Run(
        aligner, Plan(source, columns, target), files, engine, workers or Workers(), progress, call
    )
    files.output.parent.mkdir(parents=True, exist_ok=True)
    with _locked(files.lock):
        return run.go(resume, retry_failed)


@dataclass(frozen=True, slots=True)
class Files:
    """The files of a run: the output, and what stands beside it."""

    output: Path
    journal: Path
    failures: Path
    retry_journal: Path
    retry_failures: Path
    state: Path
    lock: Path

    @classmethod
    def beside(cls, output: Path, apart: bool) -> Files:
        """Those of an output; ``apart`` if it is not its own journal."""

        def name(end: str) -> Path:
            return output.with_name(f"{output.name}.{end}")

        return cls(
            output,
            name("partial.jsonl") if apart else output,
            name("failed.jsonl"),
            name("retry.jsonl"),
            name("retry.failed.jsonl"),
            name("state.json"),
            output.with_name(f".{output.name}.lock"),
        )


class _Run:
    """One call of `correct_file`."""

    def __init__(
        self,
        aligner: Aligner | Mapping[str, Any],
        plan: Plan,
        files: Files,
        engine: BulkEngine,
        workers: Workers,
        progress: bool,
        call: BatchArguments,
    ) -> None:
        self._aligner = aligner
        self._plan = plan
        self._files = files
        self._engine = engine
        self._workers = workers
        self._progress = progress
        self._call = call
        self._resumed = 0
        self._seconds = 0.0

    def go(self, resume: bool, retry_failed: bool) -> BulkReport:
        """From where an earlier run was to the end."""
        files = self._files
        state = self._find_state(resume)
        self._resumed = state.progress.rows if state.phase != "retry" else 0
        if state.phase == "correct":
            self._plan.check()
            state = self._fill(state, self._plan, files.journal, files.failures)
            state = self._save(state.at("finish"))
        state = self._finish(state)
        if state.phase == "done" and retry_failed and state.progress.failed:
            self._check_size(state)
            begin = Progress(changed=state.progress.changed)
            state = self._save(state.at("retry", begin))
        if state.phase == "retry":
            plan = replace(self._plan, earlier=(files.journal, files.failures))
            state = self._fill(state, plan, files.retry_journal, files.retry_failures)
            state = self._save(state.at("swap"))
            state = self._finish(state)
        return self._report(state)

    def _find_state(self, resume: bool) -> State:
        files = self._files
        columns = self._plan.columns
        job = {
            "input": describe_input(self._plan.source.path),
            "model": describe_model(self._aligner),
            "options": describe_options(self._aligner, self._call, columns),
        }
        job = json.loads(json.dumps(job))  # as it is going to be read
        state = State.load(files.state) if resume else None
        if state is not None:
            state.check_same(job, files.state)
            if state.phase == "done" and not files.output.exists():
                raise DataError(f"{files.output}: was removed; write it anew with --no-resume")
            return state
        if resume and (files.output.exists() or files.journal.exists()):
            raise DataError(
                f"{files.output}: is there already, and no run that can be gone on with has "
                "written it; name another output, or write it anew with --no-resume"
            )
        # The state first: without it nothing of the old files counts.
        files.state.unlink(missing_ok=True)
        files.journal.unlink(missing_ok=True)
        files.failures.unlink(missing_ok=True)
        files.retry_journal.unlink(missing_ok=True)
        files.retry_failures.unlink(missing_ok=True)
        return self._save(State(job))

    def _fill(self, state: State, plan: Plan, journal: Path, failures: Path) -> State:
        started = time.monotonic()
        with Journal(journal, failures, self._files.state, state) as opened:
            total = plan.source.count() if self._progress else None
            fill(opened, plan, self._correct(plan, opened.rows), total, self._progress)
            self._seconds += time.monotonic() - started
            return opened.state

    def _correct(self, plan: Plan, skip: int) -> Any:
        if self._engine == "ray":
            source = read_source(self._aligner)
            if source is None:
                raise ConfigurationError(
                    f"{self._aligner!r} was built from a loaded model and can't be sent to Ray's "
                    "actors; make it with Aligner.from_pretrained(...)"
                )
            return correct_on_cluster(source, plan, skip, self._workers, self._call)
        if isinstance(self._aligner, Aligner):
            aligner = self._aligner
        else:
            from aligner_integrations.sharing import load_shared

            aligner = load_shared(dict(self._aligner))
        return correct_locally(aligner, plan.read(skip), **self._call)

    def _finish(self, state: State) -> State:
        """From a whole journal to the output, in steps that may be done twice."""
        files = self._files
        if state.phase == "swap":
            for new, old in (
                (files.retry_journal, files.journal),
                (files.retry_failures, files.failures),
            ):
                if new.exists():
                    new.replace(old)
            state = self._save(state.at("finish"))
        if state.phase == "finish":
            self._check_size(state)
            if files.journal != files.output:
                with replacing(files.output) as file:
                    self._plan.target.write(self._plan.source, files.journal, files.failures, file)
            state = self._save(state.at("done"))
        if state.phase == "done" and not state.progress.failed:
            files.failures.unlink(missing_ok=True)
            if files.journal != files.output:
                files.journal.unlink(missing_ok=True)
        return state

    def _check_size(self, state: State) -> None:
        """Opening cuts off what does not count, and complains of what is missing."""
        Journal(self._files.journal, self._files.failures, self._files.state, state).close()

    def _save(self, state: State) -> State:
        state.save(self._files.state)
        return state

    def _report(self, state: State) -> BulkReport:
        done = state.progress
        return BulkReport(
            done.rows,
            done.changed,
            done.failed,
            self._resumed,
            self._seconds,
            self._files.output,
            self._files.failures if done.failed else None,
        )


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    with path.open("ab") as file:
        lock(file, path)
        try:
            yield
        finally:
            if os.name == "posix":  # elsewhere an open file can't be removed
                path.unlink(missing_ok=True)
