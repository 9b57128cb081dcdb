"""From a DriftService to the processes that keep it on this machine. Pure: `fleet` and `place` do the rest.

A local run takes the same document as a cluster. What only a cluster has (Secrets, volumes) is refused here with the
field's path, all problems at once, and never ignored where a user relies on it.
"""

from __future__ import annotations

import hashlib
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec

from drift_engine import options
from drift_engine.options import TOKEN_VARIABLE, NodeOptions, Share
from drift_operator import arguments, manifests, processes
from drift_operator.driftservice import DriftService
from drift_operator.errors import LocalError
from drift_router import options as router_options
from drift_router.options import RouterOptions

NODE_MODULE = "drift_engine.node"
ROUTER_MODULE = "drift_router"

HOME = "127.0.0.1"
"""Where nodes listen that have a router, and all control ports."""

NAMESPACE = "local"
"""Of the service as the run's door tells it: there are no namespaces here."""

MAX_NODES = 16
"""Of a local run. A node of drift-tiny takes 0.5 to 1.2 GB, and 16 start on two cores in a few minutes. Estimate."""

LOCAL_SCHEMES = ("embedded", "file", "hf")

API_KEYS_VARIABLE = "DRIFT_API_KEYS"
"""Where a local run, which has no Secrets, finds the accepted API keys, separated by commas or blanks."""

MAX_DRAIN_S = 30.0
"""A local run ends in front of a person: rollout.drainTimeout is cut to this."""


@dataclass(frozen=True)
class LocalNode:
    """One node process: its options, and the variables that its environment gets on top of ours."""

    options: NodeOptions
    variables: Mapping[str, str]

    @property
    def argv(self) -> tuple[str, ...]:
        return (sys.executable, "-m", NODE_MODULE, "--options", options.dump(self.options))

    @property
    def url(self) -> str:
        """For the router; of a node that has one."""
        return f"http://{HOME}:{self.options.port}"

    @property
    def control_url(self) -> str:
        return f"http://{HOME}:{self.options.control_port}"


@dataclass(frozen=True)
class LocalRouter:
    """The router process before several nodes."""

    options: RouterOptions
    variables: Mapping[str, str]

    @property
    def argv(self) -> tuple[str, ...]:
        return (sys.executable, "-m", ROUTER_MODULE, "--options", router_options.dump(self.options))


@dataclass(frozen=True)
class Mould:
    """What all nodes of a run have in common."""

    service: DriftService
    options: NodeOptions
    variables: Mapping[str, str]
    most: int
    """Nodes that there may be at once: each gets an equal share of the machine, also while it is alone."""
    latency_folder: str | None
    timeline: Path | None

    def name(self, place: int) -> str:
        return f"{self.service.metadata.name}-{place}"

    def node(self, place: int, host: str, port: int, control_port: int) -> LocalNode:
        """The one of that share of the machine, from 0 to `most` - 1."""
        options = msgspec.structs.replace(
            self.options,
            node=self.name(place),
            host=host,
            port=port,
            control_port=control_port,
            share=Share(place, self.most),
            latency_file=self._latency_file(place),
            timeline_file=self._timeline_file(place),
        )
        return LocalNode(options, self.variables)

    def _timeline_file(self, place: int) -> str | None:
        """`lanes.json` of the only node, `lanes-0.json` of the first of several."""
        if self.timeline is None:
            return None
        several = f"{self.timeline.stem}-{place}{self.timeline.suffix}"
        return str((self.timeline.with_name(several) if self.most > 1 else self.timeline).absolute())

    def _latency_file(self, place: int) -> str | None:
        """Nodes beside others have one each, and none the file of a node that had the machine to itself: that one has
        other threads, which the file's identity tells apart, so that each would replace what the other learned.
        """
        if self.latency_folder is None:
            return None
        name = re.sub(r"[^-A-Za-z0-9._]+", "-", self.service.served_name)
        beside = f".{place}-of-{self.most}" if self.most > 1 else ""
        return f"{self.latency_folder}/{name}{beside}.json"


@dataclass(frozen=True)
class Plan:
    """What to run at first. One node that stays alone has no router in between: nothing is there to choose, and a hop
    costs time."""

    nodes: tuple[LocalNode, ...]
    router: LocalRouter | None
    mould: Mould
    door_port: int
    """Where the run tells how it does, at `HOME`."""

    @property
    def front(self) -> NodeOptions | RouterOptions:
        """What listens for clients."""
        return self.nodes[0].options if self.router is None else self.router.options

    @property
    def admin_url(self) -> str:
        """Where to see how it does: the router's admin port, or the only node's control port."""
        if self.router is not None:
            return f"http://{HOME}:{self.router.options.admin_port}"
        return self.nodes[0].control_url

    @property
    def door_url(self) -> str:
        return f"http://{HOME}:{self.door_port}"


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


def with_tracing(service: DriftService, endpoint: str | None) -> DriftService:
    """The same service with spans for that collector; None leaves what it says."""
    if endpoint is None:
        return service
    document = service.model_dump(by_alias=True, exclude_none=True)
    tracing = document["spec"]["observability"].setdefault("tracing", {})
    tracing["endpoint"] = endpoint
    return manifests.parse(document)


def bounded(service: DriftService) -> DriftService:
    """With no more nodes than a local run has."""
    scaling = service.spec.autoscaling
    if scaling is None or scaling.max_replicas <= MAX_NODES:
        return service
    document = service.model_dump(by_alias=True, exclude_none=True)
    document["spec"]["autoscaling"]["maxReplicas"] = MAX_NODES
    return manifests.parse(document)


def most_nodes(service: DriftService) -> int:
    """That there may ever be at once; the document doesn't change while it runs."""
    spec, scaling = service.spec, service.spec.autoscaling
    if scaling is None or scaling.mode != "Operator" or scaling.advisory or spec.paused:
        return spec.wanted_replicas
    return min(scaling.max_replicas, MAX_NODES)


def remarks(service: DriftService) -> Iterator[str]:
    """What of the document is otherwise than on a cluster, for the person who started it."""
    scaling = service.spec.autoscaling
    if scaling is None:
        return
    if scaling.mode != "Operator":
        count = service.spec.wanted_replicas
        yield f"spec.autoscaling.mode: {scaling.mode} scales on a cluster only; the number of nodes stays {count}"
    elif scaling.max_replicas > MAX_NODES:
        yield f"spec.autoscaling.maxReplicas: {scaling.max_replicas} is cut to {MAX_NODES}, the most of a local run"


def spare_ports(service: DriftService) -> int:
    """How many `plan` needs beside the one that clients get."""
    count = min(service.spec.wanted_replicas, MAX_NODES)
    return 2 if _alone(service) else 2 * count + 2


def plan(
    service: DriftService,
    *,
    host: str,
    port: int,
    spare: Sequence[int],
    control_token: str,
    log_level: str | None,
    environ: Mapping[str, str],
    timeline: Path | None = None,
) -> Plan:
    """What serves `service` here, on `port` and, for what clients do not see, the ports of `spare`.

    Raises LocalError with one line per thing that this machine lacks.
    """
    missing = list(_missing_here(service, environ))
    settings, faults = arguments.settings(service.spec.engine)
    missing += faults
    if missing:
        raise LocalError("\n".join(missing))
    spec = service.spec
    if log_level is not None:
        settings["log_level"] = log_level
    asked = processes.node(service, settings)
    asked = msgspec.structs.replace(asked, drain_timeout_s=min(asked.drain_timeout_s, MAX_DRAIN_S))
    count = spec.wanted_replicas
    keys = tuple(_key_hashes(environ)) if spec.auth else ()
    token = {TOKEN_VARIABLE: control_token}
    variables = {env.name: env.value or "" for env in spec.engine.env or () if env.value_from is None}
    door_port, *ports = spare
    if _alone(service):
        places, accepted = [(host, port, ports[0])], [*keys]
    else:
        admin_port, *ports = ports
        places = [(HOME, *pair) for pair in zip(ports[:count], ports[count:], strict=True)]
        # Clients' keys are the router's affair: a node takes nobody but who has the control token.
        accepted = [hashlib.sha256(control_token.encode()).hexdigest()] if keys else []
    mould = Mould(
        service,
        msgspec.structs.replace(asked, api_key_sha256=tuple(accepted)),
        {**variables, **token},
        most_nodes(service),
        _latency_folder(environ),
        timeline,
    )
    nodes = tuple(mould.node(place, *found) for place, found in enumerate(places))
    if _alone(service):
        return Plan(nodes, None, mould, door_port)
    router = _router(service, nodes, host, port, admin_port, keys, settings.get("log_level"))
    return Plan(nodes, LocalRouter(router, token), mould, door_port)


def _alone(service: DriftService) -> bool:
    return service.spec.wanted_replicas <= 1 and most_nodes(service) <= 1


def _router(
    service: DriftService,
    nodes: Sequence[LocalNode],
    host: str,
    port: int,
    admin_port: int,
    keys: tuple[str, ...],
    log_level: str | None,
) -> RouterOptions:
    asked = processes.router(service)
    drain_s = min(asked.patience.drain_s, MAX_DRAIN_S)
    return msgspec.structs.replace(
        asked,
        host=host,
        port=port,
        admin_host=HOME,
        admin_port=admin_port,
        nodes=tuple(f"{node.options.node}={node.url},{node.control_url}" for node in nodes),
        api_key_sha256=keys,
        patience=msgspec.structs.replace(asked.patience, drain_s=drain_s),
        log_level=log_level or asked.log_level,
    )


def _latency_folder(environ: Mapping[str, str]) -> str | None:
    """In the user's cache folder (XDG base directories); None where there is no home."""
    cache = environ.get("XDG_CACHE_HOME") or (environ.get("HOME") and f"{environ['HOME']}/.cache")
    return f"{cache}/drift/latency" if cache else None


def _missing_here(service: DriftService, environ: Mapping[str, str]) -> Iterator[str]:
    spec = service.spec
    count = "spec.replicas" if spec.replicas is not None else "spec.autoscaling.minReplicas"
    if spec.wanted_replicas > MAX_NODES:
        yield f"{count}: {spec.wanted_replicas} is above the maximum {MAX_NODES} of a local run"
    if spec.wanted_replicas == 0:
        yield f"{count}: 0 leaves nothing to start; a local run takes 1 to {MAX_NODES}"
    scheme = spec.model.uri.partition("://")[0]
    if scheme not in LOCAL_SCHEMES:
        yield (
            f"spec.model.uri: {scheme}:// is mounted or fetched by a cluster; "
            f"a local run takes {', '.join(f'{name}://' for name in LOCAL_SCHEMES)}"
        )
    yield from processes.unserved(service)
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


def _key_hashes(environ: Mapping[str, str]) -> Iterator[str]:
    for key in environ.get(API_KEYS_VARIABLE, "").replace(",", " ").split():
        yield hashlib.sha256(key.encode()).hexdigest()
