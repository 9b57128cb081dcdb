"""What to send: the options that `drift bench` and `drift simulate` share."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from drift_engine.bench import shaping, traces
from drift_engine.bench.results import Slo, Workload
from drift_engine.bench.traces import Arrival


class Chosen(NamedTuple):
    arrivals: tuple[Arrival, ...]
    workload: Workload


def add_load(parser: argparse.ArgumentParser) -> None:
    load = parser.add_argument_group("load (one of --trace and --poisson)")
    load.add_argument("--trace", type=Path, metavar="FILE", help="a recorded workload, gzipped or not")
    load.add_argument(
        "--format",
        choices=("auto", "mooncake", "azure", "agent-sessions"),
        default="auto",
        help="of the trace; auto looks at its first line",
    )
    load.add_argument("--rate-scale", type=float, default=1.0, metavar="R", help="2: twice as fast")
    load.add_argument(
        "--length-scale", type=float, default=1.0, metavar="L", help="0.1: a tenth of the tokens"
    )
    load.add_argument(
        "--duration", type=float, metavar="S", help="only what arrives in the run's first S seconds"
    )
    load.add_argument("--requests", type=int, metavar="N", help="only the first N requests")
    load.add_argument(
        "--spread", action="store_true", help="spread the bursts of a rounded time stamp evenly"
    )
    load.add_argument("--poisson", type=float, metavar="RATE", help="synthetic: RATE requests per second")
    load.add_argument("--prompt-tokens", type=int, default=512, metavar="N", help="of a synthetic request")
    load.add_argument("--output-tokens", type=int, default=128, metavar="M", help="of a synthetic request")
    load.add_argument("--seed", type=int, default=0, help="of texts and of synthetic arrivals")


def add_promise(parser: argparse.ArgumentParser) -> None:
    verdict = parser.add_argument_group("promise to judge by")
    verdict.add_argument("--slo-ttft-ms", type=float, metavar="A", help="time to first token")
    verdict.add_argument("--slo-tbt-ms", type=float, metavar="B", help="time between tokens")
    verdict.add_argument(
        "--slo-ttft-per-token-ms", type=float, default=0.0, metavar="C", help="raises A per new token"
    )
    verdict.add_argument(
        "--attainment", type=float, default=0.99, help="share of requests to keep the promise for"
    )


def choose(options: argparse.Namespace) -> Chosen:
    """Raises ValueError or TraceError."""
    if (options.trace is None) == (options.poisson is None):
        raise ValueError("--trace FILE or --poisson RATE is needed, not both")
    wish = shaping.Shape(
        rate_scale=options.rate_scale,
        length_scale=options.length_scale,
        duration_s=options.duration,
        requests=options.requests,
        spread=options.spread,
    )
    if options.trace is not None:
        trace = traces.read(options.trace, None if options.format == "auto" else options.format)
        arrivals = shaping.shape(trace, wish)
        name, kind = trace.name, trace.format
        spread = options.spread and trace.bin_s > 0
    else:
        arrivals = shaping.poisson(
            rate_rps=options.poisson,
            requests=_synthetic_requests(options),
            prompt_tokens=options.prompt_tokens,
            output_tokens=options.output_tokens,
            seed=options.seed,
        )
        name, kind, spread = "", "synthetic", False
    return Chosen(
        arrivals,
        Workload(
            trace=name,
            format=kind,
            rate_scale=options.rate_scale,
            length_scale=options.length_scale,
            arrivals="poisson" if options.poisson is not None else "spread" if spread else "recorded",
            seed=options.seed,
        ),
    )


def promise(options: argparse.Namespace) -> Slo:
    """Raises ValueError."""
    return Slo(
        ttft_ms=options.slo_ttft_ms,
        ttft_per_token_ms=options.slo_ttft_per_token_ms,
        tbt_ms=options.slo_tbt_ms,
        attainment_target=options.attainment,
    )


def command(arguments: Sequence[str]) -> str:
    """What was typed, without the API key and without folders, which are nobody else's business."""
    shown, hide = ["drift"], False
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if hide or (name == "--api-key" and equals):
            argument = f"{name}=***" if equals and not hide else "***"
        elif equals and value.startswith("/"):
            argument = f"{name}={Path(value).name}"
        elif argument.startswith("/"):
            argument = Path(argument).name
        hide = argument == "--api-key"
        shown.append(argument)
    return shlex.join(shown)


def _synthetic_requests(options: argparse.Namespace) -> int:
    if options.requests is not None:
        requests: int = options.requests
        return requests
    if options.duration is None:
        raise ValueError("--poisson needs --requests or --duration")
    rate_rps: float = options.poisson
    duration_s: float = options.duration
    return max(1, round(rate_rps * duration_s))
