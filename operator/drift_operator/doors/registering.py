"""What the aggregated API needs in the cluster: its certificate in a Secret, and the APIService that leads to it.

Documents and decisions are pure; `Registrar` carries them out. The certificate is made once and renewed before it
ends; with several replicas the first to write wins and the others take what it wrote. The group of external metrics
exists once per cluster: where somebody else serves it (KEDA does), our door stays shut and says so.
"""

from __future__ import annotations

import base64
import binascii
import datetime
import enum
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from drift_operator.cluster.api import NotFoundError
from drift_operator.cluster.kinds import API_SERVICE
from drift_operator.doors import certificates
from drift_operator.doors.apiserver import ApiServer, Object
from drift_operator.doors.certificates import Bundle
from drift_operator.doors.external_metrics import GROUP, VERSION
from drift_operator.objects.kinds import SECRET, Kind
from drift_operator.options import OperatorOptions

log = logging.getLogger(__name__)

NAME = f"{VERSION}.{GROUP}"
"""Of the APIService."""

PORT = 443
"""Of our Service; it leads to the options' `external_metrics_port`."""

PRIORITY = 100
"""Among the API groups and versions that clients find; as other providers of metrics."""


class Registration(enum.Enum):
    UNKNOWN = "Unknown"
    REGISTERED = "Registered"
    FOREIGN = "ForeignProvider"


@dataclass(frozen=True, slots=True)
class Standing:
    """Whether HPAs get to us, for conditions and people."""

    registration: Registration
    message: str


def dns_names(options: OperatorOptions) -> tuple[str, ...]:
    """Of the Service. The API server asks for the one that ends with `.svc`."""
    service, namespace = options.external_metrics_service, options.own_namespace
    return (f"{service}.{namespace}.svc", f"{service}.{namespace}", service)


def secret(options: OperatorOptions, bundle: Bundle, version: str | None) -> Object:
    """`version`: the resourceVersion that it replaces; None: it must not exist yet."""
    metadata = {"name": options.external_metrics_service, "namespace": options.own_namespace}
    if version is not None:
        metadata["resourceVersion"] = version
    return {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": metadata,
        "type": "kubernetes.io/tls",
        "data": {key: base64.b64encode(value).decode() for key, value in bundle.data().items()},
    }


def bundle_of(document: Mapping[str, Any]) -> Bundle | None:
    """Of a Secret; None where it holds none that can be read."""
    try:
        data = {
            key: base64.b64decode(value, validate=True) for key, value in (document.get("data") or {}).items()
        }
    except binascii.Error:
        return None
    return Bundle.of(data)


def api_service(options: OperatorOptions, authority: bytes) -> Object:
    return {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": NAME},
        "spec": {
            "group": GROUP,
            "version": VERSION,
            "groupPriorityMinimum": PRIORITY,
            "versionPriority": PRIORITY,
            "caBundle": base64.b64encode(authority).decode(),
            "service": {
                "name": options.external_metrics_service,
                "namespace": options.own_namespace,
                "port": PORT,
            },
        },
    }


def is_ours(document: Mapping[str, Any], options: OperatorOptions) -> bool:
    """False also for another Drift's of the same cluster."""
    service = (document.get("spec") or {}).get("service") or {}
    return (service.get("namespace"), service.get("name")) == (
        options.own_namespace,
        options.external_metrics_service,
    )


class Registrar:
    """Every method may be called again and again; nothing is written that is as it should be. They raise ApiError."""

    def __init__(self, api: ApiServer, options: OperatorOptions) -> None:
        self._api = api
        self._options = options

    async def certificate(self, now: datetime.datetime) -> Bundle:
        """The one that all replicas serve with; made or renewed where it is time for that."""
        name, namespace = self._options.external_metrics_service, self._options.own_namespace
        found = await self._found(SECRET, namespace, name)
        present = bundle_of(found) if found is not None else None
        wanted = certificates.renewed(present, dns_names(self._options), now)
        if wanted == present:
            return wanted
        version = found["metadata"]["resourceVersion"] if found is not None else None
        document = secret(self._options, wanted, version)
        if found is None:
            await self._api.create(SECRET, document)
        else:
            await self._api.apply(document)
        log.info("wrote the certificate of external metrics to Secret %s/%s", namespace, name)
        return wanted

    async def register(self, authority: bytes) -> Standing:
        """Makes the APIService lead here, unless somebody else serves the group."""
        found = await self._found(API_SERVICE, None, NAME)
        if found is not None and not is_ours(found, self._options):
            return _foreign(found)
        wanted = api_service(self._options, authority)
        if found is None or any(found["spec"].get(key) != value for key, value in wanted["spec"].items()):
            # Only what is ours already is taken by force: another provider may have come since we looked.
            await self._api.apply(wanted, force=found is not None)
            log.info("APIService %s leads to us", NAME)
        service, namespace = self._options.external_metrics_service, self._options.own_namespace
        return Standing(Registration.REGISTERED, f"APIService {NAME} leads to {namespace}/{service}")

    async def _found(self, kind: Kind, namespace: str | None, name: str) -> Object | None:
        try:
            return await self._api.get(kind, namespace, name)
        except NotFoundError:
            return None


def _foreign(found: Mapping[str, Any]) -> Standing:
    service = (found.get("spec") or {}).get("service") or {}
    whose = f"{service.get('namespace')}/{service.get('name')}" if service else "the API server itself"
    return Standing(
        Registration.FOREIGN,
        f"APIService {NAME} leads to {whose}, and a cluster has one provider of external metrics; "
        "use KEDA's or Prometheus' door instead, or remove that provider",
    )
