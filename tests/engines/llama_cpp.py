"""A real server for tests: llama.cpp's own, from the wheel that holds it.

``python -m tests.engines.llama_cpp MODEL [SPECULATION]`` serves until its standard input ends.
"""

from __future__ import annotations

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

KEY = "sk-local"
CONTEXT = 1024  # of each of the two slots


@contextlib.contextmanager
def run_llama_cpp(model: Path, speculation: str = "none") -> Iterator[str]:
    """Its URL, once it has loaded the model."""
    command = [sys.executable, "-m", "tests.engines.llama_cpp", str(model), speculation]
    with subprocess.Popen(  # noqa: S603 - our own interpreter
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        try:
            url = process.stdout.readline().strip()
            assert url.startswith("http://"), "the server ended before it had begun"
            end = time.monotonic() + 60
            while httpx.get(f"{url}/health").status_code != 200:
                assert time.monotonic() < end, "the server does not load its model"
                time.sleep(0.1)
            yield f"{url}/v1"
        finally:
            process.stdin.close()
            process.kill()


def serve(model: str, speculation: str) -> None:
    import xllamacpp  # type: ignore[import-not-found, unused-ignore]

    params = xllamacpp.CommonParams()
    params.model.path = model
    params.model_alias = {"aligner-smol"}
    params.hostnames, params.port = ["127.0.0.1"], 0
    params.api_keys = [KEY]
    params.n_parallel, params.n_ctx = 2, 2 * CONTEXT
    params.cpuparams.n_threads = 2
    params.warmup = False
    if speculation != "none":
        kind = f"COMMON_SPECULATIVE_TYPE_{speculation.upper()}"
        params.speculative.types = [getattr(xllamacpp.common_speculative_type, kind)]
        params.speculative.ngram_simple.size_n = 4
    server = xllamacpp.Server(params)
    print(server.listening_address, flush=True)  # noqa: T201
    sys.stdin.read()


if __name__ == "__main__":
    serve(*sys.argv[1:])
