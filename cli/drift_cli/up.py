"""`drift up`: serves a DriftService on this machine until it is told to stop."""

from __future__ import annotations

import argparse
import asyncio
import importlib.util
import os
import shutil
import sys
from pathlib import Path

from drift_cli.progress import StartUp
from drift_operator import local, manifests, supervising
from drift_operator.driftservice import DriftService
from drift_operator.errors import LocalError

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
        help="write what the lanes did when it stops: .json for Perfetto, .svg for a picture of the last 2 s",
    )
    parser.add_argument("--log-level", choices=("debug", "info", "warning", "error"), help="of the node")


def run(args: argparse.Namespace) -> int:
    service = local.with_sharing(service_of(args.file, args.model), mode=args.mode, slack=args.slack)
    check_engine(service)
    node = local.plan(
        service,
        host=args.host,
        port=args.port or supervising.free_port(args.host),
        log_level=args.log_level,
        environ=os.environ,
        timeline=args.timeline,
    )
    supervising.check_port(node.options.host, node.options.port)
    launch = supervising.Launch(
        argv=node.argv,
        variables=node.variables,
        host=node.options.host,
        port=node.options.port,
        drain_timeout_s=node.options.drain_timeout_s,
    )
    welcome = _welcome(service, launch)
    with StartUp(service.served_name, welcome) as audience:
        asyncio.run(supervising.run(launch, audience))
    print("stopped", file=sys.stderr)
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
    return services[0] if model is None else local.with_model(services[0], model)


def _command() -> str:
    """How a person at this terminal calls us: `drift` where it is on the PATH, else as it was called now."""
    if shutil.which("drift"):
        return "drift"
    called = Path(sys.argv[0])
    return os.path.relpath(called) if called.name == "drift" else f"{sys.executable} -m drift_cli"


def _welcome(service: DriftService, launch: supervising.Launch) -> str:
    """What a person needs who sees this for the first time."""
    slo, name = service.spec.slo, service.served_name
    host = f"[{launch.probe_host}]" if ":" in launch.probe_host else launch.probe_host
    url = f"http://{host}:{launch.port}"
    slope = f" (+ {slo.ttft.per_token_ms:g} ms per uncached token)" if slo.ttft.per_token_ms else ""
    key = service.spec.auth is not None
    header = '-H "Authorization: Bearer $DRIFT_API_KEY" ' if key else ""
    secret = 'os.environ["DRIFT_API_KEY"]' if key else '"none"'
    imports = "import os\n    " if key else ""
    return f"""
{name} is ready at {url}
  promise: first token within {slo.ttft.target_ms} ms{slope} for {slo.ttft.attainment:.4g} of requests,
           every further token within {slo.tbt.target_ms} ms for {slo.tbt.attainment:.4g} of requests

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

Ctrl-C stops it.
"""
