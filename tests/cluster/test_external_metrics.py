"""The door for HPAs on a real control plane: its API server asks us, and its HPA controller scales by the answer."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import secrets
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass
from typing import Any

import aiohttp
import pytest
from kubernetes.aio import client, config

import external_door
from clusters import Cluster
from drift_operator import crd
from drift_operator.cluster import kinds
from drift_operator.cluster.api import Api, ConflictError, NotFoundError
from drift_operator.doors import external_metrics, registering
from drift_operator.doors.hpa_door import HpaDoor
from drift_operator.doors.pulse import Pulse
from drift_operator.local import ports
from drift_operator.objects.kinds import AUTOSCALER, ROLE, ROLE_BINDING, SERVICE_ACCOUNT, Kind
from drift_operator.options import OperatorOptions
from kept_figures import KeptFigures
from waiting import until

pytestmark = pytest.mark.slow

LOOK_S = 0.25

SERVICE = "llm"
PRESSURE = external_metrics.PRESSURE
ACCOUNT = "drift-operator"
"""As the chart calls it."""

NAMESPACE = Kind("v1", "Namespace", "namespaces", namespaced=False)
SLICES = Kind("discovery.k8s.io/v1", "EndpointSlice", "endpointslices")

Object = dict[str, Any]


@dataclass
class Bed:
    """A namespace with a service's figures, and the door that serves them."""

    api: Api
    namespace: str
    host: str
    door: HpaDoor
    figures: KeptFigures

    def told(self, pressure: float | None) -> None:
        self.figures.change(
            self.namespace, SERVICE, pressure=pressure, desired_replicas=3, measured_s=time.monotonic()
        )

    def metric_path(self) -> str:
        return f"{external_metrics.ROOT}/namespaces/{self.namespace}/{PRESSURE}"

    async def scaled_to(self) -> int:
        found = await self.api.get(kinds.DRIFT_SERVICE, self.namespace, SERVICE)
        return int(found["spec"]["replicas"])

    async def follow(self, count: int) -> None:
        """As the operator and its nodes would: as many ready pods, and the status that tells of them."""
        listed, _ = await self.api.list(kinds.POD, self.namespace)
        for pod in sorted(listed, key=lambda pod: str(pod["metadata"]["name"]))[count:]:
            await self.api.delete(kinds.POD, self.namespace, pod["metadata"]["name"])
        for place in range(len(listed), count):
            name = f"{SERVICE}-{place}"
            await self.api.create(kinds.POD, _pod(self.namespace, name))
            ready = {"type": "Ready", "status": "True"}
            status = {"status": {"phase": "Running", "conditions": [ready]}}
            await self.api.merge(kinds.POD, self.namespace, name, status, "status")
        told = {"status": {"replicas": count, "selector": f"service={SERVICE}"}}
        await self.api.merge(kinds.DRIFT_SERVICE, self.namespace, SERVICE, told, "status")

    async def hpa_condition(self, name: str) -> str:
        found = await self.api.get(AUTOSCALER, self.namespace, SERVICE)
        return _condition(found, name)


@contextlib.asynccontextmanager
async def bed(cluster: Cluster) -> AsyncIterator[Bed]:
    """The door runs in this process, with the rights that the chart gives and no more. Its Service leads here, to
    `cluster.host`: the address by which the API server reaches this machine.
    """
    namespace = f"doors-{secrets.token_hex(4)}"
    settings = client.Configuration()
    await config.load_kube_config(str(cluster.kubeconfig), client_configuration=settings)
    api = Api(client.ApiClient(settings))
    figures = KeptFigures()
    options = OperatorOptions(
        engine_image="engine",
        router_image="router",
        own_namespace=namespace,
        host=cluster.host,
        external_metrics_port=ports.free(cluster.host)[0],
    )
    chart = external_door.chart(namespace)
    own = None
    try:
        with contextlib.suppress(ConflictError):
            await api.create(kinds.DEFINITION, crd.build())
        await api.create(NAMESPACE, {"metadata": {"name": namespace}})
        for where, items in chart.items():
            await asyncio.to_thread(cluster.kubectl.within(where).apply, *items)
        await api.create(SLICES, external_door.endpoints(options, cluster.host))
        own = Api(_with_token(settings, await _token(api, namespace, ACCOUNT)))
        door = HpaDoor(options, own, figures, Pulse())
        serving = asyncio.create_task(door.run())
        try:
            await until(lambda: _available(api), LOOK_S)
            yield Bed(api, namespace, cluster.host, door, figures)
        finally:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
    finally:
        for where in chart.keys() - {namespace}:
            for item in chart[where]:
                delete = cluster.kubectl.within(where).delete
                await asyncio.to_thread(delete, item["kind"], item["metadata"]["name"])
        await api.delete(NAMESPACE, None, namespace)
        await api.close()
        if own is not None:
            await own.close()


def _with_token(admin: client.Configuration, token: str) -> client.ApiClient:
    settings = client.Configuration(
        host=admin.host,
        api_key={"BearerToken": token},
        api_key_prefix={"BearerToken": "Bearer"},
        ssl_ca_cert=admin.ssl_ca_cert,
    )
    return client.ApiClient(settings)


def test_a_real_hpa_scales_up_holds_when_it_is_told_nothing_and_scales_down(control_plane: Cluster) -> None:
    async def scenario() -> None:
        async with bed(control_plane) as found:
            await found.api.create(kinds.DRIFT_SERVICE, _drift_service(found.namespace, replicas=2))
            await found.follow(2)
            found.told(2.0)
            await found.api.create(AUTOSCALER, _hpa(found.namespace))

            await until(_scaled(found, 4), LOOK_S)

            found.told(None)
            await found.follow(4)
            await until(_said(found, "ScalingActive", "False"), LOOK_S)
            assert await found.scaled_to() == 4

            found.told(0.5)
            await until(_scaled(found, 2), LOOK_S)

    asyncio.run(scenario())


def test_clients_find_the_metrics_by_discovery(control_plane: Cluster) -> None:
    async def scenario() -> None:
        async with bed(control_plane) as found:
            document = await found.api.get_path(external_metrics.ROOT)
            assert {one["name"] for one in document["resources"]} == set(external_metrics.METRICS)
            await until(lambda: _listed(found.api), LOOK_S)

    asyncio.run(scenario())


def test_an_unknown_metric_is_not_found_through_the_api_server(control_plane: Cluster) -> None:
    async def scenario() -> None:
        async with bed(control_plane) as found:
            with pytest.raises(NotFoundError):
                await found.api.get_path(found.metric_path())
            found.told(0.9)
            value = await found.api.get_path(f"{found.metric_path()}?labelSelector=service%3D{SERVICE}")
            assert [one["value"] for one in value["items"]] == ["900m"]

    asyncio.run(scenario())


def test_a_token_opens_what_its_account_may_read_and_nothing_else(control_plane: Cluster) -> None:
    async def scenario() -> None:
        async with bed(control_plane) as found:
            found.told(0.5)
            reader, stranger = await _account(found, "reader"), await _account(found, "stranger")
            for kind, manifest in _reading(found.namespace, "reader"):
                await found.api.create(kind, manifest)
            assert await _direct(found, reader) == 200
            assert await _direct(found, stranger) == 403
            assert await _direct(found, "made-up") == 401
            assert await _direct(found, None) == 401

    asyncio.run(scenario())


def _scaled(found: Bed, count: int) -> Callable[[], Awaitable[bool]]:
    async def scaled() -> bool:
        return await found.scaled_to() == count

    return scaled


def _said(found: Bed, condition: str, status: str) -> Callable[[], Awaitable[bool]]:
    async def said() -> bool:
        return await found.hpa_condition(condition) == status

    return said


async def _available(api: Api) -> bool:
    try:
        found = await api.get(kinds.API_SERVICE, None, registering.NAME)
    except NotFoundError:
        return False
    return _condition(found, "Available") == "True"


async def _listed(api: Api) -> bool:
    groups = (await api.get_path("/apis"))["groups"]
    return external_metrics.GROUP in {group["name"] for group in groups}


def _condition(document: Object, name: str) -> str:
    conditions = document.get("status", {}).get("conditions", ())
    return next((str(one["status"]) for one in conditions if one["type"] == name), "Unknown")


async def _account(found: Bed, account: str) -> str:
    """A new one's token."""
    await found.api.create(SERVICE_ACCOUNT, {"metadata": {"name": account, "namespace": found.namespace}})
    return await _token(found.api, found.namespace, account)


async def _token(api: Api, namespace: str, account: str) -> str:
    tokens = Kind("v1", "TokenRequest", f"serviceaccounts/{account}/token")
    made = await api.create(
        tokens,
        {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "metadata": {"namespace": namespace},
            "spec": {"expirationSeconds": 600},
        },
    )
    return str(made["status"]["token"])


async def _direct(found: Bed, token: str | None) -> int:
    """Past the API server, straight to the door."""
    registered = await found.api.get(kinds.API_SERVICE, None, registering.NAME)
    authority = base64.b64decode(registered["spec"]["caBundle"]).decode()
    headers = {"authorization": f"Bearer {token}"} if token is not None else {}
    async with (
        aiohttp.ClientSession() as session,
        session.get(
            f"https://{found.host}:{found.door.port}{found.metric_path()}",
            headers=headers,
            ssl=ssl.create_default_context(cadata=authority),
            server_hostname=f"{external_door.SERVICE}.{found.namespace}.svc",
        ) as answer,
    ):
        return answer.status


def _reading(namespace: str, account: str) -> Iterator[tuple[Kind, Object]]:
    meta = {"name": account, "namespace": namespace}
    rule = {"apiGroups": [external_metrics.GROUP], "resources": [PRESSURE], "verbs": ["list"]}
    yield ROLE, {"metadata": meta, "rules": [rule]}
    yield (
        ROLE_BINDING,
        {
            "metadata": meta,
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": account},
            "subjects": [{"kind": "ServiceAccount", **meta}],
        },
    )


def _drift_service(namespace: str, replicas: int) -> Object:
    return {
        "apiVersion": kinds.DRIFT_SERVICE.api_version,
        "kind": kinds.DRIFT_SERVICE.kind,
        "metadata": {"name": SERVICE, "namespace": namespace},
        "spec": {"model": {"uri": "embedded://drift-tiny"}, "replicas": replicas},
    }


def _pod(namespace: str, name: str) -> Object:
    """For no scheduler to see: its status is written by hand."""
    return {
        "metadata": {"name": name, "namespace": namespace, "labels": {"service": SERVICE}},
        "spec": {
            "schedulerName": "nobody",
            "terminationGracePeriodSeconds": 0,
            "containers": [{"name": "node", "image": "none"}],
        },
    }


def _hpa(namespace: str) -> Object:
    metric = {"name": PRESSURE, "selector": {"matchLabels": {"service": SERVICE}}}
    return {
        "metadata": {"name": SERVICE, "namespace": namespace},
        "spec": {
            "scaleTargetRef": {
                "apiVersion": kinds.DRIFT_SERVICE.api_version,
                "kind": kinds.DRIFT_SERVICE.kind,
                "name": SERVICE,
            },
            "minReplicas": 1,
            "maxReplicas": 8,
            "metrics": [
                {
                    "type": "External",
                    "external": {"metric": metric, "target": {"type": "Value", "value": "1"}},
                }
            ],
            "behavior": {"scaleDown": {"stabilizationWindowSeconds": 0}},
        },
    }
