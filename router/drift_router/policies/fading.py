"""How long work that was sent to a node speaks against sending it more: `Node.assigned_tokens`."""

from __future__ import annotations

import math

HALF_LIFE_S = 60.0
"""Long beside the gaps between requests, so that a node's share shows; short beside the life of a node, so that one
that was away is not drowned to catch up. `benchmarks/router/quality.py`: 240 s does as well, and so does 15 s with
thousands of requests, not with the 178 of the agent sessions."""


def faded(tokens: float, elapsed_s: float) -> float:
    """What is left of `tokens` after `elapsed_s`; a clock that went back fades nothing."""
    return tokens * math.exp2(-max(0.0, elapsed_s) / HALF_LIFE_S)
