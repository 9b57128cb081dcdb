"""Figures as people read them: what is unknown is a dash, never a zero."""

from __future__ import annotations

import math

UNKNOWN = "-"

_UNITS = ((86400.0, "d"), (3600.0, "h"), (60.0, "min"))


def share(value: float | None) -> str:
    """0.9949 -> 99.49 %. Rounded down: a promise of 99 % that was missed by a hair must not look kept."""
    if value is None:
        return UNKNOWN
    hundredths = math.floor(value * 10_000 + 1e-6)
    return f"{hundredths / 100:g} %"


def milliseconds(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3g} ms" if value < 1000 else f"{value:.0f} ms"


def number(value: float | None) -> str:
    return UNKNOWN if value is None else f"{value:.3g}" if abs(value) < 1000 else f"{value:.0f}"


def span(seconds: float) -> str:
    """One unit is enough: 45 s, 3 min, 2 h, 5 d."""
    for unit_s, name in _UNITS:
        if seconds >= unit_s:
            return f"{seconds / unit_s:.0f} {name}"
    return f"{seconds:.0f} s"
