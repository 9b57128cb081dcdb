"""What a node says of itself, to be changed where a test wants it."""

from __future__ import annotations

from typing import Any

import msgspec

from drift_engine import wire

IDLE = wire.Report(
    node="node",
    model="drift-tiny",
    role=wire.Role.MIXED,
    mode=wire.Mode.AUTO,
    ready=True,
    draining=False,
    in_flight=0,
    max_in_flight=64,
    running=0,
    waiting=0,
    queued_tokens=0,
    kv_usage=0.0,
    kv_pages_total=1024,
    page_tokens=16,
    max_model_len_tokens=4096,
    legal_splits=(),
    split=None,
    epoch=0,
    generation=0,
    applied=False,
    weight=1.0,
    slo=wire.Targets(400, 0, 80),
    prefill_tokens_per_s=10000,
    tbt_p50_ms=10,
    tbt_p99_ms=20,
    tbt_per_request_ms=0.0,
    kv_events_sequence=0,
    uptime_s=100,
)
"""Of a node that is ready and has nothing to do."""


def report(**changes: Any) -> wire.Report:
    return msgspec.structs.replace(IDLE, **changes)
