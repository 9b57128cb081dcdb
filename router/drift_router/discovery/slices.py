"""From EndpointSlices (discovery.k8s.io/v1) to nodes. Pure: what the slices say now is all that counts, not what they
said before or in which order they came.

    ready, not terminating       the node may get new requests
    terminating                  it finishes what it has (`Address.draining`)
    neither                      it is not on the list

A pod may be in several slices while Kubernetes moves it, and in one for each family of addresses.
"""

from __future__ import annotations

import ipaddress
import operator
from collections.abc import Iterable

import msgspec

from drift_router.documents import DocumentError
from drift_router.nodes import addresses
from drift_router.nodes.addresses import Address

API_PORT, CONTROL_PORT = "api", "control"
"""Names of a slice's ports."""

FAMILIES = ("IPv4", "IPv6")
"""Of addresses, in the order of preference where a pod has both. The third type of a slice, FQDN, is deprecated."""


class Conditions(msgspec.Struct, frozen=True):
    """As Kubernetes says it: what is left out is unknown."""

    ready: bool | None = None
    terminating: bool | None = None


class Target(msgspec.Struct, frozen=True):
    name: str = ""


class Endpoint(msgspec.Struct, frozen=True, rename="camel"):
    addresses: tuple[str, ...]
    """All of the same pod; only the first counts, by Kubernetes' own rule."""
    conditions: Conditions | None = None
    target_ref: Target | None = None


class Port(msgspec.Struct, frozen=True):
    name: str | None = None
    port: int | None = None


class Metadata(msgspec.Struct, frozen=True):
    name: str


class EndpointSlice(msgspec.Struct, frozen=True, rename="camel"):
    metadata: Metadata
    address_type: str = FAMILIES[0]
    endpoints: tuple[Endpoint, ...] | None = None
    ports: tuple[Port, ...] | None = None


class ListMetadata(msgspec.Struct, frozen=True, rename="camel"):
    resource_version: str
    """From which on a watch misses nothing."""


class SliceList(msgspec.Struct, frozen=True):
    metadata: ListMetadata
    items: tuple[EndpointSlice, ...]


Node = tuple[int, Address]
"""Of a slice, with the place of its family in `FAMILIES`."""


def nodes_of(one: EndpointSlice) -> tuple[Node, ...]:
    """Raises DocumentError for a slice that can't be one of nodes."""
    if one.address_type not in FAMILIES or not one.endpoints:
        return ()
    ports = {port.name: port.port for port in one.ports or ()}
    api_port, control_port = ports.get(API_PORT), ports.get(CONTROL_PORT)
    if api_port is None:
        raise DocumentError(f"EndpointSlice {one.metadata.name}: ports: none is named {API_PORT!r}")
    family, made = FAMILIES.index(one.address_type), []
    for endpoint in one.endpoints:
        conditions = endpoint.conditions or Conditions()
        draining = conditions.terminating is True
        if not endpoint.addresses or (conditions.ready is False and not draining):
            continue
        try:
            host = _host(endpoint.addresses[0])
            address = Address(
                name=endpoint.target_ref.name if endpoint.target_ref is not None else endpoint.addresses[0],
                url=f"http://{host}:{api_port}",
                control_url=f"http://{host}:{control_port}" if control_port is not None else None,
                draining=draining,
            )
        except ValueError as error:
            raise DocumentError(f"EndpointSlice {one.metadata.name}: {error}") from error
        made.append((family, address))
    return tuple(made)


def merged(nodes: Iterable[Node]) -> tuple[Address, ...]:
    """Of all slices, by name. Raises DocumentError where there are too many."""
    found: dict[tuple[str, str, str | None], Node] = {}
    for node in nodes:
        address = node[1]
        key = address.name, address.url, address.control_url
        # who leaves does not come back: a slice that does not say so is the older one
        if key not in found or address.draining:
            found[key] = node
    listed: list[Address] = []
    names: set[str] = set()
    urls: set[str] = set()
    # a name or an address that has been taken over is that of the one that stays
    for _, address in sorted(found.values(), key=_rank):
        if address.name not in names and address.url not in urls:
            names.add(address.name)
            urls.add(address.url)
            listed.append(address)
    return addresses.checked(sorted(listed, key=operator.attrgetter("name")))


def _rank(node: Node) -> tuple[bool, int, str, str, str]:
    family, address = node
    return address.draining, family, address.name, address.url, address.control_url or ""


def _host(address: str) -> str:
    """As URLs have it. Raises ValueError."""
    found = ipaddress.ip_address(address)
    return f"[{found}]" if isinstance(found, ipaddress.IPv6Address) else str(found)
