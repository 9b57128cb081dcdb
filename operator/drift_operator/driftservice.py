"""DriftService v1alpha1: the promise that a user writes down, as immutable data.

A document comes in through `manifests`, which reports every problem with its place; what goes out is read by `local`
(one machine) and by the operator's reconciling. `status` holds the other half, written by the operator only.
The CustomResourceDefinition in `crds/` is made from these types by `crd`.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar

from pydantic import ConfigDict, Field

from drift_operator.containers import Engine
from drift_operator.fields import (
    Annotations,
    Between,
    Document,
    Duration,
    HeaderName,
    HttpUrl,
    Integer,
    Labels,
    ModelName,
    ModelUri,
    Name,
    NodesOrPercent,
    Number,
    Rule,
    Subdomain,
    Text,
)
from drift_operator.status import Status

GROUP = "drift.ai"
VERSION = "v1alpha1"
API_VERSION = f"{GROUP}/{VERSION}"
KIND = "DriftService"

NAME_CHARACTERS = 40
"""Longest name of a service: `<name>-router-<hash>` and `<name>-<node hash>-<pod hash>` must fit into 63."""

Made = TypeVar("Made", bound=Document)


def _empty(kind: type[Made]) -> Any:
    """A field that is made of its own defaults where the document leaves it out.

    The schema needs the empty default too: the API server fills in defaults only inside objects that are there.
    """
    return Field(default_factory=lambda: kind.model_validate({}), json_schema_extra={"default": {}})


def _ordered(low: str, low_name: str, high: str, high_name: str) -> Rule:
    """low <= high wherever both are given."""

    def broken(value: Any) -> str | None:
        least, most = getattr(value, low), getattr(value, high)
        if least is None or most is None or least <= most:
            return None
        return f"{least} is above {high_name} {most}"

    given = f"!has(self.{low_name}) || !has(self.{high_name}) || "
    return Rule(
        cel=f"{given}self.{low_name} <= self.{high_name}",
        message=f"{low_name} must not be above {high_name}",
        field=low_name,
        broken=broken,
    )


class Model(Document):
    """What is served."""

    uri: ModelUri
    """Where the checkpoint lies: hf://OWNER/NAME, file:///PATH, pvc://CLAIM/PATH, oci://IMAGE, s3://BUCKET/PATH,
    or embedded://drift-tiny, the small model that comes with the engine. A cluster mounts pvc://, file:// (of the
    host) and oci:// (an image volume); this version fetches nothing from s3://, whose bucket a CSI driver mounts."""
    name: ModelName | None = None
    """The name that clients ask for; the service's own name where it is left out."""
    revision: Annotated[str, Field(min_length=1, max_length=128)] | None = None
    """Branch, tag or commit of an hf:// model; pin it so that every node serves the same weights."""


Attainment = Annotated[Number, Field(ge=0.5, le=0.9999)]


class TtftTarget(Document):
    target_ms: Annotated[Integer, Field(ge=1, le=3_600_000)] = 400
    """Most milliseconds from a request to its first token."""
    per_token_ms: Annotated[Number, Field(ge=0, le=1000)] = 0
    """Added to the target for each prompt token that no cache holds, so that long prompts are not held to the
    bound of short ones."""
    attainment: Attainment = 0.99
    """Share of requests that must meet the target."""


class TbtTarget(Document):
    target_ms: Annotated[Integer, Field(ge=1, le=60_000)] = 80
    """Most milliseconds between two tokens of one answer."""
    attainment: Attainment = 0.99
    """Share of requests that must meet the target."""


class Slo(Document):
    """The promise."""

    ttft: TtftTarget = _empty(TtftTarget)
    """Time to first token."""
    tbt: TbtTarget = _empty(TbtTarget)
    """Time between tokens."""
    window: Annotated[Duration, Between("10s", "24h")] = "60s"
    """Time over which attainment is measured."""


class DecodeSms(Document):
    """Streaming multiprocessors that decode gets; hardware rounds them, the status shows what it gave."""

    min: Annotated[Integer, Field(ge=1, le=1024)] | None = None
    """Least that decode gets."""
    max: Annotated[Integer, Field(ge=1, le=1024)] | None = None
    """Most that decode gets."""
    initial: Annotated[Integer, Field(ge=1, le=1024)] | None = None
    """What decode begins with on a node that was told nothing yet."""

    rules = (
        _ordered("min", "min", "max", "max"),
        _ordered("min", "min", "initial", "initial"),
        _ordered("initial", "initial", "max", "max"),
    )


class Multiplexing(Document):
    """How each GPU is shared between prefill and decode."""

    mode: Literal[
        "auto",
        "mux",
        "fused",
        "overlap",
        "prefill-first",
        "batch-table",
        "muxwise",
        "solo-prefill",
        "solo-decode",
        "disaggregated",
    ] = "auto"
    """auto lets the planner choose per interval; every other value forces one way, for comparison."""
    slack: Literal["strict", "chain"] = "strict"
    """When a token is late: strict, later than slo.tbt after the last one; chain, the k-th later than k times that
    after the first, so that early tokens buy time for a longer step."""
    decode_sms: DecodeSms | None = Field(default=None, alias="decodeSMs")
    """Bounds and start of the split; the planner's own where left out."""
    update_interval: Annotated[Duration, Between("100ms", "10m")] = "1s"
    """How often the operator sends a node a new set-point."""
    min_dwell: Annotated[Duration, Between("0s", "10m")] = "2s"
    """Shortest time that a set-point stands, against flapping."""


class SessionAffinity(Document):
    header: HeaderName = "x-session-id"
    """Requests with the same value of this header prefer the same node."""
    ttl: Annotated[Duration, Between("1s", "24h")] = "10m"
    """How long after its last request a session is remembered."""


class Overload(Document):
    max_queue_per_node: Annotated[Integer, Field(ge=0, le=100_000)] = 512
    """Requests that may wait at one node; beyond that clients get 429 with Retry-After."""
    max_wait: Annotated[Duration, Between("0s", "1h")] = "30s"
    """Longest wait for a node with headroom."""


class Routing(Document):
    """How requests are spread over nodes."""

    policy: Literal["CacheAware", "PrefixHash", "LeastLoad", "RoundRobin"] = "CacheAware"
    """Which node a request goes to: where its prompt is cached unless that would be late, by a hash of the prompt's
    beginning, where least is to be done, or in turn."""
    session_affinity: SessionAffinity | None = None
    """Off where it is left out."""
    overload: Overload = _empty(Overload)
    """What happens to requests for which no node has room."""
    replicas: Annotated[Integer, Field(ge=1, le=16)] = 2
    """Routers. Each knows the whole service, so two outlive the loss of one; a local run has a single one."""


class Stabilization(Document):
    up: Annotated[Duration, Between("0s", "1h")] = "0s"
    """How long pressure must last before a node is added."""
    down: Annotated[Duration, Between("0s", "1h")] = "5m"
    """How long slack must last before a node is drained."""


Nodes = Annotated[Integer, Field(ge=1, le=1000)]


class Autoscaling(Document):
    """Who decides on the number of nodes, and within which bounds."""

    min_replicas: Nodes = 1
    """Fewest nodes."""
    max_replicas: Nodes
    """Most nodes."""
    mode: Literal["Operator", "HPA", "KEDA", "External"] = "Operator"
    """Operator decides by itself. With the others exactly one outside autoscaler writes spec.replicas."""
    stabilization: Stabilization = _empty(Stabilization)
    """Patience, against flapping."""
    advisory: bool = False
    """Report what would be done and do nothing."""
    predictor: Literal["None", "HoltWinters", "Kalman"] = "Kalman"
    """Forecast of demand that puts a floor under the number of nodes."""

    rules = (_ordered("min_replicas", "minReplicas", "max_replicas", "maxReplicas"),)


def _surge_or_unavailable(rollout: Any) -> str | None:
    none = {0, "0%"}
    if rollout.max_surge in none and rollout.max_unavailable in none:
        return f"{rollout.max_surge} leaves no way to replace a node while maxUnavailable is 0 too"
    return None


class Rollout(Document):
    """How nodes are replaced."""

    max_surge: NodesOrPercent = 1
    """How many nodes more than wanted there may be meanwhile."""
    max_unavailable: NodesOrPercent = 0
    """How many nodes fewer than wanted may be ready meanwhile."""
    drain_timeout: Annotated[Duration, Between("0s", "24h")] = "5m"
    """How long a leaving node may finish its requests; the rest is resumed elsewhere."""

    rules = (
        Rule(
            # The API server also judges the bare default {}, before the fields' own defaults are in it.
            cel=(
                "!has(self.maxSurge) || !has(self.maxUnavailable) || "
                "!(string(self.maxSurge) in ['0', '0%'] && string(self.maxUnavailable) in ['0', '0%'])"
            ),
            message="maxSurge and maxUnavailable must not both be 0",
            field="maxSurge",
            broken=_surge_or_unavailable,
        ),
    )


class ExposedService(Document):
    type: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    """As of any Service: within the cluster, on a port of every host, or by a load balancer of the cloud."""
    port: Annotated[Integer, Field(ge=1, le=65535)] = 80
    """Where clients connect."""
    annotations: Annotations | None = None
    """Of the Service, for load balancers."""


class ExposedIngress(Document):
    host: Subdomain
    """The name that clients connect to."""
    class_name: Subdomain | None = None
    """Which Ingress controller; the cluster's default where it is left out."""
    tls_secret_name: Subdomain | None = None
    """Secret with the host's certificate and key; without it there is no TLS."""
    annotations: Annotations | None = None
    """Of the Ingress, for its controller."""


class Expose(Document):
    """How clients reach the router."""

    service: ExposedService = _empty(ExposedService)
    """The Service before the routers."""
    ingress: ExposedIngress | None = None
    """An Ingress to that Service; none is made where it is left out."""


class SecretRef(Document):
    name: Subdomain
    """The Secret's, in the service's namespace."""


class Auth(Document):
    api_keys_secret_ref: SecretRef
    """Secret whose every value is an accepted API key and whose keys are the clients' names."""


class Tracing(Document):
    """Spans of requests, by router and nodes, for an OpenTelemetry collector."""

    endpoint: HttpUrl
    """Address of an OTLP/HTTP receiver, such as http://collector.monitoring:4318; /v1/traces is added where it is
    not there."""
    sampling: Annotated[Number, Field(ge=0, le=1)] = 1
    """Share of requests that are traced, of those whose client does not say it by a trace of its own."""


class Observability(Document):
    pod_monitor: Literal["Auto", "Enabled", "Disabled"] = "Auto"
    """Auto makes a PodMonitor where the cluster knows that kind."""
    pod_monitor_labels: Labels | None = None
    """Labels that the cluster's Prometheus selects PodMonitors by."""
    dashboards: bool = False
    """Make a ConfigMap with dashboards, labelled for Grafana's sidecar."""
    tracing: Tracing | None = None
    """Off where it is left out."""


def _one_owner(spec: Any) -> str | None:
    if spec.replicas is None or spec.autoscaling is None or spec.autoscaling.mode != "Operator":
        return None
    return f"{spec.replicas} excludes autoscaling, which decides on the number of nodes"


class Spec(Document):
    """The promise and what it is kept with."""

    model: Model
    engine: Engine = _empty(Engine)
    slo: Slo = _empty(Slo)
    multiplexing: Multiplexing = _empty(Multiplexing)
    routing: Routing = _empty(Routing)
    replicas: Annotated[Integer, Field(ge=0, le=1000)] | None = None
    """Number of nodes; 1 where neither this nor autoscaling is given. Excludes autoscaling of mode Operator; with
    the other modes it is the field that the outside autoscaler writes through the scale subresource."""
    autoscaling: Autoscaling | None = None
    rollout: Rollout = _empty(Rollout)
    expose: Expose = _empty(Expose)
    auth: Auth | None = None
    """Everybody who can reach the router may use it where this is left out."""
    observability: Observability = _empty(Observability)
    """What is told to Prometheus, Grafana and OpenTelemetry."""
    paused: bool = False
    """Freeze all levers: split, weights and number of nodes stay as they are."""

    rules = (
        Rule(
            cel="!has(self.replicas) || !has(self.autoscaling) || self.autoscaling.mode != 'Operator'",
            message="replicas and autoscaling exclude each other, unless autoscaling.mode is HPA, KEDA or External",
            field="replicas",
            broken=_one_owner,
        ),
    )

    @property
    def wanted_replicas(self) -> int:
        """Number of nodes to begin with."""
        if self.replicas is not None:
            return self.replicas
        return self.autoscaling.min_replicas if self.autoscaling else 1


class Metadata(Document):
    """What Drift reads of an object's metadata; the rest is Kubernetes' own."""

    model_config = ConfigDict(extra="ignore")

    name: Annotated[Name, Field(max_length=NAME_CHARACTERS)]
    namespace: Name | None = None
    labels: dict[str, str] = Field(default_factory=dict)
    annotations: dict[str, str] = Field(default_factory=dict)
    generation: int | None = None
    uid: Text | None = None


class DriftService(Document):
    """A model, the promise under which it is served, and how far Drift may go to keep it."""

    api_version: Literal["drift.ai/v1alpha1"]
    kind: Literal["DriftService"]
    metadata: Metadata
    spec: Spec
    status: Status | None = None

    @property
    def served_name(self) -> str:
        return self.spec.model.name or self.metadata.name
