"""In which order waiting requests are served: who has to start soonest, before whom it is too late for.

By laxity, the time that is left until a request must start to make its TTFT target. A request that cannot make it any
more steps behind those that can, for a bounded time: from AGED_TARGETS of its targets on it goes before all of them.
"""

from __future__ import annotations

AGED_TARGETS = 4.0
"""A wait of so many TTFT targets ends every demotion. With the default of 400 ms: 1.6 s. Estimate."""

_AGED, _TIMELY, _LATE = 0, 1, 2

Urgency = tuple[int, int, float, float]


def urgency(
    *,
    priority: int,
    arrival_s: float,
    deadline_s: float,
    prefill_s: float,
    now_s: float,
) -> Urgency:
    """A sort key, first to be served first: higher priorities, then as said above; equals in order of arrival."""
    if now_s - arrival_s >= AGED_TARGETS * (deadline_s - arrival_s):
        return -priority, _AGED, arrival_s, arrival_s
    latest_start_s = deadline_s - prefill_s
    if latest_start_s >= now_s:
        return -priority, _TIMELY, latest_start_s, arrival_s
    return -priority, _LATE, arrival_s, arrival_s
