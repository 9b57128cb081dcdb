"""Arrivals on a core in this process, in real time, as a token-time log."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field

from benchmarks.engine.local_core import LocalCore

from drift_engine.bench.records import RequestRecord
from drift_engine.bench.traces import Arrival
from drift_engine.simulation import prompts


@dataclass(slots=True)
class _Open:
    arrival: Arrival
    prompt_tokens: int
    times_s: list[float] = field(default_factory=list)
    cached_tokens: int = 0


def replay(
    core: LocalCore, arrivals: Sequence[Arrival], *, vocabulary: int, timeout_s: float = 600.0
) -> list[RequestRecord]:
    """Every request as the core answered it. Raises TimeoutError."""
    start_s = time.monotonic()
    waiting = list(reversed(arrivals))
    open_requests: dict[str, _Open] = {}
    records: list[RequestRecord] = []
    while waiting or open_requests:
        now_s = time.monotonic() - start_s
        if now_s > timeout_s:
            raise TimeoutError(f"{len(open_requests)} requests were not answered within {timeout_s:g} s")
        while waiting and waiting[-1].at_s <= now_s:
            arrival = waiting.pop()
            ids = [token_id % vocabulary for token_id in prompts.token_ids(arrival)]
            name = core.submit(ids, prompts.output_tokens(arrival), start_s + arrival.at_s)
            open_requests[name] = _Open(arrival, len(ids))
        if not open_requests:
            time.sleep(min(0.01, max(0.0, waiting[-1].at_s - now_s)))
            continue
        outputs = core.step()
        now_s = time.monotonic() - start_s
        for output in outputs:
            request = open_requests[output.request_id]
            request.times_s.append(now_s - request.arrival.at_s)
            request.cached_tokens = request.cached_tokens or output.cached_tokens
            if output.finish is not None:
                records.append(_record(open_requests.pop(output.request_id)))
    return records


def _record(request: _Open) -> RequestRecord:
    arrival = request.arrival
    return RequestRecord(
        index=arrival.index,
        scheduled_s=arrival.at_s,
        due_s=arrival.at_s,
        token_times_s=tuple(request.times_s),
        token_counts=(1,) * len(request.times_s),
        end_s=request.times_s[-1],
        status="ok",
        prompt_tokens=request.prompt_tokens,
        cached_tokens=request.cached_tokens,
        output_tokens=len(request.times_s),
        asked_prompt_tokens=request.prompt_tokens,
        asked_output_tokens=arrival.output_tokens,
        exact_counts=True,
        forced_length=True,
    )
