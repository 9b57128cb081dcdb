"""What the router itself sees of one node's speed and honesty: a few floats, each refined in constant time.

It is all that is known of servers that send no reports, and stands in where a report is old.
"""

from __future__ import annotations

from collections import deque

from drift_router.policies import fading

PREFILL_GAIN = 0.1
"""Weight of a request's prefill rate: some ten requests, a second or so of a busy node, and splits change no quicker.
Estimate."""

FEW_TOKENS = 128
"""A prefill of so few takes a few milliseconds on any device, little beside the rest of their TTFT. Estimate."""

LEAST_TOKENS = 256
"""A prefill that takes long enough to tell a rate from."""

FALL_GAIN = 0.3
RISE_GAIN = 0.02
"""With which the fixed time follows quicker and slower requests: it is near the quickest ones, and queues only seldom
raise it. Estimate."""

LEAST_GAIN = 0.02
"""With which the least rate follows answers that took longer: most of them are long themselves. Estimate."""

LEAST_COMPUTED_SHARE = 0.1
"""Of a TTFT that is prefill at least, where the fixed time would leave less. Estimate."""

TAIL = 0.99
TAIL_GAIN = 0.05
"""A slower gap raises the estimate by this, so it doubles within 15 of them and halves within 1,400 quicker ones: a
second of a busy node. Estimate."""

LEAST_GAP_S = 1e-4
"""No model draws tokens quicker; tokens of one write have no gap between them."""

TRUST_GAIN = 0.1
"""Weight of an answer: a node that lost its cache is found out within ten, one evicted prompt does not matter.
Estimate."""

SLOPE_GAIN = 0.02
"""Weight of a report: ten seconds of them. Estimate."""

ARRIVAL_S = 0.05
"""From a router to a node's planner and into its report: mostly the step at work there, of 25 ms where the promise is
kept tightly. Estimate."""

LEAST_SPREAD = 1.0
"""Variance of the number of requests from which on a slope over it means something."""


class Prefill:
    """How quickly the node computes prompts, and what a first token takes besides."""

    __slots__ = ("fixed_s", "least_tokens_per_s", "tokens_per_s")

    def __init__(self) -> None:
        self.tokens_per_s = 0.0
        self.least_tokens_per_s = 0.0
        """From answers that came whole: the rate is at least so much, for the answer itself took time too."""
        self.fixed_s = 0.0

    def answered(self, tokens: int, answer_s: float) -> None:
        """An answer came as a whole."""
        if answer_s > 0 and tokens >= LEAST_TOKENS:
            rate = tokens / answer_s
            if rate > self.least_tokens_per_s:
                self.least_tokens_per_s = rate
            else:
                self.least_tokens_per_s += LEAST_GAIN * (rate - self.least_tokens_per_s)

    def observe(self, tokens: int, ttft_s: float) -> None:
        """The first token came after `ttft_s`; `tokens` were computed for it, those before it in line included."""
        if ttft_s <= 0:
            return
        if tokens <= FEW_TOKENS:
            if self.fixed_s == 0.0:
                self.fixed_s = ttft_s
            gain = FALL_GAIN if ttft_s < self.fixed_s else RISE_GAIN
            self.fixed_s += gain * (ttft_s - self.fixed_s)
        elif ttft_s < self.fixed_s:
            self.fixed_s = ttft_s
        if tokens >= LEAST_TOKENS:
            rate = tokens / max(ttft_s - self.fixed_s, LEAST_COMPUTED_SHARE * ttft_s)
            gain = PREFILL_GAIN if self.tokens_per_s else 1.0
            self.tokens_per_s += gain * (rate - self.tokens_per_s)


class Tail:
    """A high quantile of a stream of times, without keeping them: up by much when one is above it, down by little
    when it is not, in the proportion that balances at the quantile.
    """

    __slots__ = ("value_s",)

    def __init__(self) -> None:
        self.value_s = 0.0

    def observe(self, seconds: float) -> None:
        if seconds > self.value_s:
            self.value_s = self.value_s * (1 + TAIL_GAIN) if self.value_s else max(seconds, LEAST_GAP_S)
        else:
            self.value_s = max(LEAST_GAP_S, self.value_s * (1 - TAIL_GAIN * (1 - TAIL) / TAIL))


class Slope:
    """What one more of x adds to y: a line through recent pairs, the older the less they count."""

    __slots__ = ("_covariance", "_mean_x", "_mean_y", "_seen", "_variance")

    def __init__(self) -> None:
        self._seen = False
        self._mean_x = 0.0
        self._mean_y = 0.0
        self._variance = 0.0
        self._covariance = 0.0

    def observe(self, x: float, y: float) -> None:
        if not self._seen:
            self._seen, self._mean_x, self._mean_y = True, x, y
            return
        dx = x - self._mean_x
        self._mean_x += SLOPE_GAIN * dx
        self._mean_y += SLOPE_GAIN * (y - self._mean_y)
        self._variance += SLOPE_GAIN * (dx * (x - self._mean_x) - self._variance)
        self._covariance += SLOPE_GAIN * (dx * (y - self._mean_y) - self._covariance)

    @property
    def value(self) -> float:
        """Never negative; 0 as long as x hardly varied."""
        if self._variance < LEAST_SPREAD:
            return 0.0
        return max(0.0, self._covariance / self._variance)


class Unseen:
    """Tokens of requests that wait and that the node's last report can't count yet: they were sent after it, or so
    shortly before that they were on their way."""

    __slots__ = ("_sent", "tokens")

    def __init__(self) -> None:
        self.tokens = 0
        self._sent: deque[Sent] = deque()

    def sent(self, tokens: int, now_s: float, kept_s: float) -> Sent:
        """Without a report it is kept for `kept_s`, after which the last one counts no more."""
        self._forget(now_s - kept_s)
        one = Sent(tokens, now_s)
        self.tokens += tokens
        self._sent.append(one)
        return one

    def reported(self, now_s: float) -> None:
        self._forget(now_s - ARRIVAL_S)

    def seen(self, one: Sent) -> None:
        """It waits no more, or the node has told of it."""
        self.tokens -= one.tokens
        one.tokens = 0

    def _forget(self, until_s: float) -> None:
        while self._sent and self._sent[0].at_s <= until_s:
            self.seen(self._sent.popleft())


class Sent:
    """One request's tokens, as long as they are unseen."""

    __slots__ = ("at_s", "tokens")

    def __init__(self, tokens: int, at_s: float) -> None:
        self.tokens = tokens
        self.at_s = at_s


class Assigned:
    """Tokens that were sent to the node lately (`fading`)."""

    __slots__ = ("_at_s", "_tokens")

    def __init__(self) -> None:
        self._tokens = 0.0
        self._at_s = 0.0

    def add(self, tokens: int, now_s: float) -> None:
        self._tokens = self.at(now_s) + tokens
        self._at_s = max(now_s, self._at_s)

    def at(self, now_s: float) -> float:
        return fading.faded(self._tokens, now_s - self._at_s)
