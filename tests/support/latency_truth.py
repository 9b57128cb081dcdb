"""A device whose passes take exactly what the latency model's formulas say: of the size of an 8B model on 132 SMs."""

from __future__ import annotations

from drift_engine.latency.costs import (
    Costs,
    DecodeCost,
    PrefillCost,
    decode_features,
    prefill_features,
)
from drift_engine.latency.loads import Load

SMS = [16, 32, 64, 132]


def truth(sms: int) -> Costs:
    """Arithmetic goes with the SMs, memory is saturated by 48 of them."""
    compute, memory = 132 / sms, max(1.0, 48 / sms)
    return Costs(
        PrefillCost(1e-9 * compute, 2e-9 * compute, 3e-5 * compute, 5e-3 * memory, 1e-3 * memory),
        DecodeCost(3e-8 * memory, 3e-5 * compute, 5e-3 * memory),
    )


def seconds(load: Load, sms: int) -> float:
    costs = truth(sms)
    decode = [c * f for c, f in zip(costs.decode.coefficients, decode_features(load), strict=True)]
    if not load.prefill_rows:
        return sum(decode)
    prefill_s = sum(c * f for c, f in zip(costs.prefill.coefficients, prefill_features(load), strict=True))
    return prefill_s + decode[0] + decode[1]


def prefill_loads() -> list[Load]:
    return [Load.prefill([(new, reused)]) for new in (64, 256, 1024, 4096) for reused in (0, 2048, 16_384)]


def decode_loads() -> list[Load]:
    return [Load.decode(rows, rows * context) for rows in (1, 8, 64) for context in (128, 2048, 16_384)]


def fused_loads() -> list[Load]:
    """Long enough that the decode rows hide behind none of them."""
    return [
        Load.prefill([(new, reused)]) + Load.decode(rows, rows * 1024)
        for new in (256, 512, 2048)
        for reused in (0, 4096)
        for rows in (4, 32)
    ]
