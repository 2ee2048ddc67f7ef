"""The engine of an aligner that runs elsewhere: vLLM, SGLang, TGI, llama.cpp."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from typing import Any

from aligner_integrations.engines.background import Background
from aligner_integrations.engines.base import Job
from aligner_integrations.engines.connection import Connection, check_int
from aligner_integrations.engines.remote import RemoteTask
from aligner_integrations.engines.replicas import Replica
from aligner_integrations.engines.room import find_limit
from aligner_integrations.engines.sending import Sender
from aligner_integrations.engines.written import PromptWriter
from aligner_integrations.errors import (
    AlignerError,
    ConfigurationError,
    CorrectionError,
    QueueFullError,
    SteeringError,
)
from aligner_integrations.models.client import ClientModel
from aligner_integrations.options import GenerationOptions
from aligner_integrations.prompts import PromptFormat


class ServerEngine:
    """Runs jobs on servers with an OpenAI-compatible completions API.

    A thread with an event loop sends the requests over connections that are kept; it begins with
    the first job and ends with the engine.

    Args:
        client: Tokenizer and prompt format of the model that the servers run.
        connection: Where they are, and how they are asked.
        context_length: Most tokens of prompt and correction; by default what the model was
            built for.

    Raises:
        ConfigurationError: Prompts can't be sent as text in this format, or ``context_length`` is
            below 1.
    """

    def __init__(
        self, client: ClientModel, connection: Connection, *, context_length: int | None = None
    ) -> None:
        if context_length is not None:
            check_int("context_length", context_length, 1)
        self.client = client
        self.connection = connection
        self._context_length = context_length or client.context_length or 1 << 30
        self._writer = (
            PromptWriter(client.encoder, client.tokenizer)
            if connection.prompt_as == "text"
            else None
        )
        # Reentrant: the garbage collector may drop a stream, which ends its job, within it.
        self._lock = threading.RLock()
        self._open = 0
        self._background: Background | None = None
        self._sender: Sender | None = None

    @property
    def name(self) -> str:
        """The model's name on the servers."""
        return self.connection.model

    @property
    def prompt(self) -> PromptFormat:
        """The model's prompt format."""
        return self.client.encoder.prompt

    @property
    def replicas(self) -> list[Replica]:
        """The servers, and how each has been doing."""
        return [] if self._sender is None else list(self._sender.replicas.all)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Tokenise jobs in the caller's thread and send them off; see `Engine.submit`."""
        for job in jobs:
            try:
                self._send(job)
            except AlignerError as error:
                job.emit(error)
            except Exception as error:
                job.emit(CorrectionError(f"{self.name!r} could not read the input: {error!r}"))

    def read_ahead(self, question: str) -> None:
        """None: the servers read a prompt in one go."""

    def calibrate(self) -> None:
        """Does nothing: the servers' passes are their own business."""

    def close(self) -> None:
        """Cancel what runs and close all connections. The next job opens new ones."""
        with self._lock:
            background, self._background, self._sender = self._background, None, None
        if background is not None:
            background.stop(wait=True)

    def count_end(self, sender: Sender) -> None:
        """One job less."""
        with self._lock:
            if sender is self._sender:
                self._open -= 1

    def __repr__(self) -> str:
        return f"ServerEngine({self.name!r}, {self.connection.urls})"

    def _send(self, job: Job) -> None:
        check_options(job.options)
        task = self._prepare(job)
        limits = self.connection
        with self._lock:
            if self._open >= limits.max_concurrency + limits.max_waiting:
                raise QueueFullError(
                    f"{self._open} answers wait for {self.name!r} already; try again later, or "
                    "raise max_waiting"
                )
            self._open += 1
            background, sender = self._connect()

        job.on_cancel = background.start(sender.run(task), _Ending(self, sender, task))
        if job.cancelled:  # in between
            job.on_cancel()

    def _prepare(self, job: Job) -> RemoteTask:
        encoder, options = self.client.encoder, job.options
        prompt = encoder.encode(job.question, job.answer)
        body: dict[str, Any] = {
            "repetition_penalty": 1.0,  # vLLM would take the one of the model's own settings
            **self.connection.extra_body,
            "model": self.name,
            "max_tokens": find_limit(self.name, prompt, self._context_length, options),
            "temperature": options.temperature,
            "stream": True,
        }
        if options.temperature > 0 and (options.top_p < 1 or self._writer is None):
            body["top_p"] = options.top_p  # TGI, which is sent text, takes no 1
        if options.seed is not None:
            body["seed"] = options.seed
        if self.connection.prediction:
            body["prediction"] = {"type": "content", "content": job.answer}
        if self._writer is None:
            # Never stop strings: an answer may spell one, and would be cut there.
            body |= {"prompt": prompt.ids, "stop_token_ids": sorted(encoder.stop_ids)}
            return RemoteTask(self.name, job, encoder, prompt, body)
        body["prompt"] = self._writer.write(job.question, job.answer)
        return RemoteTask(self.name, job, encoder, prompt, body, self._writer)

    def _connect(self) -> tuple[Background, Sender]:
        background, sender = self._background, self._sender
        if background is None or sender is None or background.process != os.getpid():
            sender = Sender(self.connection)
            background = Background(sender.close)
            self._background, self._sender, self._open = background, sender, 1
            weakref.finalize(self, background.stop)
        return background, sender


class _Ending:
    """Ends a task, if nothing else has, and takes it off its engine's count.

    It does not keep the engine alive: one that nobody waits for can go, and its thread with it.
    """

    def __init__(self, engine: ServerEngine, sender: Sender, task: RemoteTask) -> None:
        self._engine = weakref.ref(engine)
        self._sender = sender
        self._task = task

    def __call__(self) -> None:
        self._task.fail(CorrectionError("this correction was closed before its end"))
        if (engine := self._engine()) is not None:
            engine.count_end(self._sender)


def check_options(options: GenerationOptions) -> None:
    """Raise `ConfigurationError` for options that a server can't honour."""
    if options.strength:
        raise SteeringError(
            f"strength={options.strength} changes what happens within the model, which a server's "
            "API can't do; use strength=0, or Aligner.from_pretrained"
        )
    if options.exact:
        raise ConfigurationError(
            "exact=True needs the model's logits, which a server does not give; leave it out, or "
            "use Aligner.from_pretrained"
        )
