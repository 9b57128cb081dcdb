"""From EndpointSlices to a list of nodes."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from drift_router.discovery import slices
from drift_router.discovery.api_server import Event
from drift_router.discovery.endpoint_slices import Slices
from drift_router.discovery.slices import EndpointSlice
from drift_router.documents import DocumentError
from drift_router.nodes.addresses import Address
from scripted_api_server import Slice, endpoint, slice_of


def read(*found: Slice) -> list[EndpointSlice]:
    return [msgspec.convert(one, EndpointSlice) for one in found]


def nodes(*found: Slice) -> tuple[Address, ...]:
    return slices.merged(itertools.chain.from_iterable(map(slices.nodes_of, read(*found))))


def node(name: str, host: str, *, draining: bool = False) -> Address:
    return Address(name, f"http://{host}:8000", f"http://{host}:8001", draining=draining)


def test_a_ready_pod_is_a_node_by_the_ports_names() -> None:
    assert nodes(slice_of("s", endpoint("pod-a", "10.0.0.1"))) == (node("pod-a", "10.0.0.1"),)


def test_the_list_is_ordered_by_name_over_all_slices() -> None:
    found = nodes(
        slice_of("s", endpoint("c", "10.0.0.3"), endpoint("a", "10.0.0.1")),
        slice_of("t", endpoint("b", "10.0.0.2")),
    )
    assert [one.name for one in found] == ["a", "b", "c"]


def test_an_address_of_the_new_family_is_bracketed() -> None:
    found = nodes(slice_of("s", endpoint("a", "fd00::1"), family="IPv6"))
    assert found == (node("a", "[fd00::1]"),)


@pytest.mark.parametrize(
    ("ready", "terminating", "listed"),
    [
        (True, None, (node("a", "10.0.0.1"),)),
        (None, None, (node("a", "10.0.0.1"),)),  # unknown is ready, as Kubernetes defines it
        (False, None, ()),
        (False, False, ()),
        (False, True, (node("a", "10.0.0.1", draining=True),)),
        (True, True, (node("a", "10.0.0.1", draining=True),)),  # where the Service publishes all
    ],
)
def test_conditions_say_what_a_node_may_get(
    ready: bool | None, terminating: bool | None, listed: tuple[Address, ...]
) -> None:
    assert nodes(slice_of("s", endpoint("a", "10.0.0.1", ready=ready, terminating=terminating))) == listed


def test_a_pod_in_two_slices_is_one_node_that_leaves_if_either_says_so() -> None:
    stays = slice_of("s", endpoint("a", "10.0.0.1"))
    leaves = slice_of("t", endpoint("a", "10.0.0.1", ready=False, terminating=True))
    assert nodes(stays, leaves) == nodes(leaves, stays) == (node("a", "10.0.0.1", draining=True),)
    assert nodes(stays, slice_of("t", endpoint("a", "10.0.0.1"))) == (node("a", "10.0.0.1"),)


def test_a_name_or_an_address_that_was_taken_over_is_that_of_the_one_that_stays() -> None:
    old = slice_of("s", endpoint("a", "10.0.0.1", ready=False, terminating=True))
    assert nodes(old, slice_of("t", endpoint("a", "10.0.0.2"))) == (node("a", "10.0.0.2"),)
    assert nodes(old, slice_of("t", endpoint("b", "10.0.0.1"))) == (node("b", "10.0.0.1"),)


def test_a_pod_with_two_families_is_reached_by_the_old_one() -> None:
    found = nodes(
        slice_of("s", endpoint("a", "fd00::1"), family="IPv6"), slice_of("t", endpoint("a", "10.0.0.1"))
    )
    assert found == (node("a", "10.0.0.1"),)


def test_slices_that_say_nothing_usable_say_nothing() -> None:
    empty: Slice = {"metadata": {"name": "s"}, "addressType": "IPv4", "endpoints": None, "ports": None}
    named = slice_of("t", endpoint("a", "a.example.com"), family="FQDN")
    assert nodes(empty, named) == ()


def test_an_endpoint_without_a_pod_is_named_by_its_address_and_without_a_control_port_is_anybodys() -> None:
    one = slice_of("s", {"addresses": ["10.0.0.1", "10.0.0.9"]})
    one["ports"] = [{"name": "api", "port": 80}]
    assert nodes(one) == (Address("10.0.0.1", "http://10.0.0.1:80"),)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"ports": [{"name": "http", "port": 80}]}, "EndpointSlice s: ports: none is named 'api'"),
        ({"ports": [{"name": "api", "port": 0}]}, "EndpointSlice s: url: "),
        (
            {"endpoints": [endpoint("a", "nowhere")]},
            "EndpointSlice s: 'nowhere' does not appear to be an IPv4",
        ),
        ({"endpoints": [endpoint("a b", "10.0.0.1")]}, 'EndpointSlice s: name: "a b" is not'),
    ],
)
def test_slices_that_are_not_of_nodes_are_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(DocumentError) as caught:
        nodes(slice_of("s", endpoint("a", "10.0.0.1")) | change)
    assert message in str(caught.value)


ENDPOINTS = st.builds(
    endpoint,
    st.sampled_from("abc"),
    st.sampled_from(["10.0.0.1", "10.0.0.2", "10.0.0.3"]),
    ready=st.sampled_from([True, False, None]),
    terminating=st.sampled_from([True, False, None]),
)
SLICES = st.builds(
    lambda name, endpoints: slice_of(name, *endpoints),
    st.sampled_from("stu"),
    st.lists(ENDPOINTS, max_size=4),
)


@given(st.lists(SLICES, max_size=3), st.lists(st.tuples(st.booleans(), SLICES), max_size=12))
def test_whatever_came_before_the_list_is_what_the_last_slices_say(
    first: list[Slice], changes: list[tuple[bool, Slice]]
) -> None:
    followed, last = Slices(), {one["metadata"]["name"]: one for one in first}
    followed.replace(read(*last.values()))
    for deleted, one in changes:
        name = one["metadata"]["name"]
        kind = "DELETED" if deleted else "MODIFIED" if name in last else "ADDED"
        followed.take(Event(kind, msgspec.Raw(msgspec.json.encode(one))))
        if deleted:
            last.pop(name, None)
        else:
            last[name] = one
    assert followed.addresses() == nodes(*last.values())


@given(st.lists(SLICES, max_size=5, unique_by=lambda one: one["metadata"]["name"]), st.randoms())
def test_the_order_of_slices_says_nothing(found: list[Slice], random: Any) -> None:
    shuffled = [{**one, "endpoints": random.sample(one["endpoints"], len(one["endpoints"]))} for one in found]
    random.shuffle(shuffled)
    assert nodes(*shuffled) == nodes(*found)
