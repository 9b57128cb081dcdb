"""The one random number that a token is drawn with.

It depends on the request's seed and the token's index only, so a request that was preempted, moved to another
node or batched differently draws the same tokens.
"""

from __future__ import annotations

_MASK = (1 << 64) - 1
_GOLDEN = 0x9E3779B97F4A7C15


def uniform(seed: int, index: int) -> float:
    """A number in [0, 1) with 24 random bits, exact in float32: splitmix64 (Steele et al., OOPSLA 2014)."""
    z = _mix(_mix(seed & _MASK) + (index + 1) * _GOLDEN)
    return (z >> 40) * 2.0**-24


def _mix(value: int) -> int:
    z = (value + _GOLDEN) & _MASK
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & _MASK
    return z ^ (z >> 31)
