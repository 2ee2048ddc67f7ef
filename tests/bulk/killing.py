"""Runs `correct_file` in processes that are killed at random moments, until one comes to its end.

``python -m tests.bulk.killing MODEL INPUT OUTPUT SEED [BROKEN]`` prints how far each run had come,
as JSON. Loading torch takes seconds, so the processes are forks of one that has the model already.
With BROKEN, questions that contain it fail at first, and are tried again.
"""

from __future__ import annotations

import faulthandler
import json
import os
import random
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from aligner_integrations import Aligner
from aligner_integrations.bulk import correct_file, journal
from aligner_integrations.engines.base import Job
from aligner_integrations.engines.local import LocalEngine
from aligner_integrations.errors import CorrectionError

_KILLS = 9
_SUBMIT = LocalEngine.submit


def break_for(text: str) -> None:
    """Let the engine fail where a question contains ``text``."""

    def submit(engine: LocalEngine, jobs: Sequence[Job]) -> None:
        for job in jobs:
            if text in job.question:
                job.emit(CorrectionError("out of memory"))
        _SUBMIT(engine, [job for job in jobs if text not in job.question])

    LocalEngine.submit = submit  # type: ignore[method-assign]


def kill_at_random(aligner: Aligner, source: str, output: str, seed: int, retry: bool) -> list[str]:
    """How far each run had come when it was killed: its phase and its rows."""
    moments, seen = random.Random(seed), [""]
    for kills in range(_KILLS + 1):
        child = os.fork()
        if child == 0:
            faulthandler.dump_traceback_later(120, exit=True)  # and status 1
            correct_file(aligner, source, output, retry_failed=retry)
            os._exit(0)
        if kills < _KILLS:
            # Every third at once, so that beginnings are hit too.
            while kills % 3 and read_state(output) == seen[-1] and not has_ended(child):
                time.sleep(0.002)
            time.sleep(moments.uniform(0.0, 0.15))
            os.kill(child, signal.SIGKILL)
        _, status = os.waitpid(child, 0)
        seen.append(read_state(output))
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0
            return seen
    raise AssertionError("the last run did not end")


def read_state(output: str) -> str:
    """How far a run has come."""
    state = Path(f"{output}.state.json")
    if not state.exists():
        return ""
    read = json.loads(state.read_text())
    return f"{read['phase']} {read['progress']['rows']}"


def has_ended(child: int) -> bool:
    """Whether a child has come to its end; it is not taken off the list of processes."""
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def main(model: str, source: str, output: str, seed: str, broken: str = "") -> None:
    """See the module."""
    journal._SECONDS = 0.005
    aligner = Aligner.from_pretrained(model, device="cpu")
    aligner.correct("warm", "up")
    while aligner.engine._working:  # type: ignore[attr-defined] # a thread would be lost by a fork
        time.sleep(0.01)
    seen = []
    if broken:
        break_for(broken)
        seen += kill_at_random(aligner, source, output, int(seed), False)
        LocalEngine.submit = _SUBMIT  # type: ignore[method-assign]
    seen += kill_at_random(aligner, source, output, int(seed), bool(broken))
    sys.stdout.write(json.dumps(seen))


if __name__ == "__main__":
    main(*sys.argv[1:])
