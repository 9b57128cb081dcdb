"""A router's discovery before a real API server, with no more rights than its pods have."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import yaml

from clusters import Cluster
from drift_router.discovery.api_server import Access
from drift_router.discovery.endpoint_slices import EndpointSlices, Pace
from drift_router.nodes.addresses import Address
from kubectl import Kubectl
from scripted_api_server import endpoint, slice_of
from waiting import until

DEADLINE_S = 120
QUICK = Pace(retry_s=0.05, retry_most_s=0.1)


async def apply(namespace: Kubectl, *objects: dict[str, Any]) -> None:
    await asyncio.to_thread(namespace.apply, *objects)


@pytest.fixture
def access(control_plane: Cluster, namespace: Kubectl, tmp_path: Path) -> Access:
    """As a pod of the service account `router` has it."""
    namespace("create", "serviceaccount", "router")
    (cluster,) = yaml.safe_load(control_plane.kubeconfig.read_text())["clusters"]
    token = tmp_path / "token"
    token.write_text(namespace("create", "token", "router"))
    return Access(cluster["cluster"]["server"], token, Path(cluster["cluster"]["certificate-authority"]))


def allow(namespace: Kubectl) -> None:
    slices = "--resource=endpointslices.discovery.k8s.io"
    namespace("create", "role", "router", "--verb=list,watch", slices)
    account = f"--serviceaccount={namespace.namespace}:router"
    namespace("create", "rolebinding", "router", "--role=router", account)


def real(name: str, *endpoints: dict[str, Any]) -> dict[str, Any]:
    return {"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", **slice_of(name, *endpoints)}


def test_nodes_come_leave_and_go_as_the_slices_say(namespace: Kubectl, access: Access) -> None:
    allow(namespace)
    told: list[tuple[Address, ...]] = []

    async def following() -> None:
        await apply(namespace, real("one", endpoint("a", "10.9.0.1")))
        source = EndpointSlices(f"{namespace.namespace}/chat-nodes", access, QUICK)
        await source.start(told.append)
        try:
            assert [address.name for address in told[-1]] == ["a"]
            await apply(namespace, real("two", endpoint("b", "10.9.0.2"), endpoint("c", "10.9.0.3")))
            await until(lambda: [address.name for address in told[-1]] == ["a", "b", "c"])
            leaving = endpoint("b", "10.9.0.2", ready=False, terminating=True)
            await apply(namespace, real("two", leaving, endpoint("c", "10.9.0.3", ready=False)))
            await until(lambda: [(one.name, one.draining) for one in told[-1]] == [("a", False), ("b", True)])
            await asyncio.to_thread(namespace, "delete", "endpointslice", "two")
            await until(lambda: [address.name for address in told[-1]] == ["a"])
            assert (source.problem, source.problems) == ("", 0)
        finally:
            await source.close()

    asyncio.run(asyncio.wait_for(following(), DEADLINE_S))


def test_without_its_role_a_router_says_what_it_lacks_and_works_once_it_has_it(
    namespace: Kubectl, access: Access
) -> None:
    told: list[tuple[Address, ...]] = []

    async def following() -> None:
        await apply(namespace, real("one", endpoint("a", "10.9.0.1")))
        pace = Pace(first_s=1.0, retry_s=0.05, retry_most_s=0.1)
        source = EndpointSlices(f"{namespace.namespace}/chat-nodes", access, pace)
        await source.start(told.append)
        try:
            assert told == [()]
            assert "status 403" in source.problem
            assert 'cannot list resource "endpointslices"' in source.problem
            await asyncio.to_thread(allow, namespace)
            await until(lambda: [address.name for address in told[-1]] == ["a"])
            assert source.problem == ""
        finally:
            await source.close()

    asyncio.run(asyncio.wait_for(following(), DEADLINE_S))
