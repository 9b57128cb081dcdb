"""How an operator is asked to run: one JSON document, as for nodes and routers. The chart's values become these."""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from drift_operator.errors import OptionsError

Port = Annotated[int, msgspec.Meta(ge=0, le=65535)]
HostName = Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9]([-a-z0-9.]*[a-z0-9])?$", max_length=253)]
Image = Annotated[str, msgspec.Meta(min_length=1, max_length=512)]


class OperatorOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All that an operator can be told."""

    engine_image: Image
    """Of nodes whose `spec.engine.image` is left out."""
    router_image: Image
    """Of routers."""
    image_pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """Of nodes and routers."""
    image_pull_secrets: tuple[str, ...] = ()
    """Names of Secrets in the services' own namespaces."""
    namespaces: tuple[str, ...] = ()
    """Watched; empty: all, for which the operator needs a ClusterRole."""
    own_namespace: str = "default"
    """Where the operator runs: its Lease is there, and NetworkPolicies let it in from there."""
    identity: str = "drift-operator"
    """Name of the Lease's holder: the operator's pod."""
    lease: str = "drift-operator"
    """Name of the Lease that one of several operators holds."""
    host: str = "0.0.0.0"  # noqa: S104 - a pod's own address is all there is
    """Address of its ports."""
    port: Port = 8080
    """Health, metrics, JSON for KEDA, and what `drift explain` asks."""
    console: bool = True
    """Serve the console on `port`. Its token comes from the environment (`doors.console.TOKEN_VARIABLE`)."""
    console_hosts: tuple[HostName, ...] = ()
    """Names, beside addresses and localhost, that people use in front of it: of an Ingress, for one."""
    external_metrics_port: Port | None = None
    """Of the aggregated API external.metrics.k8s.io; None: not served."""
    external_metrics_service: str = "drift-operator-metrics"
    """The Service that the APIService points to: its DNS names are in the serving certificate."""
    service: str = "drift-operator"
    """Name of the Service before `port`, in the same namespace: KEDA asks there."""
    api_server_ports: tuple[Port, ...] = (443, 6443)
    """Where the API server listens behind its Service: NetworkPolicies let the services' routers out to them. The
    defaults are those of managed clusters and of kubeadm."""
    cluster_name: str = ""
    """Told with metrics, where several clusters share a Prometheus."""
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    """The least that is logged."""


def parse(document: str | bytes) -> OperatorOptions:
    """Raises OptionsError that names the field, the value and the limit."""
    try:
        return msgspec.json.decode(document, type=OperatorOptions)
    except msgspec.DecodeError as error:
        raise OptionsError(f"operator options: {error}") from error


def dump(options: OperatorOptions) -> str:
    return msgspec.json.encode(options).decode()
