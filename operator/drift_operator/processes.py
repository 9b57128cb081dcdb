"""What the processes of a service are told, wherever they run: the promise as options of a node and of a router.

Only what follows from the document is here. Names, ports, files and tokens are the caller's: `local` knows those of
this machine, `objects` those of a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from drift_engine import wire
from drift_engine.options import NodeOptions, SloOptions
from drift_engine.tracing.options import TracingOptions
from drift_operator.driftservice import DriftService
from drift_operator.fields import seconds
from drift_router.options import Patience, Promise, RouterOptions
from drift_router.snapshots import Policy

POLICIES = {
    "CacheAware": Policy.CACHE_AWARE,
    "PrefixHash": Policy.PREFIX_HASH,
    "LeastLoad": Policy.LEAST_LOAD,
    "RoundRobin": Policy.ROUND_ROBIN,
}


def node(service: DriftService, settings: Mapping[str, Any]) -> NodeOptions:
    """Of a document that `unserved` has no line about; `settings` are those of engine.args (`arguments.settings`)."""
    spec = service.spec
    return NodeOptions(
        model=spec.model.uri,
        revision=spec.model.revision,
        served_model_name=service.served_name,
        device=spec.engine.device,
        mode=wire.Mode(spec.multiplexing.mode),
        slack=wire.Slack(spec.multiplexing.slack),
        max_waiting=spec.routing.overload.max_queue_per_node,
        slo=SloOptions(
            ttft_ms=float(spec.slo.ttft.target_ms),
            ttft_per_token_ms=float(spec.slo.ttft.per_token_ms),
            tbt_ms=float(spec.slo.tbt.target_ms),
        ),
        drain_timeout_s=seconds(spec.rollout.drain_timeout),
        tracing=_tracing(service, "node"),
        **settings,
    )


def router(service: DriftService) -> RouterOptions:
    spec, defaults = service.spec, RouterOptions()
    affinity, wait_s = spec.routing.session_affinity, seconds(spec.routing.overload.max_wait)
    return RouterOptions(
        policy=POLICIES[spec.routing.policy],
        promise=Promise(
            ttft_ms=float(spec.slo.ttft.target_ms),
            ttft_per_token_ms=float(spec.slo.ttft.per_token_ms),
            tbt_ms=float(spec.slo.tbt.target_ms),
        ),
        session_header=affinity.header if affinity is not None else None,
        session_ttl_s=seconds(affinity.ttl) if affinity is not None else defaults.session_ttl_s,
        queue=defaults.queue if wait_s else 0,
        patience=Patience(
            queue_s=wait_s or defaults.patience.queue_s, drain_s=seconds(spec.rollout.drain_timeout)
        ),
        tracing=_tracing(service, "router"),
    )


def _tracing(service: DriftService, process: str) -> TracingOptions:
    """What OpenTelemetry calls a service is all processes of one kind."""
    asked = service.spec.observability.tracing
    if asked is None:
        return TracingOptions()
    return TracingOptions(asked.endpoint, float(asked.sampling), f"{service.metadata.name}-{process}")


def unserved(service: DriftService) -> Iterator[str]:
    """What this version serves nowhere, one line each with its path."""
    spec = service.spec
    if spec.model.revision is not None and not spec.model.uri.startswith("hf://"):
        yield f"spec.model.revision: {spec.model.revision} is of hf:// models only, and this is {spec.model.uri}"
    if spec.engine.tensor_parallel > 1:
        yield f"spec.engine.tensorParallel: {spec.engine.tensor_parallel} is above the maximum 1 of this version"
    served = list(wire.Mode)
    if spec.multiplexing.mode not in served:
        yield (
            f"spec.multiplexing.mode: {spec.multiplexing.mode} is not served by this version's engine; "
            f"it takes {', '.join(served)}"
        )
