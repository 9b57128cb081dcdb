"""Nodes as a command line names them."""

from __future__ import annotations

import pytest

from drift_router.nodes.addresses import Address
from drift_router.process import addresses_of


def test_nodes_are_named_in_order_or_as_asked() -> None:
    assert addresses_of(["http://a:1", "b=http://b:2,http://b:3", "http://c:4,http://c:5"]) == [
        Address("node-0", "http://a:1"),
        Address("b", "http://b:2", "http://b:3"),
        Address("node-2", "http://c:4", "http://c:5"),
    ]


def test_a_vllm_nodes_two_sockets_are_named_by_what_they_are_for() -> None:
    assert addresses_of(
        ["v=http://a:1,events=tcp://a:2,replay=tcp://a:3", "http://b:1,control=http://b:2"]
    ) == [
        Address("v", "http://a:1", events_url="tcp://a:2", replay_url="tcp://a:3"),
        Address("node-1", "http://b:1", "http://b:2"),
    ]


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("=http://a:1", "name"),
        ("a b=http://a:1", "name"),
        ("a=b:1", "url"),
        ("http://a:1,events=tcp://a:2", "replay_url"),
        ("http://a:1,metrics=http://a:2", "node"),
        ("http://a:1,http://a:2,control=http://a:3", "control_url"),
    ],
)
def test_what_is_wrong_is_named(text: str, field: str) -> None:
    with pytest.raises(ValueError, match=f"^{field}: "):
        addresses_of([text])
