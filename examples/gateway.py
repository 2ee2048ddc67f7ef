"""The gateway in front of a real, small LLM, asked with the official openai client.

Everything runs in this process and offline on a CPU: SmolLM2-135M-Instruct as the upstream, behind
a minimal OpenAI-compatible API, and the gateway with the bundled aligner.

    pip install 'aligner-integrations[server]' openai
    python examples/gateway.py
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import uvicorn
from fastapi import FastAPI

from aligner_integrations.server import GatewaySettings, create_app

QUESTIONS = ["What is the capital of France?", "How do I boil eggs?"]


def make_upstream() -> FastAPI:
    """SmolLM2-135M-Instruct, the bundled aligner's base, as an OpenAI-compatible API."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from aligner_integrations.models.bundled import prepare

    path = prepare("smollm2-135m-instruct")
    tokenizer = AutoTokenizer.from_pretrained(path)
    model = AutoModelForCausalLM.from_pretrained(path)
    app = FastAPI()

    @app.post("/v1/chat/completions")
    def complete(body: dict[str, Any]) -> dict[str, Any]:
        inputs = tokenizer.apply_chat_template(
            body["messages"], add_generation_prompt=True, return_tensors="pt", return_dict=True
        )
        output = model.generate(**inputs, max_new_tokens=body.get("max_tokens", 60))
        text = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "finish_reason": "length"}
        return {
            "id": "chatcmpl-0",
            "object": "chat.completion",
            "created": int(time.time()),
            "model": body["model"],
            "choices": [choice],
        }

    return app


@contextlib.contextmanager
def serving(app: FastAPI) -> Iterator[str]:
    """A server in a thread; its URL. On the command line, `aligner serve` does this."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def wait_until_ready(url: str) -> None:
    """Wait until the gateway has loaded its aligner."""
    while True:
        with contextlib.suppress(urllib.error.URLError):
            urllib.request.urlopen(f"{url}/health")  # noqa: S310 - our own server
            return
        time.sleep(0.1)


def main() -> None:
    with (
        serving(make_upstream()) as upstream,
        serving(create_app(GatewaySettings(f"{upstream}/v1", model="smollm2"))) as gateway,
    ):
        wait_until_ready(gateway)
        print(f"the gateway runs at {gateway}\n")
        with openai.OpenAI(base_url=f"{gateway}/v1", api_key="none") as client:
            for question in QUESTIONS:
                done = client.chat.completions.create(
                    model="smollm2", messages=[{"role": "user", "content": question}]
                )
                print(f"Q: {question}\nA: {done.choices[0].message.content}")
                print(f"   {done.choices[0].model_extra}\n")


if __name__ == "__main__":
    main()
