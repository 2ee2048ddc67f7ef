"""A real vLLM server for tests: a program of its own, in an environment of its own.

vLLM asks for other versions of our dependencies, so it is none of ours. The variable
``ALIGNER_VLLM`` says where its command is (docs/deployment.md, "What was run").
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

KEY = "sk-local"
CONTEXT = 1024


@contextlib.contextmanager
def run_vllm(
    model: Path, log: Path, *options: str, name: str = "aligner-smol", **variables: str
) -> Iterator[str]:
    """Its URL, once it has loaded the model; ``variables`` are set in its environment."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [
        *(os.environ["ALIGNER_VLLM"], "serve", str(model)),
        *("--served-model-name", name, "--host", "127.0.0.1", "--port", str(port)),
        *("--max-model-len", str(CONTEXT), "--generation-config", "vllm"),
        *("--dtype", "float32", "--enforce-eager", *options),
    ]
    settings = {"VLLM_API_KEY": KEY, "VLLM_CPU_KVCACHE_SPACE": "1", "HF_HUB_OFFLINE": "1"}
    with (
        log.open("w") as output,
        subprocess.Popen(  # noqa: S603 - the command that the tester names
            command, stdout=output, stderr=subprocess.STDOUT, env=os.environ | settings | variables
        ) as process,
    ):
        try:
            end = time.monotonic() + 300
            while not _is_up(port):
                assert process.poll() is None, f"vLLM ended:\n{log.read_text()[-3000:]}"
                assert time.monotonic() < end, f"vLLM does not start:\n{log.read_text()[-3000:]}"
                time.sleep(0.5)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()


def _is_up(port: int) -> bool:
    try:
        return httpx.get(f"http://127.0.0.1:{port}/health").status_code == 200
    except httpx.HTTPError:
        return False
