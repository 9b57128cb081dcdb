"""The open loop: every request goes out at its time, whatever became of the others, and every one is recorded.

Between `preparing` and `records`. The one closed part: a turn of a session waits for the end of the turn before, as
its user would. Free of network code; `streaming.Sender` is the `Send` of a real run.
"""

from __future__ import annotations

import asyncio
import collections
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

import msgspec

from drift_engine.bench.answers import Answer
from drift_engine.bench.preparing import Planned
from drift_engine.bench.records import RequestRecord
from drift_engine.bench.traces import Arrival

AHEAD_BYTES = 128 * 1024 * 1024
"""Bodies written before they are due: 300 s of the Mooncake conversation trace at full length are 50 MB."""


class Clock(Protocol):
    def now_s(self) -> float: ...

    async def sleep_until(self, time_s: float) -> None: ...


class WallClock:
    """The machine's monotonic clock, as nodes have it: what both saw can be laid side by side."""

    def now_s(self) -> float:
        return time.monotonic()

    async def sleep_until(self, time_s: float) -> None:
        await asyncio.sleep(max(0.0, time_s - self.now_s()))


class Attempt:
    """What `Send` fills in, in the clock's own time. It failed if there is a reason."""

    def __init__(self) -> None:
        self.sent_s: float | None = None
        self.first_byte_s: float | None = None
        self.answer = Answer()
        self.reason = ""


Send = Callable[[bytes, Attempt], Awaitable[None]]
"""Must end by itself: it owns the request's deadline."""


class _Turn:
    """The end of a request, for the session's next turn."""

    def __init__(self) -> None:
        self.ended = asyncio.Event()
        self.ended_s = 0.0


async def replay(
    planned: Sequence[Planned],
    write: Callable[[Arrival], bytes],
    send: Send,
    *,
    clock: Clock,
    forced_length: bool,
    on_start: Callable[[float], None] = lambda start_s: None,
    on_end: Callable[[RequestRecord], None],
) -> None:
    """Sends all requests and hands each one's record to `on_end`, in the order in which they end. `on_start` hears by
    the clock when the first one could be due.

    Cancelling it records those in flight as failed with the reason "interrupted"; those not yet due leave no record.
    """
    bodies = _Bodies(planned, write)
    last_turns: dict[str, _Turn] = {}
    start_s = clock.now_s()
    on_start(start_s)

    async def one(request: Planned, body: bytes, previous: _Turn | None, turn: _Turn) -> None:
        due_s = start_s + request.arrival.at_s
        if previous is not None:
            await previous.ended.wait()
            due_s = max(due_s, previous.ended_s)
        attempt = Attempt()
        lag_s = clock.now_s() - due_s
        try:
            await send(body, attempt)
        except asyncio.CancelledError:
            attempt.reason = "interrupted"
            raise
        finally:
            turn.ended_s = clock.now_s()
            turn.ended.set()
            on_end(_record(request, attempt, start_s, due_s, lag_s, turn.ended_s, forced_length))

    async with asyncio.TaskGroup() as tasks:
        while (next_up := bodies.take()) is not None:
            request, body = next_up
            await clock.sleep_until(start_s + request.arrival.at_s)
            turn, session = _Turn(), request.arrival.session
            previous = None if session is None else last_turns.get(session)
            if session is not None:
                last_turns[session] = turn
            tasks.create_task(one(request, body, previous, turn))


class _Bodies:
    """Bodies in order, written ahead up to AHEAD_BYTES so that writing does not delay sending."""

    def __init__(self, planned: Sequence[Planned], write: Callable[[Arrival], bytes]) -> None:
        self._rest = iter(planned)
        self._write = write
        self._ahead: collections.deque[tuple[Planned, bytes]] = collections.deque()
        self._bytes = 0
        self._fill()

    def take(self) -> tuple[Planned, bytes] | None:
        if not self._ahead:
            return None
        taken = self._ahead.popleft()
        self._bytes -= len(taken[1])
        self._fill()
        return taken

    def _fill(self) -> None:
        # At least one, however long it is.
        while self._bytes < AHEAD_BYTES and (request := next(self._rest, None)) is not None:
            body = self._write(request.arrival)
            self._ahead.append((request, body))
            self._bytes += len(body)


def _record(
    request: Planned,
    attempt: Attempt,
    start_s: float,
    due_s: float,
    lag_s: float,
    end_s: float,
    forced_length: bool,
) -> RequestRecord:
    def after_due(time_s: float | None) -> float | None:
        return None if time_s is None else round(time_s - due_s, 6)

    answer, arrival = attempt.answer, request.arrival
    return RequestRecord(
        index=arrival.index,
        scheduled_s=round(arrival.at_s, 6),
        due_s=round(due_s - start_s, 6),
        lag_s=round(max(0.0, lag_s), 6),
        sent_s=after_due(attempt.sent_s),
        first_byte_s=after_due(attempt.first_byte_s),
        token_times_s=tuple(round(time_s - due_s, 6) for time_s in answer.token_times_s),
        token_counts=tuple(answer.token_counts),
        end_s=round(end_s - due_s, 6),
        status="failed" if attempt.reason else "ok",
        reason=attempt.reason,
        finish_reason=answer.finish_reason,
        asked_prompt_tokens=arrival.prompt_tokens,
        asked_output_tokens=arrival.output_tokens,
        prompt_tokens=answer.prompt_tokens,
        cached_tokens=answer.cached_tokens,
        output_tokens=answer.output_tokens,
        exact_counts=answer.exact_counts,
        forced_length=forced_length,
        clipped_prompt=request.clipped_prompt,
        clipped_output=request.clipped_output,
        session=arrival.session,
    )


class LoopLag(msgspec.Struct):
    """Samples of how late the event loop runs what is due: so late may a token's arrival be noticed."""

    period_s: float = 0.02
    samples_s: list[float] = []

    async def watch(self) -> None:
        """Until cancelled. One sample per period, so 180,000 in an hour."""
        while True:
            before_s = time.perf_counter()
            await asyncio.sleep(self.period_s)
            self.samples_s.append(max(0.0, time.perf_counter() - before_s - self.period_s))
