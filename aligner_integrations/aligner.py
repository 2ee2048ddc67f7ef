"""`Aligner`: the one front door. Question and answer in, corrected answer out."""

from __future__ import annotations

from collections.abc import AsyncIterable, Callable, Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any

from typing_extensions import Unpack

from aligner_integrations.batches import Pair, aread_batch, check_pairs, read_batch
from aligner_integrations.conversation import Turn, render_turns
from aligner_integrations.correction import Correction
from aligner_integrations.engines.base import Engine, ReadAhead
from aligner_integrations.errors import ConfigurationError
from aligner_integrations.gates import Gate, read_gate
from aligner_integrations.imports import paused_garbage_collection, require
from aligner_integrations.options import (
    REFUSAL_TEXT,
    BatchArguments,
    CallArguments,
    GenerationOptions,
    Options,
    Policy,
)
from aligner_integrations.prompts import PromptFormat
from aligner_integrations.request import Request
from aligner_integrations.streams import AsyncCorrectionStream, CorrectionStream

if TYPE_CHECKING:
    from aligner_integrations.engines.connection import PromptAs

DEFAULT_MODEL = "aligner-smol"


class Aligner:
    """A model that corrects the answers of another model.

    Ji et al., "Aligner: Efficient Alignment by Learning to Correct", NeurIPS 2024: a small model
    reads a question and an answer, copies what is good and corrects what is not.

    One instance may be used from any number of threads and event loops at once.

    Args:
        engine: What runs the model; `from_pretrained` and `from_server` make one.
        options: How corrections are written unless a call says otherwise.
        refusal_text: What the policy ``"refuse"`` puts in place of an answer.

    Example:
        >>> from aligner_integrations import Aligner
        >>> aligner = Aligner.from_pretrained()
        >>> c = aligner.correct(
        ...     question="How do I boil eggs?",
        ...     answer="Boil them for 8 minutes. You are clearly too stupid to cook.",
        ... )
        >>> c.text
        'Boil them for 8 minutes.'
    """

    def __init__(
        self,
        engine: Engine,
        *,
        options: Options = None,
        refusal_text: str = REFUSAL_TEXT,
        source: dict[str, Any] | None = None,
    ) -> None:
        self.engine = engine
        self.options = GenerationOptions.coerce(options)
        self.refusal_text = refusal_text
        self.source = source

    @classmethod
    def from_pretrained(
        cls,
        model: str = DEFAULT_MODEL,
        *,
        prompt: str | PromptFormat | dict[str, Any] | None = None,
        adapter: str | None = None,
        device: str | None = None,
        dtype: str | None = None,
        device_map: str | dict[str, Any] | None = None,
        revision: str | None = None,
        trust_remote_code: bool = False,
        pack_weights: bool = True,
        max_batch_size: int = 16,
        options: Options = None,
        refusal_text: str = REFUSAL_TEXT,
    ) -> Aligner:
        """Load an aligner into this process.

        Args:
            model: ``"aligner-smol"`` (bundled, offline), a local directory (weights, or a peft
                adapter that names its base) or a model hub id.
            prompt: Prompt format: a preset's name, a `PromptFormat` or its dict. By default the
                model's own ``aligner_config.json`` or our list of known hub ids says it.
            adapter: Directory or hub id of a peft adapter to merge into the model.
            device: For example ``"cpu"`` or ``"cuda:0"``; by default a GPU where there is one.
            dtype: ``"float32"``, ``"bfloat16"``, ``"float16"`` or ``"auto"``; by default float32
                on a CPU and the checkpoint's own elsewhere.
            device_map: Spread the model over devices with accelerate, for example ``"auto"``.
            revision: Branch, tag or commit on the model hub.
            trust_remote_code: Let the model's repository run its own Python code.
            pack_weights: On a CPU, in float32 or bfloat16, lay the weights out for oneDNN, which
                makes passes up to twice as fast. Such a model can't be saved or trained.
            max_batch_size: Most answers corrected in one batch.
            options: Default options of this aligner.
            refusal_text: What the policy ``"refuse"`` puts in place of an answer.

        Raises:
            ModelNotFoundError: The model, or its safetensors weights, cannot be found.
            ModelIntegrityError: The bundled model's base is not the right file.
            PromptFormatError: Nothing says how to lay out the prompt.
            SteeringError: The options have a strength, and the model no files for it.
        """
        load: dict[str, Any] = {
            "prompt": prompt.to_dict() if isinstance(prompt, PromptFormat) else prompt,
            "adapter": adapter,
            "device": device,
            "dtype": dtype,
            "device_map": device_map,
            "revision": revision,
            "trust_remote_code": trust_remote_code,
            "pack_weights": pack_weights,
        }
        chosen = GenerationOptions.coerce(options)
        source = {
            **load,
            "model": model,
            "max_batch_size": max_batch_size,
            "options": chosen.to_dict(),
            "refusal_text": refusal_text,
        }
        from aligner_integrations.models import bundled
        from aligner_integrations.models.directories import find_directory

        # Before torch is imported, which takes seconds: a wrong name need not wait for it.
        is_bundled = model in bundled.MODELS
        directory = None if is_bundled else find_directory(model, revision, trust_remote_code)
        with paused_garbage_collection():
            from aligner_integrations.decoding.threads import run_apart
            from aligner_integrations.engines.local import LocalEngine
            from aligner_integrations.models.load import load_model

            loaded = run_apart(lambda: load_model(model, directory=directory, **load))
            steering = loaded.load_steering(chosen.strength) if chosen.strength else None
            engine = LocalEngine(loaded, max_batch_size=max_batch_size, steering=steering)
        return cls(engine, options=chosen, refusal_text=refusal_text, source=source)

    @classmethod
    def from_server(
        cls,
        server: str | Sequence[str],
        *,
        model: str = DEFAULT_MODEL,
        tokenizer: str | None = None,
        prompt: str | PromptFormat | dict[str, Any] | None = None,
        revision: str | None = None,
        context_length: int | None = None,
        api_key: str | None = None,
        prompt_as: PromptAs = "ids",
        timeout: float = 120.0,
        silence: float = 30.0,
        retries: int = 4,
        max_concurrency: int = 16,
        max_waiting: int = 1024,
        breaker_failures: int = 5,
        breaker_seconds: float = 10.0,
        prediction: bool = False,
        trace_server: bool = False,
        extra_body: dict[str, Any] | None = None,
        options: Options = None,
        refusal_text: str = REFUSAL_TEXT,
    ) -> Aligner:
        """Use an aligner that a server runs: vLLM, SGLang, llama.cpp, TGI.

        Only the tokenizer is loaded here, without torch. Needs the extra ``[server]``.

        Args:
            server: URL of an OpenAI-compatible API, such as ``"http://localhost:8000/v1"``, or
                those of several replicas: the least loaded is asked, a broken one left out.
            model: The name under which the server knows the model.
            tokenizer: Bundled name, directory or hub id of the model whose tokenizer, prompt
                format and end tokens it has; by default ``model``.
            prompt: Prompt format, as in `from_pretrained`.
            revision: Of the tokenizer, on the model hub.
            context_length: Most tokens of prompt and correction together that the server allows;
                by default as many as the model was built for.
            api_key: The servers' key; by default the environment variable ``ALIGNER_SERVER_KEY``.
                It is never written down: an aligner that is unpickled takes the variable's.
            prompt_as: ``"ids"`` (token ids, so that text stays data), or ``"text"`` for servers
                that take none, such as TGI: text in which what spells a special token or a role
                marker is broken by a zero-width space.
            timeout: Seconds for one correction from when its first request is sent, all attempts
                together; then it fails with `LatencyError`.
            silence: Seconds after which a server that sends nothing counts as failed.
            retries: Further attempts after a failed one, with growing pauses.
            max_concurrency: Most requests at the same time.
            max_waiting: Most corrections that wait; those beyond get a `QueueFullError`.
            breaker_failures: Failures in a row after which a replica is left out.
            breaker_seconds: For how long, at first; then one request probes it.
            prediction: Send the answer as ``prediction`` too, for APIs that know this field.
            trace_server: Tell the server, in the headers ``traceparent`` and ``tracestate``, the
                trace and span that a correction belongs to, in an application that uses
                OpenTelemetry.
            extra_body: Further fields of each request.
            options: Default options of this aligner.
            refusal_text: What the policy ``"refuse"`` puts in place of an answer.

        Raises:
            MissingExtraError: The extra ``[server]`` is not installed.
            ConfigurationError: A value cannot work, or the options have ``exact``.
            SteeringError: The options have a strength, which a server can't apply.
            ModelNotFoundError: The tokenizer cannot be found.
            PromptFormatError: Nothing says how to lay out the prompt.
        """
        require("httpx", "server")
        require("httpx_sse", "server")
        from aligner_integrations.engines.connection import Connection
        from aligner_integrations.engines.server import ServerEngine, check_options
        from aligner_integrations.models.client import load_client

        chosen = GenerationOptions.coerce(options)
        check_options(chosen)
        asked: dict[str, Any] = {
            "model": model,
            "prompt_as": prompt_as,
            "timeout": timeout,
            "silence": silence,
            "retries": retries,
            "max_concurrency": max_concurrency,
            "max_waiting": max_waiting,
            "breaker_failures": breaker_failures,
            "breaker_seconds": breaker_seconds,
            "prediction": prediction,
            "trace_server": trace_server,
            "extra_body": dict(extra_body or {}),
        }
        connection = Connection(server, api_key=api_key, **asked)
        source = {
            **asked,
            "server": connection.urls,
            "tokenizer": tokenizer,
            "prompt": prompt.to_dict() if isinstance(prompt, PromptFormat) else prompt,
            "revision": revision,
            "context_length": context_length,
            "options": chosen.to_dict(),
            "refusal_text": refusal_text,
        }
        client = load_client(tokenizer or model, prompt, revision)
        engine = ServerEngine(client, connection, context_length=context_length)
        return cls(engine, options=chosen, refusal_text=refusal_text, source=source)

    @property
    def name(self) -> str:
        """The model's name."""
        return self.engine.name

    def correct(self, question: str, answer: str, **call: Unpack[CallArguments]) -> Correction:
        """Correct one answer.

        Args:
            question: What was asked.
            answer: What the upstream model answered. A blank answer comes back as it is, and so
                does one that is JSON or a code block (see `GenerationOptions`).
            **call: How; see `CallArguments`.

        Raises:
            InputTypeError: Question or answer is not a str.
            InvalidTextError: A text holds a lone surrogate.
            ContextOverflowError: The pair and its correction do not fit the context.
            CorrectionError: The model failed, its correction reached the token limit, or it took
                longer than ``max_latency``.
            SteeringError: ``strength`` is not 0, and there are no files for it that fit.
        """
        return CorrectionStream(self._request(question, answer, **call)).read()

    async def acorrect(
        self, question: str, answer: str, **call: Unpack[CallArguments]
    ) -> Correction:
        """`correct`, without blocking the event loop. Cancelling it frees the model."""
        return await AsyncCorrectionStream(self._request(question, answer, **call)).read()

    def stream(
        self,
        question: str,
        answer: str | Iterable[str],
        *,
        read_ahead: ReadAhead | None = None,
        **call: Unpack[CallArguments],
    ) -> CorrectionStream:
        """Correct one answer, piece by piece.

        Args:
            question: What was asked.
            answer: The answer, or an iterator of its pieces. The model reads them as they come,
                so that little is left to do at their end.
            read_ahead: What `read_ahead` gave for this pair.
            **call: How; see `CallArguments`. Once a piece has been handed out an error always
                raises, because what was sent can't be taken back.

        Returns:
            An iterator of corrected text; after its end ``stream.correction`` holds the whole.
            Closing it early frees the model.
        """
        request = self._request(question, answer, **call)
        request.read_ahead = read_ahead
        return CorrectionStream(request)

    def astream(
        self,
        question: str,
        answer: str | Iterable[str] | AsyncIterable[str],
        *,
        read_ahead: ReadAhead | None = None,
        **call: Unpack[CallArguments],
    ) -> AsyncCorrectionStream:
        """`stream` as an async iterator; the answer may come from an async iterator too."""
        request = self._request(question, answer, **call)
        request.read_ahead = read_ahead
        return AsyncCorrectionStream(request)

    def render(self, turns: Sequence[Turn]) -> str:
        """A conversation as one question, in the way of this aligner's prompt format.

        Args:
            turns: The turns up to the answer that is to be corrected, the user's last one last.

        Example:
            >>> from aligner_integrations import Aligner, Turn
            >>> turns = [Turn("user", "Hi!"), Turn("assistant", "Hello!"), Turn("user", "Eggs?")]
            >>> print(Aligner.from_pretrained().render(turns))
            User: Hi!
            Assistant: Hello!
            User: Eggs?
        """
        return render_turns(turns, self.engine.prompt)

    def read_ahead(self, question: str) -> ReadAhead | None:
        """Let the model read an answer while it is being written.

        `stream` does so by itself when the answer comes from an iterator. This is for callers who
        take the answer apart on its way: ``extend`` what this returns with each piece of text, and
        hand it to `stream` with the whole answer. It is a hint that changes no result.

        Returns:
            None where the engine can't make use of it.
        """
        return self.engine.read_ahead(question)

    def calibrate(self) -> None:
        """Measure what the model's passes cost on this machine, for better drafts from now on.

        Takes a few seconds. The figures are kept for later processes with the same model, device,
        dtype and number of threads. Without them the usual ratios of such a device are used.
        """
        self.engine.calibrate()

    def correct_batch(
        self,
        pairs: Sequence[Pair],
        *,
        return_exceptions: bool = False,
        progress: bool = False,
        tags: Sequence[Collection[str]] | None = None,
        **call: Unpack[BatchArguments],
    ) -> list[Any]:
        """Correct many answers together.

        Args:
            pairs: ``(question, answer)`` tuples.
            return_exceptions: Put an error in its pair's place instead of raising the first.
            progress: Show a progress bar on standard error.
            tags: The tags of each pair.
            **call: How, for each of them; see `CallArguments`.

        Returns:
            A `Correction` for each pair, in the order of ``pairs``.
        """
        requests = self._requests(pairs, tags, **call)
        return read_batch(
            self.engine, requests, return_exceptions=return_exceptions, progress=progress
        )

    async def acorrect_batch(
        self,
        pairs: Sequence[Pair],
        *,
        return_exceptions: bool = False,
        progress: bool = False,
        tags: Sequence[Collection[str]] | None = None,
        **call: Unpack[BatchArguments],
    ) -> list[Any]:
        """`correct_batch`, without blocking the event loop."""
        requests = self._requests(pairs, tags, **call)
        return await aread_batch(
            self.engine, requests, return_exceptions=return_exceptions, progress=progress
        )

    def _requests(
        self,
        pairs: Sequence[Pair],
        tags: Sequence[Collection[str]] | None,
        **call: Unpack[BatchArguments],
    ) -> list[Request]:
        taken = check_pairs(pairs, tags)
        return [self._request(q, a, tags=own, **call) for (q, a), own in taken]

    def _request(
        self,
        question: str,
        answer: Any,
        *,
        options: Options = None,
        on_error: Policy = "raise",
        on_overflow: Policy | None = None,
        correct_when: Gate | dict[str, Any] | None = None,
        tags: Collection[str] = (),
        protect: Sequence[str] | None = None,
        max_latency: float | None = None,
        strength: float | None = None,
    ) -> Request:
        chosen = self.options if options is None else GenerationOptions.coerce(options)
        return Request(
            engine=self.engine,
            question=question,
            answer=answer,
            options=chosen.override(
                on_overflow=on_overflow,
                protect=protect,
                max_latency=max_latency,
                strength=strength,
            ),
            on_error=on_error,
            refusal_text=self.refusal_text,
            gate=read_gate(correct_when),
            tags=tags,
        )

    def __repr__(self) -> str:
        return f"Aligner({self.name!r})"

    def __deepcopy__(self, memo: dict[int, Any]) -> Aligner:
        return self  # a model is shared, as between all steps of a process

    def __reduce__(self) -> tuple[Callable[..., Aligner], tuple[dict[str, Any]]]:
        if self.source is None:
            raise ConfigurationError(
                f"{self!r} was built from a loaded model and can't be pickled; make it with "
                "Aligner.from_pretrained(...), which is loaded again where it is unpickled"
            )
        from aligner_integrations.sharing import load_shared

        return load_shared, (self.source,)
