"""How much one API key may ask in a minute: token buckets, pure over time."""

from __future__ import annotations

from drift_router.keys import Key

BURST_S = 10.0
"""What may be asked at once after a pause: this much of the limit's rate. Interactive clients come in bursts of some
seconds, and a whole minute's worth at once would be felt by everybody. Estimate."""

_ROUNDING = 1e-6


class Bucket:
    """Fills with `per_minute`, up to ten seconds' worth and at least one. `settle` may overdraw it."""

    __slots__ = ("_at_s", "_level", "_per_s", "_size")

    def __init__(self, per_minute: float, now_s: float) -> None:
        self._per_s = per_minute / 60
        self._size = max(1.0, self._per_s * BURST_S)
        self._level = self._size
        self._at_s = now_s

    def wait_s(self, cost: float, now_s: float) -> float:
        """Until `cost` may be taken; 0: now. A cost above the bucket's size is let through when it is full: it will
        be overdrawn, so a limit bounds the rate, not the size of one request.
        """
        self._fill(now_s)
        missing = min(cost, self._size) - self._level
        return missing / self._per_s if missing > _ROUNDING else 0.0

    def take(self, cost: float, now_s: float) -> float:
        """Takes it and returns 0, or takes nothing and says when to come again, in seconds."""
        wait_s = self.wait_s(cost, now_s)
        if wait_s == 0.0:
            self._level -= cost
        return wait_s

    def settle(self, more: float, now_s: float) -> None:
        """What a request cost beyond what was taken for it; negative: less."""
        self._fill(now_s)
        self._level = min(self._size, self._level - more)

    def _fill(self, now_s: float) -> None:
        if now_s > self._at_s:
            self._level = min(self._size, self._level + (now_s - self._at_s) * self._per_s)
            self._at_s = now_s


class Limits:
    """The buckets of all keys, made when they are first used. A key whose limits changed starts with full ones."""

    def __init__(self, share: float = 1.0) -> None:
        """`share` of each limit is this process's: workers do not share buckets."""
        self._share = share
        self._buckets: dict[str, tuple[Key, Bucket | None, Bucket | None]] = {}

    def take(self, key: Key, prompt_tokens: int, now_s: float) -> float:
        """One request with so many tokens, as far as they are known. 0, or seconds until it may come again."""
        requests, tokens = self._of(key, now_s)
        wait_s = max(
            requests.wait_s(1, now_s) if requests is not None else 0.0,
            tokens.wait_s(prompt_tokens, now_s) if tokens is not None else 0.0,
        )
        if wait_s == 0.0:
            if requests is not None:
                requests.take(1, now_s)
            if tokens is not None:
                tokens.take(prompt_tokens, now_s)
        return wait_s

    def settle(self, key: Key, taken_tokens: int, used_tokens: int, now_s: float) -> None:
        """The answer said what the request really used."""
        _, tokens = self._of(key, now_s)
        if tokens is not None:
            tokens.settle(used_tokens - taken_tokens, now_s)

    def keep(self, names: set[str]) -> None:
        """Forgets the buckets of keys that are no more."""
        for name in self._buckets.keys() - names:
            del self._buckets[name]

    def _of(self, key: Key, now_s: float) -> tuple[Bucket | None, Bucket | None]:
        found = self._buckets.get(key.name)
        if found is None or (found[0] is not key and _limits(found[0]) != _limits(key)):
            requests, tokens = (
                Bucket(limit * self._share, now_s) if limit is not None else None for limit in _limits(key)
            )
            found = self._buckets[key.name] = key, requests, tokens
        return found[1], found[2]


def _limits(key: Key) -> tuple[float | None, float | None]:
    return key.requests_per_minute, key.tokens_per_minute
