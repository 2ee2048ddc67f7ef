"""``aligner serve``: an OpenAI-compatible gateway with corrected answers."""

from __future__ import annotations

from importlib.resources import files
from typing import Annotated

import typer

from aligner_integrations.cli.options import (
    DeviceOption,
    DtypeOption,
    OnErrorOption,
    ProtectOption,
    TokenizerOption,
    read_loading,
)

_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def _print_dashboard(wanted: bool) -> None:
    if wanted:
        typer.echo(
            (files("aligner_integrations.server") / "grafana.json").read_text("utf-8"), nl=False
        )
        raise typer.Exit


def serve(
    upstream: Annotated[
        str, typer.Option(help="URL of an OpenAI-compatible API, up to and with /v1.")
    ],
    model: Annotated[
        str | None,
        typer.Option("--model", "-m", help="The one upstream model to serve; by default any."),
    ] = None,
    aligner: Annotated[
        str, typer.Option(help="Who corrects: bundled name, directory or hub id.")
    ] = "aligner-smol",
    aligner_server: Annotated[
        list[str] | None,
        typer.Option(help="URL of a server that runs the aligner, up to /v1; or one more."),
    ] = None,
    tokenizer: TokenizerOption = None,
    prompt: Annotated[
        str | None, typer.Option(help="Prompt format, where the aligner does not say its own.")
    ] = None,
    device: DeviceOption = None,
    dtype: DtypeOption = None,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0 for any.")] = 8088,
    upstream_key: Annotated[
        str | None,
        typer.Option(envvar="ALIGNER_UPSTREAM_KEY", help="API key for the upstream."),
    ] = None,
    api_key: Annotated[
        list[str] | None,
        typer.Option(
            envvar="ALIGNER_API_KEYS",
            help="A key of which clients must send one; again for more. In the variable, spaces "
            "separate them.",
        ),
    ] = None,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(
            help="A name that requests may ask for in Host; again for more. By default any, but "
            "without keys on this machine's own address only its own names."
        ),
    ] = None,
    history: Annotated[
        str, typer.Option(help="Turns that the question holds: last or all.")
    ] = "last",
    on_error: OnErrorOption = "raise",
    on_overflow: Annotated[
        str | None, typer.Option(help="The same for what does not fit the aligner's context.")
    ] = None,
    protect: ProtectOption = None,
    pass_through: Annotated[
        bool, typer.Option(help="Hand on JSON answers and single code blocks as they are.")
    ] = True,
    longer_than: Annotated[
        int, typer.Option(min=0, help="Correct only answers with more characters.")
    ] = 0,
    tag: Annotated[
        list[str] | None,
        typer.Option(help="Correct only requests with this value in their metadata; or one more."),
    ] = None,
    max_latency: Annotated[
        float | None, typer.Option(help="Seconds that a correction may take.")
    ] = None,
    strength: Annotated[
        float,
        typer.Option(min=-1, max=1, help="How eagerly to correct, for all; 0: as trained."),
    ] = 0.0,
    timeout: Annotated[
        float, typer.Option(help="Seconds without a byte from the upstream.")
    ] = 120.0,
    max_body: Annotated[int, typer.Option(help="Most bytes of a request.")] = 16 * 1024 * 1024,
    max_concurrent: Annotated[
        int, typer.Option(help="Most requests that are worked on together.")
    ] = 32,
    max_waiting: Annotated[int, typer.Option(help="Most requests that wait; others get 429.")] = 64,
    grace: Annotated[
        float, typer.Option(min=0, help="Seconds that requests have to end on SIGTERM.")
    ] = 30.0,
    page: Annotated[bool, typer.Option(help="Serve the web page at /.")] = True,
    log_format: Annotated[
        str, typer.Option(help="Lines of the log: text, or json for machines.")
    ] = "text",
    otel: Annotated[
        bool,
        typer.Option(
            "--otel", help="Send traces and metrics by OTLP, as the OTEL_... variables say."
        ),
    ] = False,
    trace_upstream: Annotated[
        bool,
        typer.Option(
            "--trace-upstream", help="Tell the upstream which trace a request belongs to."
        ),
    ] = False,
    trace_aligner: Annotated[
        bool,
        typer.Option(
            "--trace-aligner", help="With --aligner-server: tell it which trace it works for."
        ),
    ] = False,
    dashboard: Annotated[
        bool,
        typer.Option(
            "--dashboard",
            callback=_print_dashboard,
            is_eager=True,
            help="Print a dashboard for Grafana, as JSON, and end.",
        ),
    ] = False,
) -> None:
    """Serve corrected answers: an OpenAI-compatible gateway in front of an upstream."""
    from aligner_integrations.imports import require

    for package in ("fastapi", "uvicorn", "httpx", "httpx_sse", "prometheus_client"):
        require(package, "server")

    import logging

    from aligner_integrations.errors import ConfigurationError
    from aligner_integrations.gates import CorrectWhen
    from aligner_integrations.server.app import create_app
    from aligner_integrations.server.logs import make_handler
    from aligner_integrations.server.run import GracefulServer
    from aligner_integrations.server.settings import GatewaySettings
    from aligner_integrations.step import CorrectionStep, StepArguments
    from aligner_integrations.telemetry.export import start_export

    if history not in ("last", "all"):
        raise ConfigurationError(f"--history {history!r} must be last or all")
    settings = GatewaySettings(
        upstream=upstream,
        model=model,
        upstream_key=upstream_key,
        api_keys=tuple(api_key or ()),
        allowed_hosts=tuple(
            allowed_host or (() if api_key or host not in _LOOPBACK else _LOOPBACK)
        ),
        history="all" if history == "all" else "last",
        max_body=max_body,
        timeout=timeout,
        max_concurrent=max_concurrent,
        max_waiting=max_waiting,
        page=page,
        trace_upstream=trace_upstream,
    )
    loading = read_loading(
        aligner,
        prompt,
        strength,
        server=aligner_server,
        tokenizer=tokenizer,
        device=device,
        dtype=dtype,
        together=max_concurrent if aligner_server else None,
    )
    if trace_aligner:
        if not aligner_server:
            raise ConfigurationError(
                "--trace-aligner is for an aligner on a server; one that is loaded here has its "
                "spans in this process, so leave it out"
            )
        loading["trace_server"] = True
    arguments: StepArguments = {
        "model": loading.pop("model"),
        "load_options": loading,
        "on_error": on_error,  # type: ignore[typeddict-item] # checked by CorrectionStep
        "on_overflow": on_overflow,  # type: ignore[typeddict-item]
        "protect": protect or None,
        "options": {} if pass_through else {"pass_through": []},
        "correct_when": CorrectWhen(longer_than, tags=tuple(tag or ())),
        "max_latency": max_latency,
        "strength": strength,
    }
    logging.basicConfig(level=logging.INFO, handlers=[make_handler(log_format)])
    if otel:
        start_export("aligner-gateway")
    app = create_app(settings, CorrectionStep(**arguments))
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it logs whole URLs
    if not settings.api_keys and host not in _LOOPBACK:
        logging.getLogger(__name__).warning(
            "everybody who reaches %s may use the gateway; set --api-key", host
        )
    GracefulServer(app, host, port, grace).run()
