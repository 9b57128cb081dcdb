"""What one request asks for, as the router reads it, and what becomes of that while it is here."""

from __future__ import annotations

import math

import msgspec

from drift_router.counters import Tally
from drift_router.dataplane.refusals import Refusal
from drift_router.dataplane.requests import Request
from drift_router.index.blocks import Blocks
from drift_router.keys import Key
from drift_router.snapshots import Decision

MAX_PRIORITY = 1000
"""As on the nodes."""


class Wish(msgspec.Struct):
    """A request as long as it is here. Budgets in seconds."""

    arrival_s: float
    client: Key | None
    trusted: bool
    prompt_bytes: int
    tokens: int
    blocks: Blocks | None
    key: int
    ttft_s: float
    ttft_per_token_s: float
    tbt_s: float
    priority: int
    session: str | None
    explain: bool
    counted_tokens: int
    """Of the prompt: as estimated, until a node has counted them."""
    tally: Tally
    """Of what it was promised: where that changed since, nobody looks at this one any more."""
    length_class: int | None = None
    """In the tally, once its answer began."""
    decision: Decision | None = None
    ttft_by_s: float | None = None
    """Its budget, once its first token came."""
    gaps: int = 0
    late_gaps: int = 0


def heed(wish: Wish, request: Request) -> None:
    """What a trusted client may ask for. Raises Refusal (400)."""
    for name, value in request.headers:
        if name == b"x-drift-slo-ttft-ms":
            wish.ttft_s, wish.ttft_per_token_s = _positive(name, value) / 1e3, 0.0
        elif name == b"x-drift-slo-tbt-ms":
            wish.tbt_s = _positive(name, value) / 1e3
        elif name == b"x-drift-priority":
            wish.priority = _priority(name, value)
        elif name == b"x-drift-explain":
            wish.explain = value == b"1"


def _positive(name: bytes, value: bytes) -> float:
    try:
        found = float(value)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise _bad(name, value, "a positive number of milliseconds")
    return found


def _priority(name: bytes, value: bytes) -> int:
    try:
        found = int(value)
    except ValueError:
        found = MAX_PRIORITY + 1
    if abs(found) > MAX_PRIORITY:
        raise _bad(name, value, f"an integer within +-{MAX_PRIORITY}")
    return found


def _bad(name: bytes, value: bytes, wanted: str) -> Refusal:
    shown = value[:40].decode("latin-1")
    return Refusal(400, f"{name.decode()}: {shown!r} is not {wanted}", code="invalid_header")


def passes(name: bytes, wish: Wish) -> bool:
    """A header of ours that goes on to the node."""
    return wish.trusted and (name.startswith(b"x-drift-slo-") or name == b"x-drift-priority")
