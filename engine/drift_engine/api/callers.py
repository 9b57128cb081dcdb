"""Whose request it is and what the caller may ask for beside it: made by the gate, kept on the request's state.

Headers that begin with `x-drift-` count only from a router that shows the control token; others' are ignored. Clients
with different API keys get different salts, so that they do not share cached prefixes.
"""

from __future__ import annotations

import dataclasses
import hashlib

from starlette.datastructures import Headers
from starlette.requests import Request

from drift_engine.api.admission import Ticket
from drift_engine.api.request_traces import RequestTrace


@dataclasses.dataclass(frozen=True)
class Caller:
    ticket: Ticket
    arrival_s: float
    salt: str
    trusted: bool
    resumable: bool
    """Wants to be able to go on elsewhere with a stream that breaks: its tokens and its seed come with it."""
    wants_pages: bool
    """Wants to know which KV pages the prompt has."""
    trace: RequestTrace | None
    """None: nobody wants to know where the request spends its time."""


def of(
    ticket: Ticket,
    arrival_s: float,
    key_digest: str,
    headers: Headers,
    *,
    trusted: bool,
    trace: RequestTrace | None = None,
) -> Caller:
    wanted = headers.get("x-drift-want", "").split(",") if trusted else []
    return Caller(
        ticket,
        arrival_s,
        salt(key_digest, headers.get("x-drift-tenant", "") if trusted else ""),
        trusted,
        resumable=trusted and headers.get("x-drift-resumable") == "1",
        wants_pages="pages" in [word.strip() for word in wanted],
        trace=trace,
    )


def caller(request: Request) -> Caller:
    found = request.scope["state"]["caller"]
    assert isinstance(found, Caller)
    return found


def salt(key_digest: str, tenant: str) -> str:
    """Short and not invertible: it reaches cache keys and events."""
    if not key_digest and not tenant:
        return ""
    return hashlib.sha256(f"{key_digest}/{tenant}".encode()).hexdigest()[:16]
