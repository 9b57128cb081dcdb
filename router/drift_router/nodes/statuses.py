"""One node for people and for other processes, and how what several workers know of it becomes one picture."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from drift_engine import wire
from drift_router.nodes.breaker import Circuit
from drift_router.nodes.health import State
from drift_router.snapshots import IndexState

_CIRCUITS = tuple(Circuit)  # from good to bad
_INDEXES = tuple(IndexState)


class NodeStatus(msgspec.Struct, frozen=True):
    """One node for people and for other processes."""

    slot: int
    name: str
    url: str
    control_url: str | None
    weight: float
    draining: bool
    """Told by the list, the node's report or its answers."""
    removed: bool
    """No longer on the list; requests are still in flight."""
    eligible: bool
    """It may be sent requests now."""
    health: State
    problem: str
    """Of the last report that could not be had; empty: none."""
    circuit: Circuit
    index: IndexState
    in_flight: int
    """Requests of ours."""
    queued_tokens: int
    warmth: float
    trust: float
    prefill_tokens_per_s: float
    fixed_s: float
    tbt_s: float
    report_age_s: float | None
    report: wire.Report | None


def merged(views: Iterable[Sequence[NodeStatus]]) -> list[NodeStatus]:
    """What all workers have in flight, and of everything else the worst that any of them sees; by name and URL."""
    found: dict[tuple[str, str, str | None], NodeStatus] = {}
    for view in views:
        for status in view:
            key = status.name, status.url, status.control_url
            found[key] = _both(found[key], status) if key in found else status
    return list(found.values())


def _both(one: NodeStatus, other: NodeStatus) -> NodeStatus:
    return msgspec.structs.replace(
        one,
        draining=one.draining or other.draining,
        removed=one.removed and other.removed,
        eligible=one.eligible and other.eligible,
        health=other.health if one.health is State.HEALTHY else one.health,
        problem=one.problem or other.problem,
        circuit=max(one.circuit, other.circuit, key=_CIRCUITS.index),
        index=max(one.index, other.index, key=_INDEXES.index),
        in_flight=one.in_flight + other.in_flight,
        queued_tokens=max(one.queued_tokens, other.queued_tokens),
        trust=min(one.trust, other.trust),
    )
