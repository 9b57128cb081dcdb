"""`drift router`: one address for several nodes, ours or any servers that speak the OpenAI API."""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
from pathlib import Path

from drift_engine import logs
from drift_engine.errors import OptionsError
from drift_engine.options import TOKEN_VARIABLE
from drift_router import options
from drift_router.options import RouterOptions
from drift_router.snapshots import Policy


def configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=int, default=8000, help="0 takes a free one (default: %(default)s)")
    parser.add_argument(
        "--node",
        action="append",
        default=[],
        metavar="URL",
        help="a server's URL; URL,CONTROL_URL for a Drift node; URL,events=URL,replay=URL for a vLLM "
        "server that tells of its cache; NAME= in front names it. Once for each",
    )
    parser.add_argument(
        "--nodes-file", type=Path, metavar="FILE", help="the nodes in YAML; read again when it changes"
    )
    parser.add_argument(
        "--policy",
        choices=[str(one) for one in Policy],
        default=str(Policy.CACHE_AWARE),
        help="which node a request goes to (default: %(default)s)",
    )
    parser.add_argument("--keys-file", type=Path, metavar="FILE", help="accepted API keys, with their limits")
    parser.add_argument(
        "--session-header", metavar="NAME", help="keep requests with the same value of it together"
    )
    parser.add_argument(
        "--slo-ttft-ms", type=float, default=400.0, help="promised to a request (default: %(default)s)"
    )
    parser.add_argument(
        "--slo-ttft-per-token-ms", type=float, default=0.0, help="on top, for each uncached token"
    )
    parser.add_argument("--slo-tbt-ms", type=float, default=80.0, help="promised, too (default: %(default)s)")
    parser.add_argument(
        "--workers", type=int, default=1, help="processes that serve the port, 1 to 64 (default: %(default)s)"
    )
    parser.add_argument(
        "--admin-port", type=int, default=0, help="health, metrics, control (default: a free one)"
    )
    parser.add_argument(
        "--tls-certificate", metavar="FILE", help="clients speak TLS, with this certificate chain"
    )
    parser.add_argument(
        "--tls-key", metavar="FILE", help="of the certificate, where it is not in the same file"
    )
    parser.add_argument(
        "--otlp-endpoint",
        metavar="URL",
        default="",
        help="spans of requests go to this OTLP/HTTP receiver, such as http://localhost:4318",
    )
    parser.add_argument(
        "--log-level",
        choices=("debug", "info", "warning", "error"),
        default="warning",
        help="(default: %(default)s)",
    )
    parser.epilog = (
        f"The control token of Drift nodes is taken from the environment variable {TOKEN_VARIABLE}."
    )


def run(args: argparse.Namespace) -> int:
    if importlib.util.find_spec("httptools") is None:
        raise OptionsError("the router is not installed; install it with: pip install 'drift-serve[router]'")
    from drift_router import process

    if not args.node and args.nodes_file is None:
        raise OptionsError("--node: at least one is needed, or --nodes-file")
    asked = _asked(args)
    handler = logs.install(asked.log_level)
    try:
        process.serve(asked, lambda router: _welcome(process.addresses(router), asked))
    finally:
        handler.close()
    print("stopped", file=sys.stderr)
    return 0


def _asked(args: argparse.Namespace) -> RouterOptions:
    """Raises OptionsError that names the field, the value and the limit."""
    document = {
        "host": args.host,
        "port": args.port,
        "admin_port": args.admin_port,
        "nodes": args.node,
        "nodes_file": None if args.nodes_file is None else str(args.nodes_file),
        "policy": args.policy,
        "keys_file": None if args.keys_file is None else str(args.keys_file),
        "session_header": args.session_header,
        "promise": {
            "ttft_ms": args.slo_ttft_ms,
            "ttft_per_token_ms": args.slo_ttft_per_token_ms,
            "tbt_ms": args.slo_tbt_ms,
        },
        "workers": args.workers,
        "tls_certificate": args.tls_certificate,
        "tls_key": args.tls_key,
        "tracing": {"endpoint": args.otlp_endpoint},
        "log_level": args.log_level,
    }
    return options.with_token(options.read(document), os.environ)


def _welcome(found: dict[str, object], asked: RouterOptions) -> None:
    print(
        f"{len(asked.nodes) or asked.nodes_file} nodes behind {found['url']}, {asked.policy}", file=sys.stderr
    )
    print(f"health, metrics and control: {found['admin_url']}", file=sys.stderr)
    print("Ctrl-C stops it.", file=sys.stderr)
