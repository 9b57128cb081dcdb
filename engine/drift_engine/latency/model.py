"""How long a pass will take: what planners ask, and what every finished pass improves.

    predicted time of a pass = formula of its load at the lane's SM count        (`pass_s`)
                               x contention factor of what the neighbour does    (`beside_s`)
                               or, alone, x what most passes keep                 (`fused_factor`)

The formulas (`costs`) start from a prior, from a calibration (`fitting`), or from the first
pass (`seeds`). Passes that ran alone refine the formulas (`online`); passes beside a neighbour refine the factors
(`guard`), and the formulas only where no factor could explain them.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from operator import mul
from typing import TYPE_CHECKING

from drift_engine import wire
from drift_engine.latency import costs
from drift_engine.latency.accuracy import Errors, Recent
from drift_engine.latency.costs import Coefficients, Features, Prior
from drift_engine.latency.curves import Curve
from drift_engine.latency.guard import (
    DECODE_FACTOR,
    DECODE_QUANTILE,
    MOST_FACTOR,
    PREFILL_FACTOR,
    PREFILL_QUANTILE,
    Guard,
)
from drift_engine.latency.lateness import Lateness
from drift_engine.latency.loads import Kind, Load
from drift_engine.latency.online import NOISE
from drift_engine.latency.seeds import seed_decode, seed_prefill
from drift_engine.latency.snapshots import Snapshot

if TYPE_CHECKING:  # fitting loads numpy, which nobody needs who only predicts
    from drift_engine.latency.fitting import Fit

LEAST_PREFILL_SHARE = 0.1
"""Of a first fused pass's time that is taken for prefill even where decode's is predicted to fill the pass."""


class LatencyModel:
    """Of one model on one device. SM counts are cores where the device is a CPU; each lane asks with its own."""

    def __init__(self, prior: Prior | None = None) -> None:
        """Without a prior, a pass of each phase must be observed before the phase can be predicted."""

        def prefill_prior(sms: int) -> Coefficients:
            assert prior is not None
            return prior(sms).prefill.coefficients

        def decode_prior(sms: int) -> Coefficients:
            assert prior is not None
            return prior(sms).decode.coefficients

        self._prefill = Curve(costs.REFERENCE_PREFILL, seed_prefill, prefill_prior if prior else None)
        self._decode = Curve(costs.REFERENCE_DECODE, seed_decode, decode_prior if prior else None)
        self._prefill_guard = Guard(PREFILL_QUANTILE, PREFILL_FACTOR)
        self._decode_guard = Guard(DECODE_QUANTILE, DECODE_FACTOR)
        self._errors = {kind: Recent() for kind in Kind}
        self._under = Recent()
        self._fused_lateness = Lateness()

    def pass_s(self, load: Load, sms: int) -> float | None:
        """Seconds of a pass that runs alone on a lane of `sms` SMs; None when nothing is known of such loads.

        Never negative, and neither more work nor fewer SMs ever take less time.
        """
        rows = load.decode_rows
        decode_s = beside_prefill_s = 0.0
        if rows and (decode := self._decode.at(sms)) is not None:
            per_context_token_s, per_row_s, per_pass_s = decode
            beside_prefill_s = per_context_token_s * load.decode_context_tokens + per_row_s * rows
            decode_s = beside_prefill_s + per_pass_s
        elif rows and not load.prefill_rows:
            return None
        if not load.prefill_rows:
            return decode_s
        prefill = self._prefill.at(sms)
        if prefill is None:
            return None
        a, b, c, d, fused = prefill
        prefill_s = a * load.new_squared + b * load.new_times_reused + c * load.new_tokens + d
        if not rows:
            return prefill_s
        return max(prefill_s + fused + beside_prefill_s, decode_s)

    def beside_s(self, load: Load, sms: int, neighbour: Load) -> float | None:
        """Seconds of a pass while another lane works on `neighbour`.

        For passes with decode rows, which must not come late, a bound that 19 of 20 keep; for prefills the usual
        time. None when nothing is known of such loads.
        """
        alone_s = self.pass_s(load, sms)
        if alone_s is None:
            return None
        return alone_s * self._guard(load).factor(load, sms, neighbour)

    @property
    def fused_factor(self) -> float:
        """Of passes of decode rows and prefill that run alone, nearly all take no longer than this times `pass_s`."""
        return self._fused_lateness.factor

    def prefill_tokens_per_s(self, sms: int, chunk_tokens: int = 512) -> float:
        """Rate of prefills that run alone in chunks of `chunk_tokens`; 0 while nothing is known."""
        seconds = self.pass_s(Load(0, 0, chunk_tokens, chunk_tokens * chunk_tokens, 0, 1), sms)
        return chunk_tokens / seconds if seconds else 0.0

    def split_cost(self, decode_sms: int, prefill_sms: int) -> wire.SplitCost | None:
        """The formulas of both phases on lanes of these sizes; None while one of them is not known."""
        prefill, decode = self._prefill.at(prefill_sms), self._decode.at(decode_sms)
        if prefill is None or decode is None:
            return None
        a, b, c, d, _ = prefill
        per_context_token_s, per_row_s, per_pass_s = decode
        return wire.SplitCost(
            decode_sms,
            prefill_sms,
            (a, b, c, d),
            (per_context_token_s, per_row_s, per_pass_s),
            self._decode_guard.usual(decode_sms),
        )

    def observe(self, load: Load, sms: int, seconds: float, neighbour: Load | None, now_s: float) -> None:
        """Learns from a finished pass. `neighbour` is what another lane worked on meanwhile; None: nothing."""
        if seconds <= 0 or not load:  # below the clock's resolution, or no pass at all
            return
        predicted_s = self.pass_s(load, sms)
        if not neighbour:
            if predicted_s is not None:
                self._errors[load.kind].add(abs(predicted_s - seconds) / seconds)
                if predicted_s and load.kind is Kind.FUSED:
                    self._fused_lateness.observe(seconds / predicted_s)
            self._learn(load, sms, seconds)
        elif not predicted_s:
            start_factor = DECODE_FACTOR if load.decode_rows else PREFILL_FACTOR
            self._learn(load, sms, seconds / start_factor)
        else:
            guard = self._guard(load)
            if load.decode_rows:
                bound_s = predicted_s * guard.factor(load, sms, neighbour)
                self._under.add(1.0 if seconds > bound_s else 0.0)
            guard.observe(load, sms, neighbour, seconds / predicted_s, now_s)
            # Alone it would have taken no longer than it did, and not less than the largest factor leaves of that.
            if seconds < (1 - NOISE) * predicted_s:
                self._learn(load, sms, seconds)
            elif seconds > MOST_FACTOR * predicted_s:
                self._learn(load, sms, seconds / MOST_FACTOR)

    def calibrate(self, fit: Fit) -> None:
        """Starts over from a calibration's costs, each phase that it measured."""
        if fit.prefill:
            self._prefill.start({sms: cost.coefficients for sms, cost in fit.prefill.items()})
        if fit.decode:
            self._decode.start({sms: cost.coefficients for sms, cost in fit.decode.items()})

    def calibrate_contention(self, beside: Iterable[tuple[Load, int, float]]) -> None:
        """Where contention starts, from passes (load, SM count, seconds) that ran beside another lane's work.

        The longest counts for decode, the usual one for prefill. Call it after `calibrate`: factors are relative to
        its costs.
        """
        ratios: dict[tuple[bool, int], list[float]] = {}
        for load, sms, seconds in beside:
            if predicted_s := self.pass_s(load, sms):
                ratios.setdefault((load.decode_rows > 0, sms), []).append(seconds / predicted_s)
        self._decode_guard.start({sms: max(found) for (decode, sms), found in ratios.items() if decode})
        self._prefill_guard.start(
            {sms: statistics.median(found) for (decode, sms), found in ratios.items() if not decode}
        )

    def errors(self) -> Errors:
        decode, prefill, fused = (self._errors[kind] for kind in (Kind.DECODE, Kind.PREFILL, Kind.FUSED))
        return Errors(
            decode_mape=decode.mean,
            prefill_mape=prefill.mean,
            fused_mape=fused.mean,
            decode_under_share=self._under.mean,
            decode_passes=decode.count,
            prefill_passes=prefill.count,
            fused_passes=fused.count,
            guarded_decode_passes=self._under.count,
        )

    def snapshot(self) -> Snapshot:
        """All that was learned; neither the prior nor the errors."""
        return Snapshot(
            self._prefill.states(),
            self._decode.states(),
            self._prefill_guard.states(),
            self._decode_guard.states(),
        )

    def restore(self, snapshot: Snapshot) -> None:
        """Replaces what was learned by what another model of the same device and shape had."""
        self._prefill.restore(snapshot.prefill)
        self._decode.restore(snapshot.decode)
        self._prefill_guard.restore(snapshot.prefill_guard)
        self._decode_guard.restore(snapshot.decode_guard)

    def _guard(self, load: Load) -> Guard:
        return self._decode_guard if load.decode_rows else self._prefill_guard

    def _learn(self, load: Load, sms: int, seconds: float) -> None:
        """From the time that a pass took, or would have taken, alone."""
        if not load.prefill_rows:
            self._decode.observe(costs.decode_features(load), sms, seconds)
            return
        features = costs.prefill_features(load)
        if load.decode_rows:
            seconds *= self._prefill_share(load, sms, features, seconds)
        self._prefill.observe(features, sms, seconds)

    def _prefill_share(self, load: Load, sms: int, features: Features, seconds: float) -> float:
        """Of a fused pass's time, which teaches prefill only: decode has passes of its own.

        In proportion to the predictions, so that an error of decode's does not all fall on prefill.
        """
        decode = self._decode.at(sms)
        if decode is None:
            return 1.0
        decode_s = decode[0] * load.decode_context_tokens + decode[1] * load.decode_rows
        prefill = self._prefill.at(sms)
        if prefill is None:
            return max(1 - decode_s / seconds, LEAST_PREFILL_SHARE)
        prefill_s = sum(map(mul, prefill, features))
        return prefill_s / (prefill_s + decode_s) if prefill_s > 0 else LEAST_PREFILL_SHARE
