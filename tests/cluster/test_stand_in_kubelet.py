"""The stand-in kubelet and its fleet keep what the tests of the operator take for granted."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

import http_calls
import kube_api
import stand_in_kubelet
from clusters import Cluster
from drift_engine import options as node_options
from drift_engine import wire
from drift_operator.objects import names
from drift_router import options as router_options
from drift_router.pictures import RouterReport
from fleet_pods import FleetNode, Mishap
from kube_api import KubeApi, Object
from plant import Demand
from stand_in_fleet import Fleet
from stand_in_kubelet import Machine, StandInKubelet

TOKEN = {"x-drift-token": "control-token"}
SPLIT = "/control/v1/split"
REPORT = "/control/v1/report"


@pytest.fixture(scope="module")
def fleet() -> Fleet:
    return Fleet()


@pytest.fixture(scope="module")
def kubelet(control_plane: Cluster, fleet: Fleet) -> Iterator[StandInKubelet]:
    machines = [Machine(f"gpu-{letter}", pods=20, gpus=2) for letter in "ab"]
    with stand_in_kubelet.running(control_plane.kubeconfig, machines, fleet, crash_backoff_s=0.1) as kubelet:
        yield kubelet


class Place:
    """A namespace, and what a test does in it."""

    def __init__(self, api: KubeApi, name: str) -> None:
        self.api = api
        self.name = name

    @property
    def pods(self) -> str:
        return f"/api/v1/namespaces/{self.name}/pods"

    def deployment(self, name: str) -> str:
        return f"/apis/apps/v1/namespaces/{self.name}/deployments/{name}"

    async def deploy(self, name: str, replicas: int, **asked: Any) -> None:
        """`asked`: labels, and fields of the container."""
        labels = asked.pop("labels", {"app": name})
        grace_s = asked.pop("grace_s", 30)
        await self.api.apply(
            self.deployment(name),
            {
                "apiVersion": "apps/v1",
                "kind": "Deployment",
                "metadata": {"name": name},
                "spec": {
                    "replicas": replicas,
                    "selector": {"matchLabels": labels},
                    "template": {
                        "metadata": {"labels": labels},
                        "spec": {
                            "terminationGracePeriodSeconds": grace_s,
                            "containers": [{"name": "main", "image": "none:1", **asked}],
                        },
                    },
                },
            },
        )

    async def rolled_out(self, name: str, replicas: int) -> None:
        def done(found: Object | None) -> bool:
            assert found is not None
            status = found["status"]
            counts = (status.get(key, 0) for key in ("replicas", "updatedReplicas", "availableReplicas"))
            seen = status.get("observedGeneration", 0) >= found["metadata"]["generation"]
            return seen and all(count == replicas for count in counts)

        await self.api.until(self.deployment(name), done)

    async def only_pod(self, state: str = "") -> Object:
        """Waits until its container is in that state, or waits for that reason."""

        def there(found: Object | None) -> bool:
            assert found is not None
            items = found["items"]
            return len(items) == 1 and (
                not state or state in str(items[0]["status"].get("containerStatuses"))
            )

        found = await self.api.until(self.pods, there)
        assert found is not None
        pod: Object = found["items"][0]
        return pod

    async def no_pods(self) -> None:
        await self.api.until(self.pods, lambda found: found is not None and not found["items"])


@contextlib.asynccontextmanager
async def place(kubeconfig: Path) -> AsyncIterator[Place]:
    name = f"stand-in-{secrets.token_hex(3)}"
    path = f"/api/v1/namespaces/{name}"
    async with kube_api.connect(kubeconfig) as api:
        await api.create("/api/v1/namespaces", {"metadata": {"name": name}})
        try:
            yield Place(api, name)
        finally:
            await api.delete(path)


Scene = Callable[[Callable[[Place], Awaitable[None]]], None]


@pytest.fixture
def scene(control_plane: Cluster, kubelet: StandInKubelet) -> Scene:
    """Runs a test's coroutine in a namespace of its own."""

    def play(act: Callable[[Place], Awaitable[None]]) -> None:
        async def playing() -> None:
            async with place(control_plane.kubeconfig) as found:
                await act(found)

        asyncio.run(playing())

    return play


def test_thirty_pods_become_available_and_a_change_rolls_through_them(scene: Scene) -> None:
    async def act(place: Place) -> None:
        await place.deploy("many", 30)
        await place.rolled_out("many", 30)
        await place.deploy("many", 30, image="none:2")
        await place.rolled_out("many", 30)
        await place.deploy("many", 0, image="none:2")
        await place.no_pods()

    scene(act)


def test_what_has_no_room_is_unschedulable(scene: Scene) -> None:
    async def act(place: Place) -> None:
        await place.deploy("large", 1, resources={"limits": {"nvidia.com/gpu": "3"}})

        def told(found: Object | None) -> bool:
            return found is not None and "Insufficient nvidia.com/gpu" in str(found["items"])

        await place.api.until(place.pods, told)

    scene(act)


def test_a_crash_is_a_restart_and_an_unready_pod_is_not_available(
    scene: Scene, kubelet: StandInKubelet
) -> None:
    async def act(place: Place) -> None:
        await place.deploy("one", 1)
        await place.rolled_out("one", 1)
        name = (await place.only_pod())["metadata"]["name"]
        kubelet.crash(place.name, name, 7)
        pod = await place.only_pod("'restartCount': 1")
        assert pod["status"]["containerStatuses"][0]["lastState"]["terminated"]["exitCode"] == 7
        await place.rolled_out("one", 1)
        kubelet.hold_unready(place.name, name)
        await place.api.until(
            place.deployment("one"),
            lambda found: found is not None and "availableReplicas" not in found["status"],
        )

    scene(act)


def test_an_image_that_cannot_be_pulled_waits_until_it_can(scene: Scene, kubelet: StandInKubelet) -> None:
    async def act(place: Place) -> None:
        kubelet.refuse_images("missing:*")
        await place.deploy("one", 1, image="missing:1")
        await place.only_pod("ImagePullBackOff")
        kubelet.serve_images()
        await place.rolled_out("one", 1)

    scene(act)


def test_a_pod_whose_secret_is_missing_waits_for_it(scene: Scene) -> None:
    async def act(place: Place) -> None:
        secret = {"secretKeyRef": {"name": "token", "key": "token"}}
        await place.deploy("one", 1, env=[{"name": "TOKEN", "valueFrom": secret}])
        await place.only_pod("CreateContainerConfigError")
        await place.api.create(
            f"/api/v1/namespaces/{place.name}/secrets",
            {"metadata": {"name": "token"}, "stringData": {"token": "t"}},
        )
        await place.rolled_out("one", 1)

    scene(act)


# the fleet


def container(kind: str, options: str) -> dict[str, Any]:
    """As the operator's pods have it."""
    pod_name = {"fieldRef": {"fieldPath": "metadata.name"}}
    return {
        "labels": names.selector("chat", kind),
        "args": ["--options", options],
        "env": [
            {"name": "POD_NAME", "valueFrom": pod_name},
            {"name": node_options.TOKEN_VARIABLE, "value": TOKEN["x-drift-token"]},
        ],
    }


async def deploy_chat(place: Place, nodes: int, **asked: Any) -> None:
    node = node_options.NodeOptions(model="embedded://drift-tiny", node="$(POD_NAME)", device="sim")
    await place.deploy("chat-node", nodes, **container(names.NODE, node_options.dump(node)), **asked)
    router = router_options.RouterOptions()
    await place.deploy("chat-router", 1, **container(names.ROUTER, router_options.dump(router)))
    await place.rolled_out("chat-node", nodes)
    await place.rolled_out("chat-router", 1)


async def call(address: str, port: int, *asked: Any) -> http_calls.Reply:
    return await asyncio.to_thread(functools.partial(http_calls.call, f"http://{address}:{port}", *asked))


def test_the_fleet_reports_a_load_that_its_plant_was_given(scene: Scene, fleet: Fleet) -> None:
    async def act(place: Place) -> None:
        await deploy_chat(place, 2)
        service = fleet.service(place.name, "chat")
        service.demand = Demand(requests_per_s=10)
        (router,) = fleet.routers(place.name, "chat")

        await asyncio.sleep(1.5)
        said = (await call(router.start.address, names.ADMIN_PORT, "GET", REPORT, None, TOKEN)).json
        told = msgspec.convert(said, RouterReport)
        assert told.eligible_nodes == 2
        counted = told.totals
        assert counted.requests >= 10
        assert counted.ttft_kept + counted.ttft_missed in range(8, counted.requests + 1)
        node = fleet.nodes(place.name, "chat")[0]
        said = (await call(node.start.address, names.CONTROL_PORT, "GET", REPORT, None, TOKEN)).json
        report = msgspec.convert(said, wire.Report)
        assert report.node == node.start.name
        assert report.in_flight > 0
        assert report.costs
        assert service.failed == 0

    scene(act)


def test_a_node_takes_set_points_as_a_real_one_does(scene: Scene, fleet: Fleet) -> None:
    async def act(place: Place) -> None:
        await deploy_chat(place, 1)
        (node,) = fleet.nodes(place.name, "chat")
        control = functools.partial(call, node.start.address, names.CONTROL_PORT)
        point = {"epoch": 5, "bounds": {"min": 64, "max": 80}, "weight": 0.5}
        assert (await control("PUT", SPLIT, point)).status == 401
        assert (await control("PUT", SPLIT, point, TOKEN)).status == 200
        assert (await control("PUT", SPLIT, {"epoch": 4}, TOKEN)).error["code"] == "stale_epoch"
        assert (await control("PUT", SPLIT, {"epoch": 6, "decode_sms": 7}, TOKEN)).error[
            "code"
        ] == "illegal_split"
        report = (await control("GET", REPORT, None, TOKEN)).json
        assert (report["epoch"], report["weight"]) == (5, 0.5)
        assert 64 <= report["split"]["decode_sms"] <= 80
        node.mishap = Mishap.ERROR
        assert (await control("GET", REPORT, None, TOKEN)).status == 500

    scene(act)


def test_a_node_that_is_deleted_leaves_when_its_requests_have_ended(scene: Scene, fleet: Fleet) -> None:
    async def act(place: Place) -> None:
        fleet.drain_s = 1.0
        try:
            await deploy_chat(place, 2)
            service = fleet.service(place.name, "chat")
            service.demand = Demand(requests_per_s=10)
            await asyncio.sleep(0.3)
            leaving = fleet.nodes(place.name, "chat")[0]
            await place.deploy("chat-node", 1, **container(names.NODE, leaving.start.options))
            await place.rolled_out("chat-node", 1)
            await place.api.until(place.pods, lambda found: found is not None and len(found["items"]) == 2)
            service.demand = Demand()
            assert service.failed == service.resumed == 0
        finally:
            fleet.drain_s = None

    scene(act)


def test_a_request_goes_on_when_its_node_is_killed(
    scene: Scene, fleet: Fleet, kubelet: StandInKubelet
) -> None:
    async def act(place: Place) -> None:
        await deploy_chat(place, 2)
        (router,) = fleet.routers(place.name, "chat")
        body = {"messages": [], "max_tokens": 100}
        asked = asyncio.create_task(
            call(router.start.address, names.CLIENT_PORT, "POST", "/v1/chat/completions", body)
        )
        busy: list[FleetNode] = []
        while not busy:
            await asyncio.sleep(0.01)
            busy = [node for node in fleet.nodes(place.name, "chat") if node.state.open_requests]
        kubelet.crash(place.name, busy[0].start.name)
        words = (await asked).json["choices"][0]["message"]["content"].split()
        assert words == [f"w{index}" for index in range(100)]

    scene(act)
