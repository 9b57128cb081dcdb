"""`drift up`: serves a DriftService on this machine until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

from drift_cli import runs
from drift_cli.progress import StartUp
from drift_engine.tracing import starting
from drift_operator import manifests
from drift_operator.driftservice import DriftService
from drift_operator.errors import LocalError
from drift_operator.local import planning, ports

MOST_PORT = 65535


def _port(text: str) -> int:
    if not text.isdecimal() or int(text) > MOST_PORT:
        raise argparse.ArgumentTypeError(f"{text!r} is not a port between 0 and {MOST_PORT}")
    return int(text)


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "-f", "--file", type=Path, help="a DriftService in YAML (default: the embedded model drift-tiny)"
    )
    parser.add_argument("--model", help="another model for the same promise: a folder, hf://OWNER/NAME, ...")
    parser.add_argument("--mode", help="another spec.multiplexing.mode: mux, fused, muxwise, ...")
    parser.add_argument("--slack", help="another spec.multiplexing.slack: strict or chain")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--timeline",
        type=Path,
        metavar="FILE",
        help="write what the lanes did when it stops: .json for Perfetto, .svg for a picture of the last 2 s; "
        "of several nodes one file each, FILE-0.json",
    )
    parser.add_argument(
        "--otlp-endpoint",
        metavar="URL",
        help="spans of requests go to this OTLP/HTTP receiver, such as http://localhost:4318",
    )
    parser.add_argument(
        "--log-level", choices=("debug", "info", "warning", "error"), help="of nodes and router"
    )


def run(args: argparse.Namespace) -> int:
    service = planning.with_sharing(service_of(args.file, args.model), mode=args.mode, slack=args.slack)
    service = planning.with_tracing(service, args.otlp_endpoint)
    check_engine(service)
    token = secrets.token_urlsafe(32)
    plan = planning.plan(
        service,
        host=args.host,
        port=args.port or ports.free(args.host)[0],
        spare=ports.free(planning.HOME, planning.spare_ports(service)),
        control_token=token,
        log_level=args.log_level,
        environ=os.environ,
        timeline=args.timeline,
    )
    starting.check(plan.front.tracing)
    if plan.router is not None and importlib.util.find_spec("httptools") is None:
        raise LocalError("the router is not installed; install it with: pip install 'drift-serve[router]'")
    # It costs a fifth of a second to load, which `drift up --help` need not take.
    from drift_operator.local import running

    ports.check(plan.front.host, plan.front.port)
    console_token = secrets.token_urlsafe(24)
    welcome = _welcome(service, running.client_url(plan), running.console_url(plan, console_token))
    document = service.model_dump(mode="json", by_alias=True, exclude_none=True)
    known = runs.Run(service.metadata.name, plan.admin_url, plan.door_url, token, document)
    with (
        StartUp(service.served_name, welcome, len(plan.nodes)) as audience,
        runs.published(known, os.environ),
    ):
        asyncio.run(running.LocalRun(service, plan, token, console_token, audience).run())
    audience.stopped()
    return 0


def check_engine(service: DriftService) -> None:
    """Raises LocalError where what the service needs is not installed; simulated hardware needs no torch."""
    needed = "tokenizers" if service.spec.engine.device == "sim" else "torch"
    if importlib.util.find_spec(needed) is None:
        raise LocalError("the engine is not installed; install it with: pip install 'drift-serve[engine]'")


def service_of(file: Path | None, model: str | None) -> DriftService:
    """The one service of a file, or the default one. Raises ManifestError or LocalError."""
    services = [manifests.default()] if file is None else manifests.load(file)
    if len(services) > 1:
        names = ", ".join(service.metadata.name for service in services)
        raise LocalError(f"{file}: holds {len(services)} services ({names}); a local run takes one")
    return services[0] if model is None else planning.with_model(services[0], model)


def _command() -> str:
    """How a person at this terminal calls us: `drift` where it is on the PATH, else as it was called now."""
    if shutil.which("drift"):
        return "drift"
    called = Path(sys.argv[0])
    return os.path.relpath(called) if called.name == "drift" else f"{sys.executable} -m drift_cli"


def _welcome(service: DriftService, url: str, console_url: str) -> str:
    """What a person needs who sees this for the first time."""
    slo, name = service.spec.slo, service.served_name
    slope = f" (+ {slo.ttft.per_token_ms:g} ms per uncached token)" if slo.ttft.per_token_ms else ""
    key = service.spec.auth is not None
    header = '-H "Authorization: Bearer $DRIFT_API_KEY" ' if key else ""
    secret = 'os.environ["DRIFT_API_KEY"]' if key else '"none"'
    imports = "import os\n    " if key else ""
    notes = "".join(f"\n  {line}" for line in (*_nodes(service), *planning.remarks(service)))
    return f"""
{name} is ready at {url}
  promise: first token within {slo.ttft.target_ms} ms{slope} for {slo.ttft.attainment:.4g} of requests,
           every further token within {slo.tbt.target_ms} ms for {slo.tbt.attainment:.4g} of requests{notes}

Try it:
    curl {url}/v1/chat/completions {header}-H 'Content-Type: application/json' \\
      -d '{{"model": "{name}", "messages": [{{"role": "user", "content": "What is Drift?"}}]}}'

From Python (pip install openai):
    {imports}from openai import OpenAI
    client = OpenAI(base_url="{url}/v1", api_key={secret})
    question = [{{"role": "user", "content": "What is Drift?"}}]
    for part in client.chat.completions.create(model="{name}", messages=question, stream=True):
        print(part.choices[0].delta.content or "", end="", flush=True)

Measure the promise:
    {_command()} bench --url {url} --poisson 2 --duration 30 --prompt-tokens 200 --output-tokens 50 \\
      --slo-ttft-ms {slo.ttft.target_ms} --slo-tbt-ms {slo.tbt.target_ms}

See how it does, in a terminal or in a browser (the address lets who has it ask the model, too):
    {_command()} top
    {console_url}

Ctrl-C stops it.
"""


def _nodes(service: DriftService) -> Iterator[str]:
    """Of a run with a router."""
    count, most = service.spec.wanted_replicas, planning.most_nodes(service)
    if most > count:
        yield f"{count} to {most} nodes behind a router, as many as the promise needs"
    elif count > 1:
        yield f"{count} nodes behind a router: when one dies, its requests go on at the others"
