"""The planner's picture of a moment, from the requests, the cache and the lanes. Asked for at every decision: what
did not change since the last one is not made again."""

from __future__ import annotations

from collections.abc import Set as AbstractSet

from drift_engine.cache import KvCache
from drift_engine.core.queues import Queues
from drift_engine.scheduling import overtaking, pressure, views


def take(
    queues: Queues,
    cache: KvCache,
    limits: views.Limits,
    lanes: views.Lanes,
    working: AbstractSet[str],
    tokens_per_s: float | None,
    now_s: float,
    *,
    pressed: bool = False,
    table: views.Table = (),
) -> views.State:
    """`working` are the requests that lanes work on. `tokens_per_s` is the rate of a prefill, by which the line is
    ordered; None: by arrival. `pressed` is what the last picture was."""

    places = limits.max_running - len(queues.running)
    waiting: tuple[views.Waiting, ...] = ()
    computing: tuple[tuple[int, ...], ...] = ()
    if places > 0 and queues.waiting:
        computing = tuple([r.marks for r in queues.running.values() if r.computed + 1 < len(r.tokens)])
        available = cache.pages_free + cache.pages_evictable
        waiting = tuple(
            queues.candidates(
                queues.line(tokens_per_s, now_s),
                overtaking.OVERTAKERS if computing else 1,
                1 if lanes.cuts else places,  # may interrupt the prefill that is cut
                limits.max_step_tokens,
                available,
                cache,
            )
        )
    memory = views.Memory(cache.page_tokens, cache.pages_total, cache.pages_free, cache.pages_evictable)
    running = queues.running
    return views.State(
        waiting,
        tuple([request.running_view() for name, request in running.items() if name not in working]),
        memory,
        limits,
        lanes,
        len(working),
        computing,
        pressure.turned(memory, len(running), limits.max_running, pressed),
        table,
    )
