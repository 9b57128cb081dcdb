"""From a DriftService to the one node process that keeps it on this machine. Pure: `supervising` does the rest.

A local run takes the same document as a cluster. What only a cluster has (several nodes, Secrets, volumes) is refused
here with the field's path, all problems at once, and never ignored where a user relies on it.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from drift_engine import options, wire
from drift_engine.options import NodeOptions, SloOptions
from drift_operator import manifests, problems
from drift_operator.containers import Engine
from drift_operator.driftservice import DriftService
from drift_operator.errors import LocalError
from drift_operator.fields import seconds

NODE_MODULE = "drift_engine.node"

LOCAL_SCHEMES = ("embedded", "file", "hf")

API_KEYS_VARIABLE = "DRIFT_API_KEYS"
"""Where a local run, which has no Secrets, finds the accepted API keys, separated by commas or blanks."""

MAX_DRAIN_S = 30.0
"""A local run ends in front of a person: rollout.drainTimeout is cut to this."""

SETTLED_BY_FIELD = {
    "model": "spec.model.uri",
    "revision": "spec.model.revision",
    "served_model_name": "spec.model.name",
    "device": "spec.engine.device",
    "mode": "spec.multiplexing.mode",
    "slack": "spec.multiplexing.slack",
    "slo": "spec.slo",
    "max_waiting": "spec.routing.overload.maxQueuePerNode",
    "drain_timeout_s": "spec.rollout.drainTimeout",
    "api_key_sha256": "spec.auth",
}
"""Options of a node that have a field of their own, so engine.args may not set them a second time."""

SETTLED_BY_DRIFT = frozenset(
    {"node", "role", "host", "port", "control_host", "control_port", "control_token"}
)


@dataclass(frozen=True)
class LocalNode:
    """One node process: its options, and the variables that its environment gets on top of ours."""

    options: NodeOptions
    variables: Mapping[str, str]

    @property
    def argv(self) -> tuple[str, ...]:
        return (sys.executable, "-m", NODE_MODULE, "--options", options.dump(self.options))


def with_model(service: DriftService, model: str) -> DriftService:
    """The same promise for another model: a URI, or the path of a folder; `model.name` follows the new model.

    Raises LocalError where `model` is neither.
    """
    scheme, separator, rest = model.partition("://")
    if not separator:
        folder = Path(model).expanduser()
        if not folder.is_dir():
            raise LocalError(
                f"--model: {model} is neither a folder nor a URI such as hf://OWNER/NAME or embedded://drift-tiny"
            )
        scheme, rest = "file", str(folder.resolve())
    name = rest.rstrip("/").rpartition("/")[2] if scheme == "file" else rest
    name = re.sub(r"[^-A-Za-z0-9._:/]+", "-", name).strip("-._:/") or "model"
    document = service.model_dump(by_alias=True, exclude_none=True)
    document["spec"]["model"] = {"uri": f"{scheme}://{rest}", "name": name}
    return manifests.parse(document)


def with_sharing(service: DriftService, *, mode: str | None, slack: str | None) -> DriftService:
    """The same service with another `multiplexing.mode` or `slack`; None leaves what it says."""
    asked = {name: value for name, value in (("mode", mode), ("slack", slack)) if value is not None}
    if not asked:
        return service
    document = service.model_dump(by_alias=True, exclude_none=True)
    document["spec"]["multiplexing"] |= asked
    return manifests.parse(document)


def plan(
    service: DriftService,
    *,
    host: str,
    port: int,
    log_level: str | None,
    environ: Mapping[str, str],
    timeline: Path | None = None,
) -> LocalNode:
    """The node that serves `service` here; raises LocalError with one line per thing that this machine lacks."""
    missing = list(_missing_here(service, environ))
    settings, faults = _settings(service.spec.engine)
    missing += faults
    if missing:
        raise LocalError("\n".join(missing))
    spec = service.spec
    if log_level is not None:
        settings["log_level"] = log_level
    return LocalNode(
        options=NodeOptions(
            model=spec.model.uri,
            revision=spec.model.revision,
            served_model_name=service.served_name,
            node=f"{service.metadata.name}-0",
            host=host,
            port=port,
            api_key_sha256=tuple(_key_hashes(environ)) if spec.auth else (),
            device=spec.engine.device,
            mode=wire.Mode(spec.multiplexing.mode),
            slack=wire.Slack(spec.multiplexing.slack),
            max_waiting=spec.routing.overload.max_queue_per_node,
            slo=SloOptions(
                ttft_ms=float(spec.slo.ttft.target_ms),
                ttft_per_token_ms=float(spec.slo.ttft.per_token_ms),
                tbt_ms=float(spec.slo.tbt.target_ms),
            ),
            latency_file=_latency_file(environ, service),
            timeline_file=str(timeline.absolute()) if timeline is not None else None,
            drain_timeout_s=min(seconds(spec.rollout.drain_timeout), MAX_DRAIN_S),
            **settings,
        ),
        variables={env.name: env.value or "" for env in spec.engine.env or () if env.value_from is None},
    )


def _latency_file(environ: Mapping[str, str], service: DriftService) -> str | None:
    """In the user's cache folder (XDG base directories); None where there is no home."""
    cache = environ.get("XDG_CACHE_HOME") or (environ.get("HOME") and f"{environ['HOME']}/.cache")
    if not cache:
        return None
    name = re.sub(r"[^-A-Za-z0-9._]+", "-", service.served_name)
    return f"{cache}/drift/latency/{name}.json"


def _missing_here(service: DriftService, environ: Mapping[str, str]) -> Iterator[str]:
    spec = service.spec
    count = "spec.replicas" if spec.replicas is not None else "spec.autoscaling.minReplicas"
    if spec.wanted_replicas > 1:
        yield (
            f"{count}: {spec.wanted_replicas} nodes need the router, which this version does not have yet; "
            "a local run takes 1"
        )
    if spec.wanted_replicas == 0:
        yield f"{count}: 0 leaves nothing to start; a local run takes 1"
    scheme = spec.model.uri.partition("://")[0]
    if scheme not in LOCAL_SCHEMES:
        yield (
            f"spec.model.uri: {scheme}:// is mounted or fetched by a cluster; "
            f"a local run takes {', '.join(f'{name}://' for name in LOCAL_SCHEMES)}"
        )
    if spec.engine.tensor_parallel > 1:
        yield f"spec.engine.tensorParallel: {spec.engine.tensor_parallel} is above the maximum 1 of this version"
    served = list(wire.Mode)
    if spec.multiplexing.mode not in served:
        yield (
            f"spec.multiplexing.mode: {spec.multiplexing.mode} is not served by this version's engine; "
            f"it takes {', '.join(served)}"
        )
    if spec.auth is not None and not any(_key_hashes(environ)):
        yield (
            "spec.auth.apiKeysSecretRef: a Secret can't be read without a cluster; "
            f"put the keys into the environment variable {API_KEYS_VARIABLE}"
        )
    for index, env in enumerate(spec.engine.env or ()):
        if env.value_from is not None and not env.value_from.optional and env.name not in environ:
            yield (
                f"spec.engine.env[{index}].valueFrom: can't be read without a cluster; "
                f"set {env.name} in the environment of this command"
            )


def _settings(engine: Engine) -> tuple[dict[str, Any], list[str]]:
    """engine.args as NodeOptions fields, and what is wrong with them."""
    settings: dict[str, Any] = {}
    faults: list[str] = []
    for index, argument in enumerate(engine.args or ()):
        flag, _, text = argument.partition("=")
        name = flag[2:].replace("-", "_")
        fault = _fault(name, flag)
        if fault is None:
            try:
                read = msgspec.convert({"model": "", name: text}, NodeOptions, strict=False)
                settings[name] = getattr(read, name)
            except msgspec.ValidationError as error:
                expected = str(error).partition(" - at ")[0].replace("`", "")
                fault = f"{argument}: {expected[:1].lower()}{expected[1:]}"
        if fault is not None:
            faults.append(f"spec.engine.args[{index}]: {fault}")
    return settings, faults


def _fault(name: str, flag: str) -> str | None:
    if name in SETTLED_BY_FIELD:
        return f"{flag} is what {SETTLED_BY_FIELD[name]} says"
    if name in SETTLED_BY_DRIFT:
        return f"{flag} is set by Drift itself"
    free = set(NodeOptions.__struct_fields__) - set(SETTLED_BY_FIELD) - SETTLED_BY_DRIFT
    if name in free:
        return None
    known = sorted("--" + field.replace("_", "-") for field in free)
    meant = problems.nearest(flag, known)
    return f"unknown option {flag}; " + (f"did you mean {meant}?" if meant else f"known: {', '.join(known)}")


def _key_hashes(environ: Mapping[str, str]) -> Iterator[str]:
    for key in environ.get(API_KEYS_VARIABLE, "").replace(",", " ").split():
        yield hashlib.sha256(key.encode()).hexdigest()
