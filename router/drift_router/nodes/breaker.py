"""A node's circuit breaker: whether the last requests say that the next one would fail as well.

CLOSED lets everything through. Failures in a row, a share of failures, or one refused connection make it OPEN:
nothing goes. After a time, which doubles with every failed trial, it is HALF_OPEN: one request at a time is a
trial. Trials that get their first byte close it again.

Requests that were sent before it opened say nothing new when they end, so only trials count then. So do those that
are sent in spite of it, where there is no other node (`registry.Registry.snapshot`). A node that restarted gets a
new breaker.
"""

from __future__ import annotations

import enum
import math


class Failure(enum.StrEnum):
    """How a node failed a request."""

    CONNECT = "connect"  # no connection came about
    RESET = "reset"  # it closed the connection before the first byte
    BROKEN = "broken"  # in the middle of an answer
    TIMEOUT = "timeout"  # it said nothing for too long
    GARBAGE = "garbage"  # what it said is not HTTP
    SERVER_ERROR = "server-error"  # 5xx
    DRAINING = "draining"  # 503 because it stops: no fault, it only takes nothing new


class Circuit(enum.StrEnum):
    CLOSED = "closed"
    HALF_OPEN = "half-open"
    OPEN = "open"


FAILURES_IN_ROW = 3
"""That open it. Others take 10, which at a token stream's rate of requests is half a minute of lost ones. Where one
in a hundred fails by chance, three in a row happen once in a million requests. Estimate."""

FAILED_SHARE = 0.5
"""Of the outcomes in the window. A node that begins every answer and breaks it off gives one of each. Estimate."""

WINDOW_S = 10.0
"""Time constant with which outcomes fade: some answers long, short beside the 60 to 120 s that others take.
Estimate."""

LEAST_FAILURES = 5.0
"""In the window, before their share says anything. Estimate."""

FIRST_OPEN_S = 1.0
"""About what a process needs to be restarted, less its model: a shorter one only wastes trials. Estimate."""

LONGEST_OPEN_S = 30.0
"""So that a node that came back is noticed within half a minute; the reports notice a restart sooner. Estimate."""

JITTER = 0.2
"""Largest share by which a time is longer, so that several routers do not try at once."""

SUCCESSES_TO_CLOSE = 2
"""Trials. Others take 3 at any rate; these go one after the other, so each costs one more TTFT. Estimate."""


class Breaker:
    """Times are `now_s`; `jitter` is drawn by the caller, 0 to 1."""

    __slots__ = (
        "_faded_s",
        "_failed",
        "_in_row",
        "_level",
        "_open",
        "_outcomes",
        "_settled",
        "_successes",
        "_trial",
        "_trials",
        "_until_s",
    )

    def __init__(self) -> None:
        self._open = False
        self._until_s = -math.inf
        self._level = 0  # how often it opened without staying closed for long
        self._in_row = 0
        self._outcomes = 0.0  # these two fade
        self._failed = 0.0
        self._faded_s = 0.0
        self._successes = 0
        self._trial = 0  # the number of the one on its way; 0: none
        self._trials = 0
        self._settled = 0  # trials up to this number were before it opened last

    def state(self, now_s: float) -> Circuit:
        if not self._open:
            return Circuit.CLOSED
        return Circuit.OPEN if now_s < self._until_s else Circuit.HALF_OPEN

    def admits(self, now_s: float) -> bool:
        """Whether a request may go now."""
        return not self._open or (not self._trial and now_s >= self._until_s)

    def begin(self) -> int:
        """A request that was admitted goes. Its number as a trial; 0: it is none."""
        if not self._open:
            return 0
        self._trials += 1
        self._trial = self._trials
        return self._trial

    def succeeded(self, trial: int, now_s: float) -> None:
        """The first byte of an answer; a failure may still follow."""
        if self._open:
            if trial and trial == self._trial:
                self._trial = 0
                self._successes += 1
                if self._successes >= SUCCESSES_TO_CLOSE:
                    self._close(now_s)
            return
        self._in_row = 0
        self._fade(now_s)
        self._outcomes += 1

    def failed(self, trial: int, failure: Failure, now_s: float, jitter: float) -> None:
        if failure is Failure.DRAINING:
            self.abandoned(trial)
            return
        if self._open:
            if trial > self._settled:
                self._trip(now_s, jitter)
            return
        self._in_row += 1
        self._fade(now_s)
        self._outcomes += 1
        self._failed += 1
        if (
            failure is Failure.CONNECT  # nobody listens: the next one would be refused as well
            or self._in_row >= FAILURES_IN_ROW
            or (self._failed >= LEAST_FAILURES and self._failed >= FAILED_SHARE * self._outcomes)
        ):
            if now_s - self._until_s > LONGEST_OPEN_S:
                self._level = 0
            self._trip(now_s, jitter)

    def abandoned(self, trial: int) -> None:
        """A request ended without saying anything about the node: its client went."""
        if trial and trial == self._trial:
            self._trial = 0

    def _trip(self, now_s: float, jitter: float) -> None:
        open_s = min(LONGEST_OPEN_S, FIRST_OPEN_S * 2.0 ** min(self._level, 30))
        self._open, self._until_s = True, now_s + open_s * (1 + JITTER * jitter)
        self._level += 1
        self._trial = self._successes = 0
        self._settled = self._trials

    def _close(self, now_s: float) -> None:
        self._open, self._until_s = False, now_s
        self._in_row = 0
        self._outcomes = self._failed = 0.0
        self._faded_s = now_s

    def _fade(self, now_s: float) -> None:
        keep = math.exp(-max(0.0, now_s - self._faded_s) / WINDOW_S)
        self._outcomes *= keep
        self._failed *= keep
        self._faded_s = max(now_s, self._faded_s)
