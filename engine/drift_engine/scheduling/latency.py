"""Predicting how long a pass takes.

`LatencyModel` is what planners ask. `MeasuredRates` answers from the passes that this node has run: a running
least-squares line per kind of pass, which is enough to size a chunk; it knows no SM counts.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Protocol


class LatencyModel(Protocol):
    """Predicted seconds of a pass on a lane of `lane_sms` SMs (None: the whole device)."""

    def prefill_s(self, new_tokens: int, reused_tokens: int, lane_sms: int | None = None) -> float | None:
        """One prefill pass; None: not known yet."""

    def decode_s(self, batch: int, context_tokens: int, lane_sms: int | None = None) -> float | None:
        """One decode pass over `batch` requests with `context_tokens` in all; None: not known yet."""


@dataclass(slots=True)
class _Line:
    """y = intercept + slope * x, by exponentially weighted least squares; both kept non-negative."""

    forgetting: float
    weight: float = 0.0
    mean_x: float = 0.0
    mean_y: float = 0.0
    var_x: float = 0.0
    cov_xy: float = 0.0

    def observe(self, x: float, y: float) -> None:
        self.weight = self.weight * self.forgetting + 1.0
        step = 1.0 / self.weight
        dx, dy = x - self.mean_x, y - self.mean_y
        self.mean_x += step * dx
        self.mean_y += step * dy
        self.var_x = (1 - step) * (self.var_x + step * dx * dx)
        self.cov_xy = (1 - step) * (self.cov_xy + step * dx * dy)

    def predict(self, x: float) -> float | None:
        if not self.weight:
            return None
        if self.var_x <= 0:  # one size only: more costs in proportion, less is not known to cost less
            return self.mean_y * max(1.0, x / self.mean_x)
        slope = max(0.0, self.cov_xy / self.var_x)
        intercept = self.mean_y - slope * self.mean_x
        if intercept < 0:
            slope, intercept = self.mean_y / self.mean_x, 0.0
        return intercept + slope * x


@dataclass(slots=True)
class MeasuredRates:
    """A LatencyModel from observed passes, forgetting with a half-life of about 70 passes (0.99 each)."""

    _prefill: _Line = field(default_factory=lambda: _Line(0.99))
    _decode: _Line = field(default_factory=lambda: _Line(0.99))

    def observe(self, *, prefill_tokens: int, decode_rows: int, seconds: float) -> None:
        """A finished pass. In a fused pass the decode rows' predicted share is taken off the prefill."""
        if prefill_tokens:
            decode_s = self.decode_s(decode_rows, 0) if decode_rows else 0.0
            self._prefill.observe(prefill_tokens, max(seconds - (decode_s or 0.0), 0.1 * seconds))
        elif decode_rows:
            self._decode.observe(decode_rows, seconds)

    def prefill_s(self, new_tokens: int, reused_tokens: int, lane_sms: int | None = None) -> float | None:
        return self._prefill.predict(new_tokens)

    def decode_s(self, batch: int, context_tokens: int, lane_sms: int | None = None) -> float | None:
        return self._decode.predict(batch)

    def prefill_tokens_per_s(self, chunk_tokens: int = 512) -> float:
        """Rate over a chunk of `chunk_tokens`; 0 before the first prefill."""
        seconds = self.prefill_s(chunk_tokens, 0)
        return chunk_tokens / seconds if seconds else 0.0
