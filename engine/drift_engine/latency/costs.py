"""What a pass costs on a lane of one size: the two linear formulas of the latency model.

    T_prefill = a * sum(n^2) + b * sum(n * r) + c * sum(n) + d        n new, r reused tokens of a prefill row
    T_decode  = a * sum(context) + b * rows + c

after MuxWise, arXiv 2504.14489 v3, section 3.3. A fused pass reads the weights once: it is a prefill with a constant
of its own (d + `per_fused_pass_s`) plus decode's a and b, without decode's c. All coefficients are in seconds, not
negative, and do not grow with the size of the lane.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from drift_engine.latency.loads import Load

Coefficients = tuple[float, ...]
"""Of one formula, in the order of its cost's fields."""

Features = tuple[float, ...]
"""What the coefficients are multiplied with, in the same order."""


class PrefillCost(msgspec.Struct, frozen=True, gc=False):
    per_new_squared_s: float
    per_new_times_reused_s: float
    per_new_token_s: float
    per_pass_s: float
    per_fused_pass_s: float = 0.0  # on top of `per_pass_s` when decode rows share the pass

    @property
    def coefficients(self) -> Coefficients:
        return msgspec.structs.astuple(self)


class DecodeCost(msgspec.Struct, frozen=True, gc=False):
    per_context_token_s: float
    per_row_s: float
    per_pass_s: float

    @property
    def coefficients(self) -> Coefficients:
        return msgspec.structs.astuple(self)


class Costs(msgspec.Struct, frozen=True, gc=False):
    """Both phases on a lane of one size."""

    prefill: PrefillCost
    decode: DecodeCost


Prior = Callable[[int], Costs]
"""Costs by SM count before anything was measured; must not grow with the SM count."""


def prefill_features(load: Load) -> Features:
    fused = 1.0 if load.decode_rows else 0.0
    return (load.new_squared, load.new_times_reused, load.new_tokens, 1.0, fused)


def decode_features(load: Load) -> Features:
    return (load.decode_context_tokens, load.decode_rows, 1.0)


# Loads at which coefficients of different units are compared: a common chunk behind as much context, and a small
# batch with a thousand tokens each. Nothing depends on their exact size.
REFERENCE_PREFILL = prefill_features(Load.prefill([(512, 512)]) + Load.decode(1, 0))
REFERENCE_DECODE = decode_features(Load.decode(8, 8 * 1024))
