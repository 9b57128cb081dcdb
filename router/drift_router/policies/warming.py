"""Slow start: how warm a node is that was just added.

It has no cache, and neither compiled kernels nor a measured rate; all routers that see it idle would send it all they
have. `Node.warmth` divides its rate and scales its share of what is spread, so that it is used from its first second
and drowned in none.
"""

from __future__ import annotations

RAMP_S = 30.0
"""Estimate: a node learns its rate within its first prompts, and its first caches fill in about this time."""

FLOOR = 0.1
"""At once: a node that nothing is sent to never warms. The floor of Envoy's slow start."""


def warmth(age_s: float) -> float:
    """FLOOR for a node of age 0, rising evenly to 1 at RAMP_S."""
    return min(1.0, FLOOR + (1.0 - FLOOR) * max(0.0, age_s) / RAMP_S)
