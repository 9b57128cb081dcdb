"""Pictures of routers that do well, to be changed where a test wants it."""

from __future__ import annotations

import msgspec

from drift_router.counters import Counters
from drift_router.nodes.breaker import Circuit
from drift_router.nodes.health import State
from drift_router.nodes.statuses import NodeStatus
from drift_router.pictures import Picture
from drift_router.snapshots import IndexState


def status_of(name: str, **changes: object) -> NodeStatus:
    status = NodeStatus(
        slot=0,
        name=name,
        url=f"http://{name}:8000",
        control_url=None,
        weight=1.0,
        draining=False,
        removed=False,
        eligible=True,
        health=State.HEALTHY,
        problem="",
        circuit=Circuit.CLOSED,
        index=IndexState.EXACT,
        in_flight=0,
        queued_tokens=0,
        warmth=1.0,
        trust=1.0,
        prefill_tokens_per_s=0.0,
        fixed_s=0.0,
        tbt_s=0.0,
        report_age_s=None,
        report=None,
    )
    return msgspec.structs.replace(status, **changes)


def picture_of(
    counters: Counters,
    nodes: list[NodeStatus],
    *,
    index_bytes: int = 0,
    index_blocks: int = 0,
    draining: bool = False,
) -> Picture:
    return Picture(counters, nodes, index_bytes, index_blocks, draining)
