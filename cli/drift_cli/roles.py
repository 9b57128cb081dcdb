"""Prefill and decode on nodes of their own, in simulations only: two routers, one over each kind.

A request has its first token from a prefill node, chosen by the policy, and all others from a decode node, chosen by
load. A decode node whose cache has no room for a prompt's KV computes it again.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from drift_cli.routing import SimulatedRouter, making
from drift_engine import wire
from drift_engine.bench.results import Slo
from drift_engine.hardware.shapes import ModelShape
from drift_engine.simulation.dispatching import Dispatcher, Making, NodeState, Request
from drift_engine.simulation.handing_on import Link
from drift_router.snapshots import Policy

LINK_LATENCY_S = 0.002
"""From the end of a prefill to the first byte of its KV. Estimate."""


class Roles(NamedTuple):
    """How many nodes of each kind; the first ones prefill."""

    prefill: int
    decode: int


def read(text: str) -> Roles:
    """`5P3D`. Raises ValueError."""
    found = re.fullmatch(r"([1-9]\d{0,3})P([1-9]\d{0,3})D", text, re.IGNORECASE)
    if found is None:
        raise ValueError(f"{text!r} is not of the form 5P3D, each at least 1")
    return Roles(int(found[1]), int(found[2]))


def link(gbit_per_s: float, shape: ModelShape) -> Link:
    """Of each GPU of a node. Raises ValueError."""
    if not 0 < gbit_per_s < float("inf"):
        raise ValueError(f"--link: {gbit_per_s:g} is not above 0")
    return Link(
        bytes_per_s=gbit_per_s * 1e9 / 8,
        latency_s=LINK_LATENCY_S,
        kv_bytes_per_token=shape.kv_bytes_per_token,
        layers=shape.num_layers,
    )


class TwoRouters(Dispatcher):
    def __init__(self, roles: Roles, prefill: SimulatedRouter, decode: SimulatedRouter) -> None:
        self._roles = roles
        self._prefill = prefill
        self._decode = decode
        self._with: dict[str, SimulatedRouter] = {}  # a request's router

    @property
    def interval_s(self) -> float:  # type: ignore[override]
        return min(self._prefill.interval_s, self._decode.interval_s)

    @property
    def listens(self) -> bool:
        return self._prefill.listens

    @property
    def routers(self) -> tuple[SimulatedRouter, SimulatedRouter]:
        return self._prefill, self._decode

    def _of(self, index: int) -> SimulatedRouter:
        return self._prefill if index < self._roles.prefill else self._decode

    def joined(self, index: int, node: NodeState, at_s: float) -> None:
        self._of(index).joined(index, node, at_s)

    def left(self, index: int, at_s: float) -> None:
        self._of(index).left(index, at_s)

    def kept(self, index: int, events: Sequence[wire.KvEvent]) -> None:
        self._of(index).kept(index, events)

    def look(self, now_s: float) -> None:
        self._prefill.look(now_s)
        self._decode.look(now_s)

    def choose(self, request: Request) -> int | None:
        router = self._decode if request.drawn_tokens else self._prefill
        self._with[request.request_id] = router
        return router.choose(request)

    def told(self, request_id: str, times_s: Sequence[float], cached_tokens: int) -> None:
        self._with[request_id].told(request_id, times_s, cached_tokens)

    def ended(self, request_id: str, at_s: float, *, ok: bool) -> None:
        self._with[request_id].ended(request_id, at_s, ok=ok)

    def broken(self, request_id: str, at_s: float) -> None:
        self._with[request_id].broken(request_id, at_s)


def two_routers(roles: Roles, policy: Policy, slo: Slo, rate_error: float, seed: int) -> Making:
    """`policy` is of the prefill nodes. Raises ValueError as `routing.making`."""
    prefill = making(policy, slo, rate_error, seed)
    decode = making(Policy.LEAST_LOAD, slo, rate_error, seed)

    def make() -> Dispatcher:
        one, other = prefill(), decode()
        assert isinstance(one, SimulatedRouter)
        assert isinstance(other, SimulatedRouter)
        return TwoRouters(roles, one, other)

    return make
